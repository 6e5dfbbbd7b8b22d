"""Seconds of our inference and training iteration beside those of the PyTorch oracle, on this machine's CPU.

    faceattr benchmark --against=torch --config=attgan_64
    python -m tests.oracles.benchmark_torch --config=attgan_64 --rounds 7 [--config.model.width=16]

The first adds them to the rest of the benchmark. The second measures them alone, and AttGAN with --device=cuda on one
GPU, too, eager or by torch.compile (--mode), in float32, TF32 or bfloat16 (--precision); bfloat16 is PyTorch's autocast
beside our `config.dtype`, and losses are printed instead of compared.

Both start from the same weights, draw the same random numbers and use the same threads. What the generators make of the
same faces must agree; then batches of 1 and 32 take turns. Where the oracle holds a generator alone that is all, and
without --against nothing that only training needs, such as DIAT's face network, is looked for. Losses and gradients of
all phases must agree in double precision; in single, where leaky ReLUs whose inputs round across 0 differ by more, they
are printed. The losses of a first iteration must agree, too. Then iterations on pictures of uint8 take turns. Prints
JSON: relative differences, and the medians of the rounds' seconds and of their ratios ours / PyTorch.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax import cpu
from faceattr_jax.benchmark import inference
from faceattr_jax.errors import UserError
from faceattr_jax.methods import base
from faceattr_jax.training.state import TrainState, init_state
from faceattr_jax.training.step import Executor
from tests.oracles import attgan_torch, elegant_torch, generators_torch

TOLERANCE = 1e-9  # of losses and of gradients (2-norm over a network) from the same weights, in double precision
TOLERANCE_UPDATED = 1e-3  # of losses after Adam's first updates, whose signs of tiny gradients may differ
TOLERANCE_IMAGES = 1e-3  # of what the generators make, in [-1, 1]
BATCHES = (1, 32)  # of inference
COMPARED = 4  # pictures of a batch whose gradients must agree: in double precision XLA has no fast convolutions
REST = 0.3  # seconds


class AttGAN:
    """The oracle of AttGAN: what a batch is to it, and which random numbers it needs of ours."""

    def __init__(self, config: ConfigDict, variables: Any, **options: Any):
        self.config, self.oracle = config, attgan_torch.AttGAN(config, variables, **options)
        self.to_torch = partial(attgan_torch.to_torch, config)

    def batch(self, leaf: Callable[[], Any], attribute: int) -> Any:
        return leaf()

    def gradients(self, phase: str, batch: Any) -> tuple[float, Any]:
        draw = attgan_torch.our_draw(self.config, phase, 0, 0, batch["labels"])
        loss, gradients = self.oracle.gradients(phase, batch, draw)
        return loss.item(), gradients

    def iteration(self, executor: Executor, batches: Sequence[Any]) -> Callable[[], dict[str, float]]:
        draws = [
            attgan_torch.our_draw(self.config, update.phase.name, 0, update.repeat, batch["labels"])
            for update, batch in zip(executor.schedule, batches, strict=True)
        ]
        return lambda: self.oracle.iterate(batches, draws)

    def inference(self, images: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        """The edit that `faceattr_jax.benchmark` times, and what makes our layout of it."""
        faces, targets = self.oracle.pictures(images), torch.from_numpy(1 - labels).to(self.oracle.device)
        return lambda: self.oracle.edit(faces, targets), lambda made: made.flip(2, 3)


class ELEGANT:
    """The oracle of ELEGANT."""

    def __init__(self, config: ConfigDict, variables: Any, *, device: str = "cpu", compiled: bool = False):
        _check_plain(config, device, compiled)
        self.oracle = elegant_torch.ELEGANT(config, variables)
        self.to_torch = elegant_torch.to_torch

    def batch(self, leaf: Callable[[], Any], attribute: int) -> Any:
        pair = {"positive": leaf(), "negative": leaf()}
        for value, side in ((1, pair["positive"]), (0, pair["negative"])):
            side["labels"][:, attribute] = value
        return pair

    def gradients(self, phase: str, batch: Any) -> tuple[float, Any]:
        return self.oracle.gradients(phase, batch, 0)

    def iteration(self, executor: Executor, batches: Sequence[Any]) -> Callable[[], dict[str, float]]:
        return lambda: self.oracle.iterate(batches[0], 0)

    def inference(self, images: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        """The swap that `faceattr_jax.benchmark` times, and what makes our layout of it."""
        faces = self.oracle.faces({"images": images, "labels": labels}).images
        others = faces.flip(0)
        return lambda: self.oracle.swap(faces, others, 0), lambda made: made


class Generator:
    """An oracle that edits and is not trained. kind: a class of `generators_torch`."""

    def __init__(self, kind: Any, config: ConfigDict, variables: Any, *, device: str = "cpu", compiled: bool = False):
        _check_plain(config, device, compiled)
        self.oracle = kind(config, variables)

    def inference(self, images: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        """The edit that `faceattr_jax.benchmark` times, and what makes our layout of it."""
        faces, source = self.oracle.pictures(images), torch.from_numpy(labels)
        return lambda: self.oracle.edit(faces, source, 1 - source), self.oracle.unmirrored


def _check_plain(config: ConfigDict, device: str, compiled: bool) -> None:
    if device != "cpu" or compiled or config.get("dtype", "float32") != "float32":
        raise UserError(f"the PyTorch implementation of {config.method} is for the CPU, eager and in float32.")


PEERS: dict[str, Any] = {
    "attgan": AttGAN,
    "attribute_inverse": partial(Generator, generators_torch.AttributeInverse),
    "diat": partial(Generator, generators_torch.DIAT),
    "elegant": ELEGANT,
    "slgan": partial(Generator, generators_torch.SLGAN),
}

COVERED = {
    "attgan": {"model.generator_norm": "batch", "model.instance_noise": 0.0, "loss.trace_classification": 0.0},
    "diat": {"task": "transfer"},
    "elegant": {"model.rgb_norm": False},
}
"""What a config must have: the oracles are the papers', without our extensions, and DIAT's without hallucination."""


def check(config: ConfigDict, device: str = "cpu") -> None:
    """Raises UserError for a config that no oracle covers, and where JAX would compute on another kind of device."""
    if (device == "cpu") != (jax.default_backend() == "cpu"):
        raise UserError(
            f"JAX computes on {jax.default_backend()}, and PyTorch would on {device}: set JAX_PLATFORMS=cpu, or call "
            "python -m tests.oracles.benchmark_torch --device=cuda."
        )
    if config.method not in PEERS:
        raise UserError(f"there is no PyTorch implementation of {config.method}, but of {', '.join(PEERS)}.")
    for key, value in COVERED.get(config.method, {}).items():
        group, _, name = key.rpartition(".")
        if (config[group] if group else config).get(name, value) != value:
            raise UserError(
                f"the PyTorch implementation of {config.method} does not cover this: it needs --config.{key}={value}."
            )


def benchmark(
    config: ConfigDict, rounds: int, *, device: str = "cpu", mode: str = "eager", precision: str = "float32"
) -> dict[str, Any]:
    """The measurement as a JSON-able mapping; raises AssertionError where images, losses or gradients differ."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # XLA's own choice
    exact = config.get("dtype", "float32") == "float32" and precision == "float32"
    if device != "cpu":
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if precision == "tf32" else "highest")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = True
    method = base.build(config)
    state = jax.jit(lambda: init_state(method, config.seed))()
    peer = PEERS[config.method](config, state.variables, device=device, compiled=mode == "compiled")
    rng, variables = np.random.default_rng(0), jax.tree.map(jnp.copy, state.inference_variables)
    inferences = {
        f"{verb}, batch {count}": row
        for count in BATCHES
        for verb, row in [inference_in_turns(method, variables, peer, rng, count, rounds, exact=exact)]
    }
    training = {}
    if hasattr(peer, "iteration"):
        compared = exact and device == "cpu"
        training = training_in_turns(method, state, peer, rng, rounds, exact=exact, compared=compared)
    return {
        "config": config.method,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "dtype": config.get("dtype", "float32"),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "mode": mode,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "inference": inferences,
        **training,
    }


def _leaf(config: ConfigDict, rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    size = config.image_size
    return {
        "images": rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "labels": rng.integers(0, 2, (count, len(config.attributes))).astype(np.float32),
    }


def _in_turns(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, calls: int = 1) -> dict[str, Any]:
    """Seconds of both, which take turns in going first; medians, and that of the rounds' ratios.

    PyTorch's threads spin on a while when they have nothing to do, so both wait before they start. calls: in a row in
    each turn, of which the last is timed: short ones would measure how long threads take to wake.
    """
    times: dict[str, list[float]] = {"ours": [], "torch": []}
    for i in range(rounds):
        pair = [("ours", ours), ("torch", theirs)]
        for name, run in pair if i % 2 == 0 else reversed(pair):
            time.sleep(REST)
            for _ in range(calls - 1):
                run()
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(times["ours"], times["torch"], strict=True))
    return {**{name: statistics.median(seconds) for name, seconds in times.items()}, "ratio": ratio, "seconds": times}


def inference_in_turns(
    method: Any, variables: Any, peer: Any, rng: np.random.Generator, count: int, rounds: int, *, exact: bool
) -> tuple[str, dict[str, Any]]:
    """What the generator is timed at, and its seconds in turn with PyTorch's, once both have made the same images."""
    leaf = _leaf(method.config, rng, count)
    found = inference(method, method.config)
    assert found
    verb, run = found
    images, labels = jnp.asarray(leaf["images"], jnp.float32) / 127.5 - 1, jnp.asarray(leaf["labels"])
    theirs, layout = peer.inference(leaf["images"], leaf["labels"])

    def wait() -> Any:
        made = theirs()
        if made.is_cuda:
            torch.cuda.synchronize()
        return made

    def ours() -> jax.Array:
        return jax.block_until_ready(run(variables, images, labels))

    expected = layout(wait()).permute(0, 2, 3, 1).float().cpu().numpy()
    difference = float(np.abs(np.asarray(ours()) - expected).max())
    assert not exact or difference < TOLERANCE_IMAGES, difference
    return verb, {"difference": difference, **_in_turns(ours, wait, rounds, calls=3)}


def training_in_turns(
    method: Any, state: TrainState, peer: Any, rng: np.random.Generator, rounds: int, *, exact: bool, compared: bool
) -> dict[str, Any]:
    """Seconds of an iteration of the first stage in turn with PyTorch's, once both have learned the same of it."""
    config = method.config
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    executor = Executor(method, method.stages[0], seed=config.seed, mesh=mesh)
    batches = [
        peer.batch(partial(_leaf, config, rng, config.batch_size), 0) for _ in range(executor.draws_per_iteration)
    ]

    def ours() -> dict[str, float]:
        nonlocal state
        state, metrics = executor.iterate(state, batches, 0)
        jax.block_until_ready(state)
        return {phase.name: float(metrics[f"{phase.name}/{phase.name}"]) for phase in executor.stage.phases}

    theirs = peer.iteration(executor, batches)
    differences = compare(executor, state, peer) if compared else {}
    if differences:
        assert max(differences["float64"].values()) < TOLERANCE, differences
    our_losses, their_losses = ours(), theirs()  # compiles, too
    updated = {phase: abs(our_losses[phase] / loss - 1) for phase, loss in their_losses.items()}
    assert not exact or max(updated.values()) < TOLERANCE_UPDATED, updated
    return {
        "differences": {**differences, "losses after an iteration": updated},
        "iteration": _in_turns(ours, theirs, rounds),
    }


def compare(executor: Executor, state: TrainState, peer: Any) -> dict[str, dict[str, float]]:
    """Precision -> relative differences of the losses and (in the 2-norm) of each network's gradient."""
    config, rng = executor.method.config, np.random.default_rng(1)

    def leaf() -> dict[str, np.ndarray]:
        # 0 and 255 alone: both sides convert them to -1 and 1 without rounding.
        found = _leaf(config, rng, COMPARED)
        return {**found, "images": np.where(found["images"] > 127, 255, 0).astype(np.uint8)}

    batch = peer.batch(leaf, 0)
    differences: dict[str, dict[str, float]] = {}
    for dtype in ("float64", "float32"):
        found = differences[dtype] = {}
        with jax.enable_x64(dtype == "float64"):
            state = state.replace(variables=jax.tree.map(partial(jnp.asarray, dtype=dtype), state.variables))
            exact = type(peer)(config, state.variables)
            for phase in executor.stage.phases:
                where = jnp.zeros(3, jnp.int32)
                compute = jax.jit(executor.gradients, static_argnums=0)
                gradients, out = compute(phase, state, batch, {}, where, executor.frozen)
                loss, expected = exact.gradients(phase.name, batch)
                found[f"{phase.name} loss"] = abs(float(out.losses[phase.name]) / loss - 1)
                for network, tree in gradients[phase.name].items():
                    ours = peer.to_torch(tree)
                    theirs = {path: gradient.numpy() for path, gradient in expected[network].items()}
                    squares = sum(np.sum((ours[path] - theirs[path]) ** 2) for path in ours)
                    scale = sum(np.sum(theirs[path] ** 2) for path in ours)
                    found[f"{network} gradient"] = float(np.sqrt(squares / scale))
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="attgan_64", help="a config's name, perhaps with :variant")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--mode", default="eager", choices=("eager", "compiled"))
    parser.add_argument("--precision", default="float32", choices=("float32", "tf32", "bfloat16"))
    parser.add_argument("--out", type=Path, help="a JSON file, too")
    arguments, rest = parser.parse_known_args()
    overrides = {"dtype": "bfloat16"} if arguments.precision == "bfloat16" else {}
    for flag in rest:
        key, equals, value = flag.partition("=")
        if not (key.startswith("--config.") and equals):
            parser.error(f"'{flag}' is not of the form --config.key=value")
        overrides[key.removeprefix("--config.")] = value
    config = configs.load(arguments.config, overrides)
    cpu.keep_freed()
    cpu.convolve_by_eigen()
    try:
        check(config, arguments.device)
        options = {"device": arguments.device, "mode": arguments.mode, "precision": arguments.precision}
        text = json.dumps(benchmark(config, arguments.rounds, **options), indent=2)
    except UserError as error:
        parser.error(str(error))
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
