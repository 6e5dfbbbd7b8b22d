"""The programs of the five papers at tiny width, without data: what they take, as shapes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from faceattr_jax.methods import base
from faceattr_jax.methods.base import Phase, Stage
from faceattr_jax.training.state import TrainState, init_state
from faceattr_jax.training.step import Executor
from tests import runs

PAPERS = {
    "attgan": runs.attgan,
    "elegant": lambda faces: runs.changed(
        "elegant_128:synthetic", {"image_size": 32, "model.width": 2, "model.encoder": (1, 2, 4)}, faces, {}
    ),
    "diat": lambda faces: runs.diat(faces, loss__identity=0.0),  # whose face network is no part of a program's own
    "slgan": runs.slgan,
    "attribute_inverse": runs.attribute_inverse,
}


def method(paper: str, **changes: object) -> Any:
    """The paper's method at a few channels."""
    config = PAPERS[paper](Path("synthetic"))
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return base.build(config)


def state(method: Any) -> TrainState:
    return jax.eval_shape(lambda: init_state(method, 0))


def sampler(method: Any, stage: Stage, pictures: int = 64) -> Any:
    """The stage's sampler of so many pictures."""
    labels = np.random.default_rng(0).integers(0, 2, (pictures, len(method.attributes)))
    return stage.sampler(jax.random.key(0), np.arange(pictures), labels, method.config.batch_size)


def batch(method: Any, stage: Stage) -> Any:
    """A batch of the stage's sampler."""
    config = method.config

    def leaf(rows: Any) -> dict[str, Any]:
        images = (*rows.shape, config.image_size, config.image_size, 3)
        return {
            "images": jax.ShapeDtypeStruct(images, jnp.uint8),
            "labels": jax.ShapeDtypeStruct((*rows.shape, len(method.attributes)), jnp.float32),
        }

    return jax.tree.map(leaf, jax.eval_shape(sampler(method, stage), jnp.int32(0), jnp.int32(0)))


def pictures(method: Any, count: int = 8) -> dict[str, np.ndarray]:
    """A plain batch of noise."""
    rng, size = np.random.default_rng(0), method.config.image_size
    return {
        "images": rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "labels": rng.integers(0, 2, (count, len(method.attributes))).astype(np.float32),
    }


def updates(
    method: Any, stage: Stage, mesh: Mesh, *, compiled: bool = False
) -> Iterator[tuple[Phase, Any, tuple[Any, ...]]]:
    """(phase, its update, jitted or compiled, the shapes of its arguments) of each phase of a stage."""
    executor = Executor(method, stage, seed=0, mesh=mesh, flip=True)
    carry: dict[str, Any] = {}
    for phase in stage.phases:
        arguments = (
            state(method), batch(method, stage), carry, jax.ShapeDtypeStruct((3,), jnp.int32), executor.frozen,
        )  # fmt: skip
        update = executor.updates[phase.name]
        handed_on = jax.eval_shape(update, *arguments)[1]
        if compiled:  # then it is known how what is handed on lies on the devices
            update = update.lower(*arguments).compile()
            handed_on = jax.tree.map(
                lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                handed_on,
                update.output_shardings[1],
            )
        yield phase, update, arguments
        carry = {**carry, **handed_on}


def trained(method: Any, phase: Phase, state: TrainState) -> list[jax.ShapeDtypeStruct]:
    """The parameters that a phase trains."""
    params = state.variables["params"]
    return jax.tree.leaves([params[network] for name in phase.trains for network in method.optimizers[name].networks])
