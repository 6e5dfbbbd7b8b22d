"""A paper's table on full CelebA: what has to be trained, what that costs, and the commands, printed and then run.

    python -m faceattr_jax.reproduce PAPER CELEBA FOLDER [--dry-run]

PAPER is a protocol (`faceattr_jax.evaluation.protocols`), whose steps these are. Hours are from `faceattr benchmark` on
this machine, run for every step before anything starts, or, of a dry run that finds no such measurement in FOLDER/cost,
from a rule of thumb that says so.
"""

import argparse
import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import protocol
from faceattr_jax.methods.base import EditRequest, build
from faceattr_jax.training.state import init_state

PASSES = 10  # forward passes of the model that an image costs in an update: both networks, backward, penalties
SEEDS = 3  # of an augmentation study, each without and with edits
RATE = 30e12  # FLOP/s that one data-centre GPU keeps up in training


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one training. images: through the networks, every update counting its batch. source: of the hours."""

    iterations: int
    images: int
    hours: float
    source: str


def cost(config: ConfigDict, measured: Path) -> Cost:
    """By the benchmark in the file `measured` where it is there, else estimated."""
    method = build(config)
    iterations = sum(stage.iterations for stage in method.stages)
    updates = sum(stage.iterations * sum(phase.repeats for phase in stage.phases) for stage in method.stages)
    images = updates * config.batch_size
    if measured.is_file():
        found = json.loads(measured.read_text())
        rate, devices = found["images_per_second"], ", ".join(found["devices"])
        return Cost(iterations, images, images / rate / 3600, f"measured: {rate:,.0f} images/s on {devices}")
    flops = forward_flops(method, config.image_size)
    return Cost(
        iterations, images, images * PASSES * flops / RATE / 3600,
        f"estimated: {PASSES} forward passes of {flops / 1e9:.2f} GFLOP an image, {RATE / 1e12:.0f} TFLOP/s",
    )  # fmt: skip


def forward_flops(method: Any, size: int) -> float:
    """Floating-point operations of what the method does to one picture, by XLA's count; nothing is compiled or run."""
    variables = jax.eval_shape(lambda: init_state(method, 0).inference_variables)
    image, labels = jnp.zeros((1, size, size, 3)), jnp.zeros((1, len(method.attributes)))

    name = next(n for n in ("edit", "swap", "restore", "embed", "classify") if n in method.capabilities)

    def forward(variables: Any) -> Any:
        if name == "swap":
            return method.swap(variables, image, image[None], labels > -1)
        if name == "edit":
            return method.edit(variables, image, EditRequest(target=1 - labels, source=labels))
        return getattr(method, name)(variables, image)

    counted: Any = jax.jit(forward).lower(variables).cost_analysis()
    return float(counted["flops"])


def commands(paper: str, data: str, folder: Path) -> dict[str, list[str]]:
    """Name -> arguments of `faceattr`: a training for each step, the evaluation, and the augmentation study if any."""
    found = {}
    chosen = protocol.find(paper)
    steps = chosen.steps
    for step in steps:
        keys = [f"--config.{key}={value}" for key, value in {"data.path": data, **step.overrides}.items()]
        found[step.name] = ["train", f"--config={step.config}", f"--workdir={folder / step.name}", *keys]
    places = {role: [str(folder / step.name) for step in steps if step.role == role] for role in ("model", *_ROLES)}
    helpers = [f"--{role}={places[role][0]}" for role in _ROLES if places[role]]
    found["evaluation"] = [
        "evaluate",
        "--workdir",
        *places["model"],
        f"--protocol={paper}",
        f"--split={chosen.split}",
        *helpers,
        "--curve",
        f"--out={folder}",
    ]
    if chosen.augmentation:
        classifier = next(step.config for step in steps if step.name == chosen.augmentation)
        found["augmentation"] = [
            "study", "augment", places["model"][0], f"--config={classifier}", f"--seeds={SEEDS}",
            f"--out={folder / 'augmentation'}",
        ]  # fmt: skip
    return found


_ROLES = ("judge", "recognizer")


def plan(paper: str, data: str, folder: Path) -> str:
    """The steps, what each costs and takes, and the commands."""
    found = protocol.find(paper)
    costs = {
        step.name: cost(configs.load(step.config, step.overrides), folder / "cost" / f"{step.name}.json")
        for step in found.steps
    }
    if found.augmentation:
        one, trainings = costs[found.augmentation], 2 * SEEDS
        costs["augmentation"] = dataclasses.replace(
            one,
            iterations=trainings * one.iterations,
            images=trainings * one.images,
            hours=trainings * one.hours,
            source=f"{trainings} of {found.augmentation}'s, {one.source}",
        )
    lines = [f"{found.paper} on {data}, one training after another:", ""]
    for name, arguments in commands(paper, data, folder).items():
        if name in costs:
            c = costs[name]
            lines.append(f"{name}: {c.iterations:,} iterations, {c.images:,} images, {c.hours:,.1f} hours ({c.source})")
        lines.append(f"  faceattr {' '.join(arguments)}")
    images, hours = (sum(getattr(c, key) for c in costs.values()) for key in ("images", "hours"))
    return "\n".join(
        [*lines, "", f"together: {images:,} images, {hours:,.0f} hours on one device, evaluation not counted"]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan; without --dry-run measure it first, and then run it."""
    parser = argparse.ArgumentParser(prog="reproduce.sh", description=__doc__)
    parser.add_argument("paper", help=", ".join(protocol.names()))
    parser.add_argument("data", help="CelebA's folder")
    parser.add_argument("folder", type=Path, help="for all runs and the report")
    parser.add_argument("--dry-run", action="store_true")
    a = parser.parse_args(argv)
    try:
        steps = commands(a.paper, a.data, a.folder)
        for name, arguments in steps.items():
            measured = a.folder / "cost" / f"{name}.json"
            if not a.dry_run and arguments[0] == "train" and not measured.is_file():
                keys = [argument for argument in arguments[1:] if not argument.startswith("--workdir")]
                run_faceattr(["benchmark", *keys, "--rounds=3", f"--out={measured}"])
        print(plan(a.paper, a.data, a.folder), flush=True)
        for arguments in () if a.dry_run else steps.values():
            run_faceattr(arguments)
    except UserError as error:
        print(f"reproduce.sh: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    return 0


def run_faceattr(arguments: Sequence[str]) -> None:
    """In a process of its own, whose memory goes with it; SIGTERM goes to that one, which saves."""
    command = [sys.executable, "-m", "faceattr_jax.cli", *arguments]
    with subprocess.Popen(command) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            status = process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
    if status:  # 75 of a training that was stopped, too: what comes next needs it whole
        raise subprocess.CalledProcessError(status, command)


if __name__ == "__main__":
    sys.exit(main())
