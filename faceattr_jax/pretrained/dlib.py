"""dlib's face recognition ResNet-29: 150x150 RGB -> 128 numbers, same person below a distance of 0.6 (dlib's claim).

King, "High quality face recognition with deep metric learning", 2017. Batch norm is folded into a scale and a shift
per channel. NHWC.
"""

import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.errors import UserError
from faceattr_jax.nn.blocks import mean_pool, windows
from faceattr_jax.nn.conv import Conv

SIZE = 150
SQUARE = (76.5, 33.8, 110.8)
"""(top, left, side) in aligned CelebA pictures of what dlib was trained on: its face chips with a padding of 0.25.

Their eyes are 0.350 sides apart, the middle between them 0.314 sides below the top, and CelebA's 38.8 pixels apart at
(88.5, 111.3).
"""
MEAN = np.array([122.782, 117.001, 104.298], np.float32)  # RGB, of 255
LEVELS = (32,) * 3 + (64,) * 4 + (128,) * 3 + (256,) * 4
"""Channels of the residual blocks."""
DOWN = (3, 7, 10, 13)
"""The blocks that halve the size; the last one does so after the others of its width."""


class Affine(nn.Module):
    """A scale and a shift per channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = x.shape[-1:]
        return x * self.param("scale", nn.initializers.ones, shape) + self.param("bias", nn.initializers.zeros, shape)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; with `down` both halve the size.

    The halves may come out one row and column apart and with other channels: the smaller is filled up with zeros at
    the bottom, on the right and in the channels.
    """

    features: int
    down: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stride, padding = (2, 0) if self.down else (1, 1)
        y = Conv(self.features, 3, stride, padding, name="conv0")(x)
        y = nn.relu(Affine(name="affine0")(y))
        y = Affine(name="affine1")(Conv(self.features, 3, 1, 1, name="conv1")(y))
        if self.down:
            x = mean_pool(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2], 2)
        shape = np.maximum(x.shape, y.shape)
        return nn.relu(_filled(x, shape) + _filled(y, shape))


class FaceResNet(nn.Module):
    """(B, 150, 150, 3) RGB levels of 0 to 255 -> (B, 128)."""

    @nn.compact
    def __call__(self, levels: jax.Array) -> jax.Array:
        x = Conv(32, 7, 2, "VALID", name="conv")((levels - MEAN) / 256.0)
        x = functools.reduce(jnp.maximum, windows(nn.relu(Affine(name="affine")(x)), 3, 2))
        for i, features in enumerate(LEVELS):
            x = Residual(features, i in DOWN, name=f"block{i}")(x)
        return nn.Dense(128, use_bias=False, name="fc")(x.mean((1, 2)))


def _filled(x: jax.Array, shape: np.ndarray) -> jax.Array:
    return jnp.pad(x, [(0, int(more)) for more in shape - x.shape])


def read(path: Path) -> dict[str, Any]:
    """The parameters of `FaceResNet` in dlib's file, as NumPy arrays.

    The file is a stream in which each tensor is its version (2), four sizes and its float32 numbers; the rest are the
    layers' settings. The tensors are looked for by their exact headers, in the network's order, and nothing else is
    interpreted. Raises UserError where one is missing.
    """
    data = path.read_bytes()
    shapes = jax.eval_shape(FaceResNet().init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]
    position = 0

    def take(name: str, *sizes: int) -> np.ndarray:
        nonlocal position
        header = b"\x01\x02" + b"".join(map(_packed, sizes))
        start = data.find(header, position) + len(header)
        position = start + 4 * int(np.prod(sizes))
        if start < len(header) or position > len(data):
            raise UserError(f"'{path}' is no face network of dlib's: it has no {sizes[0]} numbers for layer '{name}'")
        return np.frombuffer(data, "<f4", int(np.prod(sizes)), start)

    def convolution(name: str, tree: Any) -> dict[str, np.ndarray]:
        kernel, bias = tree["kernel"], tree["bias"]
        height, width, inputs, outputs = kernel.shape
        numbers = take(name, kernel.size + bias.size, 1, 1, 1)
        filters = numbers[: kernel.size].reshape(outputs, inputs, height, width)
        return {"kernel": filters.transpose(2, 3, 1, 0), "bias": numbers[kernel.size :]}

    def affine(name: str, tree: Any) -> dict[str, np.ndarray]:
        scale, bias = np.split(take(name, 2 * tree["scale"].size, 1, 1, 1), 2)
        return {"scale": scale, "bias": bias}

    params: dict[str, Any] = {"conv": convolution("conv", shapes["conv"]), "affine": affine("affine", shapes["affine"])}
    for i in range(len(LEVELS)):
        block = f"block{i}"
        params[block] = {
            layer: read_layer(f"{block}/{layer}", shapes[block][layer])
            for layer, read_layer in (
                ("conv0", convolution), ("affine0", affine), ("conv1", convolution), ("affine1", affine),
            )
        }  # fmt: skip
    return {**params, "fc": {"kernel": take("fc", *shapes["fc"]["kernel"].shape, 1, 1).reshape(-1, 128)}}


def _packed(size: int) -> bytes:
    """A positive whole number as dlib writes it: how many bytes, then these, the lowest first."""
    count = (size.bit_length() + 7) // 8
    return bytes([count]) + size.to_bytes(count, "little")
