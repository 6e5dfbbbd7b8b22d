"""Seconds of a training iteration of our AttGAN beside those of the PyTorch oracle, on this machine's CPU.

    python -m tests.oracles.benchmark_torch --config=attgan_64 --rounds 7 [--config.model.width=16]

Both start from the same weights and use the same threads. Losses and gradients of both phases, and the losses of a
first iteration, must agree when both draw the same random numbers. Then their iterations (critic updates and a
generator update on pictures of uint8) take turns. Prints JSON: relative differences, and the medians of the rounds'
seconds and of their ratios ours / PyTorch.
"""

import argparse
import json
import os
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from faceattr_jax import config as configs
from faceattr_jax.methods import base
from faceattr_jax.training.state import TrainState, init_state
from faceattr_jax.training.step import Executor
from tests.oracles import attgan_torch

TOLERANCE = 1e-4  # of losses and of gradients (2-norm over a network) from the same weights
TOLERANCE_UPDATED = 1e-3  # of losses after Adam's first updates, whose signs of tiny gradients may differ


def benchmark(spec: str, overrides: dict[str, str], rounds: int) -> dict[str, object]:
    """The measurement as a JSON-able mapping; raises AssertionError where the losses differ."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # XLA's own choice
    config = configs.load(spec, overrides)
    method = base.build(config)
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    executor = Executor(method, method.stages[0], seed=config.seed, mesh=mesh)
    state = jax.jit(lambda: init_state(method, config.seed))()
    oracle = attgan_torch.AttGAN(config, state.variables)

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

    differences = compare(executor, state, oracle, batches[0])
    assert max(differences.values()) < TOLERANCE, differences
    our_losses, their_losses = ours(), theirs()  # compiles, too
    for phase, loss in their_losses.items():
        differences[f"{phase} loss, updated"] = abs(our_losses[phase] / loss - 1)
        assert differences[f"{phase} loss, updated"] < TOLERANCE_UPDATED, differences
    times: dict[str, list[float]] = {"ours": [], "torch": []}
    for i in range(rounds):
        pair = [("ours", ours), ("torch", theirs)]
        for name, iterate in pair if i % 2 == 0 else reversed(pair):
            start = time.perf_counter()
            iterate()
            times[name].append(time.perf_counter() - start)
    return {
        "config": spec,
        "overrides": overrides,
        "batch_size": config.batch_size,
        "threads": torch.get_num_threads(),
        "differences": differences,
        "seconds": times,
        "ours": statistics.median(times["ours"]),
        "torch": statistics.median(times["torch"]),
        "ratio": statistics.median(a / b for a, b in zip(times["ours"], times["torch"], strict=True)),
    }


def compare(
    executor: Executor, state: TrainState, oracle: attgan_torch.AttGAN, batch: dict[str, np.ndarray]
) -> dict[str, float]:
    """Relative differences of the losses and of the gradients of each network, from the same weights."""
    differences = {}
    for phase in executor.stage.phases:
        where = jnp.zeros(3, jnp.int32)
        gradients, out = jax.jit(executor.gradients, static_argnums=0)(phase, state, batch, {}, where)
        draw = attgan_torch.our_draw(oracle.config, phase.name, 0, 0, batch["labels"])
        loss, expected = oracle.gradients(phase.name, batch, draw)
        differences[f"{phase.name} loss"] = abs(float(out.losses[phase.name]) / loss - 1)
        for network, tree in gradients[phase.name].items():
            ours = attgan_torch.to_torch(oracle.config, tree)
            theirs = {path: gradient.numpy() for path, gradient in expected[network].items()}
            squares = sum(np.sum((ours[path] - theirs[path]) ** 2) for path in ours)
            scale = sum(np.sum(theirs[path] ** 2) for path in ours)
            differences[f"{network} gradient"] = float(np.sqrt(squares / scale))
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="attgan_64", help="a config's name, perhaps with :variant")
    parser.add_argument("--rounds", type=int, default=7)
    arguments, rest = parser.parse_known_args()
    overrides = {}
    for flag in rest:
        key, equals, value = flag.partition("=")
        if not (key.startswith("--config.") and equals):
            parser.error(f"'{flag}' is not of the form --config.key=value")
        overrides[key.removeprefix("--config.")] = value
    print(json.dumps(benchmark(arguments.config, overrides, arguments.rounds), indent=2))


if __name__ == "__main__":
    main()
