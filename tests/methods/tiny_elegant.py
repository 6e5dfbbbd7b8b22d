"""ELEGANT, so small that it is soon compiled, and what its tests have in common."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax import config as configs
from faceattr_jax.methods.base import Ctx, build
from faceattr_jax.training.state import init_state

NAMES = "Bangs,Eyeglasses,Male"
SIZE, N = 32, 3
TINY = {"model.width": "2", "model.encoder": "(1, 2, 4)", "image_size": str(SIZE), "batch_size": "2"}


@functools.cache
def tiny(spec: str = "elegant_256:released", **overrides: str):
    return build(configs.load(spec, {**TINY, "attributes": NAMES, **overrides}))


@functools.cache
def variables_of(method):
    """Random variables in which every layer and every scalar counts."""
    shapes = jax.eval_shape(lambda: init_state(method, 0)).variables
    rng = np.random.default_rng(0)

    def value(path, leaf):
        center = 1.0 if path[-1].key == "scale" else 0.0
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return jnp.asarray(rng.normal(center, fan_in**-0.5, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(value, shapes)


@functools.cache
def batch(count: int = 2, size: int = SIZE, n: int = N):
    """Labels of attribute 1 alone are opposite in every pair, so that the index of a test is 1."""
    rng = np.random.default_rng(0)

    def leaf(value):
        labels = rng.integers(0, 2, (count, n)).astype(np.float32)
        labels[:, 1] = value
        return {"images": rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8), "labels": labels}

    return {"positive": leaf(1.0), "negative": leaf(0.0)}


def float_batch():
    return {
        side: {"images": jnp.asarray(leaf["images"] / 127.5 - 1, jnp.float32), "labels": jnp.asarray(leaf["labels"])}
        for side, leaf in batch().items()
    }


def pictures(count: int = 1):
    """images and one or several sets of references, float."""
    rng = np.random.default_rng(1)
    return [jnp.asarray(rng.uniform(-1, 1, (2, SIZE, SIZE, 3)), jnp.float32) for _ in range(1 + count)]


def ctx(index: int = 1) -> Ctx:
    return Ctx(jnp.int32(index), jnp.int32(index), jnp.int32(0), jax.random.key(5))
