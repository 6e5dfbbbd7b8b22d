"""The Inception-v3 of Frechet distances: 299x299 RGB -> pool3's 2048 features and 1008 logits. NHWC.

Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016, as TensorFlow released it on
2015-12-05 and TTUR (Heusel et al. 2017) and pytorch-fid use it. It pools otherwise than later copies: means leave the
padding out, and the last block takes maxima.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from faceattr_jax.nn.blocks import batch_norm, windows
from faceattr_jax.nn.conv import Conv, Padding
from faceattr_jax.pretrained import state_dict

SIZE = 299
Layer = tuple[str, int, int, int]
"""(name after "branch", channels, kernel's height and width); a name that ends in "b" works beside the one before."""


def _narrow(pooled: int) -> tuple[int, Sequence[Sequence[Layer]]]:
    return pooled, (
        (("1x1", 64, 1, 1),),
        (("5x5_1", 48, 1, 1), ("5x5_2", 64, 5, 5)),
        (("3x3dbl_1", 64, 1, 1), ("3x3dbl_2", 96, 3, 3), ("3x3dbl_3", 96, 3, 3)),
    )


def _factorised(width: int) -> tuple[int, Sequence[Sequence[Layer]]]:
    return 192, (
        (("1x1", 192, 1, 1),),
        (("7x7_1", width, 1, 1), ("7x7_2", width, 1, 7), ("7x7_3", 192, 7, 1)),
        (
            ("7x7dbl_1", width, 1, 1), ("7x7dbl_2", width, 7, 1), ("7x7dbl_3", width, 1, 7),
            ("7x7dbl_4", width, 7, 1), ("7x7dbl_5", 192, 1, 7),
        ),
    )  # fmt: skip


_WIDE = (
    192,
    (
        (("1x1", 320, 1, 1),),
        (("3x3_1", 384, 1, 1), ("3x3_2a", 384, 1, 3), ("3x3_2b", 384, 3, 1)),
        (("3x3dbl_1", 448, 1, 1), ("3x3dbl_2", 384, 3, 3), ("3x3dbl_3a", 384, 1, 3), ("3x3dbl_3b", 384, 3, 1)),
    ),
)
BLOCKS: dict[str, tuple[int, Sequence[Sequence[Layer]]]] = {
    "Mixed_5b": _narrow(32),
    "Mixed_5c": _narrow(64),
    "Mixed_5d": _narrow(64),
    "Mixed_6a": (
        0,
        ((("3x3", 384, 3, 3),), (("3x3dbl_1", 64, 1, 1), ("3x3dbl_2", 96, 3, 3), ("3x3dbl_3", 96, 3, 3))),
    ),
    "Mixed_6b": _factorised(128),
    "Mixed_6c": _factorised(160),
    "Mixed_6d": _factorised(160),
    "Mixed_6e": _factorised(192),
    "Mixed_7a": (
        0,
        (
            (("3x3_1", 192, 1, 1), ("3x3_2", 320, 3, 3)),
            (("7x7x3_1", 192, 1, 1), ("7x7x3_2", 192, 1, 7), ("7x7x3_3", 192, 7, 1), ("7x7x3_4", 192, 3, 3)),
        ),
    ),
    "Mixed_7b": _WIDE,
    "Mixed_7c": _WIDE,
}
"""The blocks' branches, and the channels of the convolution after the pooling, 0 in those that halve the size."""


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    features: int
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: Padding = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(self.features, self.kernel_size, self.strides, self.padding, use_bias=False, name="conv")(x)
        return nn.relu(batch_norm(0.99, False, name="bn")(x))


class Mixed(nn.Module):
    """Branches side by side, their channels put together, and after them those of a 3x3 pooling.

    pooled: see `BLOCKS`; without it the branches' last convolutions halve the size, as a maximum does. largest: pool
    by maxima where the size stays.
    """

    pooled: int
    branches: Sequence[Sequence[Layer]]
    largest: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        found = []
        for branch in self.branches:
            before = y = x
            for name, features, height, width in branch:
                halves = not self.pooled and name == branch[-1][0]
                unit = Unit(features, (height, width), *((2, "VALID") if halves else ()), name=f"branch{name}")
                if name.endswith("b"):
                    y = jnp.concatenate([y, unit(before)], axis=-1)
                else:
                    before, y = y, unit(y)
            found.append(y)
        if not self.pooled:
            found.append(_max_pool(x))
        else:
            x = _padded_maximum(x) if self.largest else _mean(x)
            found.append(Unit(self.pooled, (1, 1), name="branch_pool")(x))
        return jnp.concatenate(found, axis=-1)


class InceptionV3(nn.Module):
    """(B, 299, 299, 3) RGB in [-1, 1] -> (B, 2048), the mean over the last map, and (B, 1008), the logits."""

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = Unit(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(images)
        x = Unit(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = _max_pool(Unit(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = Unit(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = _max_pool(Unit(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x))
        for name, (pooled, branches) in BLOCKS.items():
            x = Mixed(pooled, branches, name == "Mixed_7c", name=name)(x)
        x = x.mean((1, 2))
        return x, nn.Dense(1008, name="fc")(x)


def _max_pool(x: jax.Array) -> jax.Array:
    return functools.reduce(jnp.maximum, windows(x, 3, 2))


def _padded_maximum(x: jax.Array) -> jax.Array:
    return functools.reduce(jnp.maximum, windows(jnp.pad(x, _BORDER, constant_values=-jnp.inf), 3))


def _mean(x: jax.Array) -> jax.Array:
    inside = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    total, count = (functools.reduce(jnp.add, windows(jnp.pad(part, _BORDER), 3)) for part in (x, inside))
    return total / count


_BORDER = ((0, 0), (1, 1), (1, 1), (0, 0))


def read(path: Path) -> dict[str, Any]:
    """The network's variables in pytorch-fid's state dict, as NumPy arrays."""
    shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, 75, 75, 3)))
    return state_dict.read(path, shapes)
