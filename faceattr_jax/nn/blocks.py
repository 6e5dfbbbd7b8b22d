"""Building blocks that several papers share. NHWC."""

import itertools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from faceattr_jax.nn.conv import Conv
from faceattr_jax.nn.precision import Dense, full

LEAK = 0.2  # tf.nn.leaky_relu's slope, which the papers' code uses
xavier = nn.initializers.xavier_uniform()


def batch_norm(
    momentum: float, train: bool, *, epsilon: float | None = None, name: str
) -> Callable[[jax.Array], jax.Array]:
    """Batch norm, by default with TF slim's epsilon. Over a sharded batch the statistics are the global batch's."""
    layer = nn.BatchNorm(use_running_average=not train, momentum=momentum, epsilon=epsilon or 1e-3, name=name)
    return lambda x: layer(full(x)).astype(x.dtype)


def sample_norm(x: jax.Array, kind: str, *, epsilon: float | None = None, name: str) -> jax.Array:
    """Normalise each sample of x (B, ..., C) inside a compact module, with a scale and a shift per channel.

    kind: ``"layer"`` over all axes but the first, ``"instance"`` over all but the first and the last.
    """
    axes = {"layer": tuple(range(1, x.ndim)), "instance": tuple(range(1, x.ndim - 1))}[kind]
    layer = nn.LayerNorm(epsilon=epsilon or 1e-6, reduction_axes=axes, feature_axes=-1, name=name)
    return layer(full(x)).astype(x.dtype)


def instance_noise(key: jax.Array, images: jax.Array, deviation: float) -> jax.Array:
    """Images for a discriminator in training: under Gaussian noise (Sonderby et al. 2016), or themselves at 0."""
    return images + deviation * jax.random.normal(key, images.shape) if deviation else images


def interleave(*sets: jax.Array) -> jax.Array:
    """K sets of rows (B, ...) as (K B, ...), a row of each in turn.

    For a pass that they share: a device's part of the batch stays on it, which one set after the other would not.
    """
    return jnp.stack(sets, axis=1).reshape(-1, *sets[0].shape[1:])


def separate(rows: jax.Array, sets: int = 2) -> tuple[jax.Array, ...]:
    """What `interleave` was given: (K B, ...) -> K of (B, ...)."""
    split = rows.reshape(-1, sets, *rows.shape[1:])
    return tuple(split[:, i] for i in range(sets))


def norm(
    x: jax.Array, kind: str, momentum: float, train: bool, *, epsilon: float | None = None, name: str
) -> jax.Array:
    """``"batch"``: `batch_norm`; else `sample_norm` of that kind, which has no statistics to move."""
    if kind == "batch":
        return batch_norm(momentum, train, epsilon=epsilon, name=name)(x)
    return sample_norm(x, kind, epsilon=epsilon, name=name)


def tile(x: jax.Array, code: jax.Array) -> jax.Array:
    """Append a code (B, n) to the channels of x (B, H, W, C), the same at every pixel -> (B, H, W, C + n)."""
    planes = jnp.broadcast_to(code[:, None, None, :], (*x.shape[:3], code.shape[-1])).astype(x.dtype)
    return jnp.concatenate([x, planes], axis=-1)


class Convolutions(nn.Module):
    """Convolution, norm per sample, leaky ReLU for each (features, kernel, stride) of `layers`.

    norm, epsilon: see `sample_norm`.
    """

    layers: Sequence[tuple[int, int, int]]
    norm: str
    leak: float = LEAK
    epsilon: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, (width, kernel, stride) in enumerate(self.layers):
            x = Conv(width, kernel, stride, use_bias=False, kernel_init=xavier, name=f"conv{i}")(x)
            x = sample_norm(x, self.norm, epsilon=self.epsilon, name=f"norm{i}")
            x = nn.leaky_relu(x, self.leak)
        return x


class MLP(nn.Module):
    """Fully connected layers with leaky ReLU, `widths` wide, and a plain one: (B, ...), flattened -> (B, outputs)."""

    widths: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.widths):
            x = nn.leaky_relu(Dense(width, kernel_init=xavier, name=f"hidden{i}")(x), LEAK)
        return Dense(self.outputs, kernel_init=xavier, name="out")(x)


def conv_pairs(x: jax.Array, widths: Sequence[int], momentum: float, train: bool) -> jax.Array:
    """For each width two 3x3 convolutions with batch norm and ReLU, and a pooling that halves (B, H, W, C).

    Inside a compact module.
    """
    for i, width in enumerate(widths):
        for j in range(2):
            x = Conv(width, 3, use_bias=False, name=f"conv{i}_{j}")(x)
            x = nn.relu(batch_norm(momentum, train, name=f"norm{i}_{j}")(x))
        x = max_pool(x)
    return x


def shifted(key: jax.Array, images: jax.Array, pixels: int) -> jax.Array:
    """Move each image (B, S, S, 3) by up to `pixels` in both axes, edges repeated: the usual padded random crop."""
    if pixels == 0:
        return images
    size = images.shape[1]
    padded = jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)

    def cut(image: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (size, size, image.shape[-1]))

    return jax.vmap(cut)(padded, offsets)


def mean_pool(x: jax.Array, factor: int) -> jax.Array:
    """Mean over squares of factor x factor pixels (B, H, W, C) -> (B, H / factor, W / factor, C)."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))


def max_pool(x: jax.Array) -> jax.Array:
    """2x2 maximum with stride 2 (B, H, W, C) -> (B, H // 2, W // 2, C), cropping an odd last row or column.

    Maxima of two: XLA's gradient of a windowed maximum is many times slower on the CPU, and `jnp.max`'s divides by how
    many elements equal the maximum, which are none where XLA computes it twice and rounds differently.
    """
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2].reshape(batch, height // 2, 2, width // 2, 2, channels)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def windows(x: jax.Array, size: int, strides: int = 1) -> list[jax.Array]:
    """What size x size windows that slide over x (B, H, W, C) see at each of their places, row by row: (B, H', W', C).

    Sums and maxima of these slices are windowed ones, whose own gradients XLA makes many times slower on the CPU.
    """
    height, width = ((side - size) // strides * strides + 1 for side in x.shape[1:3])
    places = itertools.product(range(size), range(size))
    return [x[:, i : i + height : strides, j : j + width : strides] for i, j in places]
