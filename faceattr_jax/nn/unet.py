"""A U-Net of strided convolutions, with whole or filtered skip connections."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from faceattr_jax.nn.blocks import LEAK, sample_norm, xavier
from faceattr_jax.nn.conv import Conv, ConvTranspose
from faceattr_jax.nn.precision import full

KERNEL = 4


class UNet(nn.Module):
    """pix2pix's U-Net (Isola et al. 2017) without dropout: (B, S, S, C) -> (B, S, S, outputs) in [-1, 1].

    Each of `widths` halves the size: convolution, norm, leaky ReLU; transposed convolutions with norm and ReLU mirror
    them, and each but the last is joined by the activations of its size, the skip. S is a multiple of
    2**len(widths). The first and the last layer have no norm, nor has a map of one pixel, which it would set to 0.

    filters: channels to which a 1x1 convolution (no norm, no activation) reduces each skip, finest first; none leaves
    the skips whole. norm: see `sample_norm`.
    """

    widths: Sequence[int]
    filters: Sequence[int] = ()
    outputs: int = 3
    norm: str = "instance"

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x, down = images, []
        for i, width in enumerate(self.widths):
            normed = i > 0 and x.shape[1] > 2
            x = Conv(width, KERNEL, 2, use_bias=not normed, kernel_init=xavier, name=f"down{i}")(x)
            x = sample_norm(x, self.norm, name=f"down{i}_norm") if normed else x
            x = nn.leaky_relu(x, LEAK)
            down.append(x)
        for i in reversed(range(len(self.widths) - 1)):
            x = ConvTranspose(self.widths[i], KERNEL, use_bias=False, kernel_init=xavier, name=f"up{i}")(x)
            x = nn.relu(sample_norm(x, self.norm, name=f"up{i}_norm"))
            skip = Conv(self.filters[i], 1, kernel_init=xavier, name=f"skip{i}")(down[i]) if self.filters else down[i]
            x = jnp.concatenate([x, skip], axis=-1)
        return jnp.tanh(full(ConvTranspose(self.outputs, KERNEL, kernel_init=xavier, name="rgb")(x)))
