"""Seconds of a training iteration of our AttGAN beside those of the PyTorch oracle, on this machine's CPU.

    python -m tests.oracles.benchmark_torch --config=attgan_64 --rounds 7 [--config.model.width=16]

With --device=cuda on one GPU, eager or by torch.compile (--mode), in float32, TF32 or bfloat16 (--precision); bfloat16
is PyTorch's autocast beside our `config.dtype`, and losses are printed instead of compared.

Both start from the same weights, draw the same random numbers and use the same threads. Losses and gradients of both
phases must agree in double precision; in single, where leaky ReLUs whose inputs round across 0 differ by more, they are
printed. The losses of a first iteration must agree, too. Then their iterations (critic updates and a generator update
on pictures of uint8) take turns. Prints JSON: relative differences, and the medians of the rounds' seconds and of their
ratios ours / PyTorch.
"""

import argparse
import json
import os
import statistics
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax.methods import base
from faceattr_jax.training.state import TrainState, init_state
from faceattr_jax.training.step import Executor
from tests.oracles import attgan_torch

TOLERANCE = 1e-4  # of losses and of gradients (2-norm over a network) from the same weights, in double precision
TOLERANCE_UPDATED = 1e-3  # of losses after Adam's first updates, whose signs of tiny gradients may differ


def benchmark(
    spec: str,
    overrides: dict[str, str],
    rounds: int,
    *,
    device: str = "cpu",
    mode: str = "eager",
    precision: str = "float32",
) -> dict[str, object]:
    """The measurement as a JSON-able mapping; raises AssertionError where the losses differ."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # XLA's own choice
    if precision == "bfloat16":
        overrides = {**overrides, "dtype": "bfloat16"}
    elif device != "cpu":
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if precision == "tf32" else "highest")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = True
    config = configs.load(spec, overrides)
    method = base.build(config)
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    executor = Executor(method, method.stages[0], seed=config.seed, mesh=mesh)
    state = jax.jit(lambda: init_state(method, config.seed))()
    oracle = attgan_torch.AttGAN(config, state.variables, device=device, compiled=mode == "compiled")

    rng = np.random.default_rng(0)
    size, n = config.image_size, len(config.attributes)
    batches = [
        {
            "images": rng.integers(0, 256, (config.batch_size, size, size, 3), dtype=np.uint8),
            "labels": rng.integers(0, 2, (config.batch_size, n)).astype(np.float32),
        }
        for _ in executor.schedule
    ]
    draws = [
        attgan_torch.our_draw(config, update.phase.name, 0, update.repeat, batch["labels"])
        for update, batch in zip(executor.schedule, batches, strict=True)
    ]

    def ours() -> dict[str, float]:
        nonlocal state
        state, metrics = executor.iterate(state, batches, 0)
        jax.block_until_ready(state)
        return {phase: float(metrics[f"{phase}/{phase}"]) for phase in ("critic", "generator")}

    def theirs() -> dict[str, float]:
        return oracle.iterate(batches, draws)

    differences = compare(executor, state, config) if device == "cpu" and precision == "float32" else {}
    if differences:
        assert max(differences["float64"].values()) < TOLERANCE, differences
    our_losses, their_losses = ours(), theirs()  # compiles, too
    updated = {phase: abs(our_losses[phase] / loss - 1) for phase, loss in their_losses.items()}
    assert precision != "float32" or max(updated.values()) < TOLERANCE_UPDATED, updated
    times: dict[str, list[float]] = {"ours": [], "torch": []}
    for i in range(rounds):
        pair = [("ours", ours), ("torch", theirs)]
        for name, iterate in pair if i % 2 == 0 else reversed(pair):
            start = time.perf_counter()
            iterate()
            times[name].append(time.perf_counter() - start)
    return {
        "config": spec,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "mode": mode,
        "precision": precision,
        "overrides": overrides,
        "batch_size": config.batch_size,
        "threads": torch.get_num_threads(),
        "differences": {**differences, "losses after an iteration": updated},
        "seconds": times,
        "ours": statistics.median(times["ours"]),
        "torch": statistics.median(times["torch"]),
        "ratio": statistics.median(a / b for a, b in zip(times["ours"], times["torch"], strict=True)),
    }


def compare(executor: Executor, state: TrainState, config: ConfigDict) -> dict[str, dict[str, float]]:
    """Precision -> relative differences of the losses and (in the 2-norm) of each network's gradient."""
    rng = np.random.default_rng(1)
    shape = (config.batch_size, config.image_size, config.image_size, 3)
    batch = {
        # 0 and 255 alone: both sides convert them to -1 and 1 without rounding.
        "images": 255 * rng.integers(0, 2, shape, dtype=np.uint8),
        "labels": rng.integers(0, 2, (config.batch_size, len(config.attributes))).astype(np.float32),
    }
    differences: dict[str, dict[str, float]] = {}
    for dtype in ("float64", "float32"):
        found = differences[dtype] = {}
        with jax.enable_x64(dtype == "float64"):
            state = state.replace(variables=jax.tree.map(partial(jnp.asarray, dtype=dtype), state.variables))
            oracle = attgan_torch.AttGAN(config, state.variables)
            for phase in executor.stage.phases:
                where = jnp.zeros(3, jnp.int32)
                compute = jax.jit(executor.gradients, static_argnums=0)
                gradients, out = compute(phase, state, batch, {}, where, executor.frozen)
                draw = attgan_torch.our_draw(config, phase.name, 0, 0, batch["labels"])
                loss, expected = oracle.gradients(phase.name, batch, draw)
                found[f"{phase.name} loss"] = abs(float(out.losses[phase.name]) / loss.item() - 1)
                for network, tree in gradients[phase.name].items():
                    ours = attgan_torch.to_torch(config, tree)
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
    overrides = {}
    for flag in rest:
        key, equals, value = flag.partition("=")
        if not (key.startswith("--config.") and equals):
            parser.error(f"'{flag}' is not of the form --config.key=value")
        overrides[key.removeprefix("--config.")] = value
    options = {"device": arguments.device, "mode": arguments.mode, "precision": arguments.precision}
    text = json.dumps(benchmark(arguments.config, overrides, arguments.rounds, **options), indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
