"""Pixels moved, repeated, smoothed and decided upon. NHWC."""

import jax
import jax.numpy as jnp
import numpy as np


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
    """(B, H, W, factor^2 C) -> (B, factor H, factor W, C): channels (i * factor + j) * C + c go to row i, column j."""
    batch, height, width, depth = x.shape
    channels = depth // factor**2
    x = x.reshape(batch, height, width, factor, factor, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height * factor, width * factor, channels)


def replicate(x: jax.Array, factor: int) -> jax.Array:
    """Every pixel as a square of factor x factor equal ones: (B, H, W, C) -> (B, factor H, factor W, C)."""
    return jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)


def gaussian_blur(x: jax.Array, size: int, deviation: float) -> jax.Array:
    """x (B, H, W, C) under a Gaussian of size x size pixels that sums to 1, the pixels at the border repeated.

    As shifted sums, so that 0 stays exactly 0.
    """
    radius = size // 2
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        length = x.shape[axis]
        # Not `jnp.pad`, of whose mode "edge" jax2onnx 0.17 makes something else.
        first, last = (jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, length - 1))
        padded = jnp.concatenate([*[first] * radius, x, *[last] * radius], axis)
        shifts = (jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(size))
        x = sum((float(w) * shift for w, shift in zip(weights, shifts, strict=True)), start=jnp.zeros_like(x))
    return x


@jax.custom_vjp
def binarize(x: jax.Array) -> jax.Array:
    """1 where x > 1/2, else 0. Backwards the identity for x in [0, 1], and 0 elsewhere.

    The straight-through estimator (Bengio et al. 2013; DIAT eqs. 2-4): the true derivative would let nothing before
    it learn.
    """
    return (x > 0.5).astype(x.dtype)


binarize.defvjp(
    lambda x: (binarize(x), (x >= 0) & (x <= 1)),
    lambda inside, gradient: (jnp.where(inside, gradient, jnp.zeros_like(gradient)),),
)
