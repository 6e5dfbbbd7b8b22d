"""Picture similarity and classification counts: pure `jnp`, one value per image or per attribute.

Images are (B, H, W, C), float in [-1, 1] or uint8. Floats are rounded to 8 bits first, as saving a PNG would,
so that what is measured is what is seen; differences are in 8-bit levels (0 to 255).
Predictions and labels are (N, A), boolean or 0/1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.data.images import to_uint8

PENALTIES = tuple(10.0**k for k in range(-6, 4))

_SIGMA, _RADIUS = 1.5, 5
_GAUSSIAN = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
_GAUSSIAN /= _GAUSSIAN.sum()


def levels(images: jax.Array) -> jax.Array:
    """8-bit levels 0 to 255 as float32."""
    whole = images if images.dtype == jnp.uint8 else to_uint8(images)
    return whole.astype(jnp.float32)


def l1(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean absolute difference in 8-bit levels, (B,)."""
    _check(a, b)
    return jnp.mean(jnp.abs(levels(a) - levels(b)), axis=(1, 2, 3))


def psnr(a: jax.Array, b: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB over all pixels and channels, (B,); infinite for equal images."""
    _check(a, b)
    mse = jnp.mean(jnp.square(levels(a) - levels(b)), axis=(1, 2, 3))
    return 20.0 * jnp.log10(255.0) - 10.0 * jnp.log10(mse)


def ssim(a: jax.Array, b: jax.Array) -> jax.Array:
    """Structural similarity (Wang et al. 2004), mean over positions and channels, (B,).

    11x11 Gaussian window, sigma 1.5, K1 = .01, K2 = .03, windows wholly inside the image. Raises ValueError
    for images below 11x11.
    """
    _check(a, b)
    if min(a.shape[1:3]) < 2 * _RADIUS + 1:
        raise ValueError(f"SSIM needs images of at least 11x11, these are {a.shape[1]}x{a.shape[2]}")
    x, y = levels(a), levels(b)
    # Variances do not feel a shift, and float32 squares of centred levels lose far fewer bits.
    shift_x, shift_y = (jnp.mean(v, axis=(1, 2), keepdims=True) for v in (x, y))
    x, y = x - shift_x, y - shift_y
    mean_x, mean_y, xx, yy, xy = (_blur(v) for v in (x, y, x * x, y * y, x * y))
    variances = xx - mean_x**2 + yy - mean_y**2
    covariance = xy - mean_x * mean_y
    mean_x, mean_y = mean_x + shift_x, mean_y + shift_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def luma(images: jax.Array) -> jax.Array:
    """Brightness (B, H, W, 1) in [-1, 1], the Y of JPEG: .299 R + .587 G + .114 B."""
    weights = jnp.array([0.299, 0.587, 0.114], jnp.float32)
    return jnp.sum(levels(images) * weights, axis=-1, keepdims=True) / 127.5 - 1.0


def gradient_energy(images: jax.Array) -> jax.Array:
    """Mean of the squared differences between neighbouring pixels, across plus down, in 8-bit levels, (B,).

    How sharp images are; a blurred one has less than the picture that it was made of.
    """
    x = levels(images)
    down, right = (jnp.mean(jnp.diff(x, axis=axis) ** 2, axis=(1, 2, 3)) for axis in (1, 2))
    return down + right


def _blur(x: jax.Array) -> jax.Array:
    """Separable valid Gaussian as shifted sums: float32 on every backend, which convolutions are not."""
    for axis in (1, 2):
        size = x.shape[axis] - 2 * _RADIUS
        terms = (float(w) * jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i, w in enumerate(_GAUSSIAN))
        x = sum(terms, start=jnp.zeros((), x.dtype))
    return x


def _check(a: jax.Array, b: jax.Array) -> None:
    if a.ndim != 4 or a.shape != b.shape:
        raise ValueError(f"expected two equal (B, H, W, C) shapes, got {a.shape} and {b.shape}")


def spearman(x: np.ndarray, y: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Spearman's rank correlation of (N,) and (N,), and its 95 % interval; None where it is not defined.

    Equal values share the mean of their ranks. The interval is Fisher's, on the scale of artanh, with Bonett and
    Wright's standard error sqrt((1 + rho^2 / 2) / (N - 3)).
    """
    ranks = []
    for values in (x, y):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    a, b = (rank - rank.mean() for rank in ranks)
    spread = np.sqrt(np.sum(a**2) * np.sum(b**2))
    if not spread:
        return None, None, None
    rho = float(np.clip(np.sum(a * b) / spread, -1, 1))
    if len(x) <= 3 or abs(rho) == 1:
        return rho, None, None
    error = 1.959964 * np.sqrt((1 + rho**2 / 2) / (len(x) - 3))
    low, high = np.tanh(np.arctanh(rho) + np.array([-error, error]))
    return rho, float(low), float(high)


def kolmogorov_smirnov(values: np.ndarray) -> float:
    """Largest distance between the distribution function of `values` (N,) and that of U(0, 1)."""
    u, n = np.sort(np.clip(values.astype(np.float64), 0, 1)), len(values)
    steps = np.arange(n + 1) / n
    return float(np.max(np.maximum(steps[1:] - u, u - steps[:-1])))


def held_out_r2(x: np.ndarray, y: np.ndarray, penalties: Sequence[float] = PENALTIES) -> float:
    """R^2 of y (N, K) by ridge regression from x (N, D), fitted on the first half, on the second; mean over K.

    penalties: in mean squared singular values of the centred x; that with the least leave-one-out error on the first
    half is taken.
    """
    x, y, half = x.astype(np.float64), y.astype(np.float64), len(x) // 2
    centre, level = x[:half].mean(axis=0), y[:half].mean(axis=0)
    u, s, vt = np.linalg.svd(x[:half] - centre, full_matrices=False)
    target = y[:half] - level
    projected = (u.T @ target).T  # (K, rank)

    def left_out(penalty: float) -> float:
        shrunk = s**2 / (s**2 + penalty)
        leverage = 1 / half + u**2 @ shrunk
        return float(np.sum(((target - u @ (shrunk * projected).T) / (1 - leverage)[:, None]) ** 2))

    unit = np.mean(s**2) or 1.0  # inputs that are all equal explain nothing, whatever the penalty
    penalty = min((unit * p for p in penalties), key=left_out)
    predicted = level + (x[half:] - centre) @ vt.T @ (s / (s**2 + penalty) * projected).T
    total = np.sum((y[half:] - y[half:].mean(axis=0)) ** 2, axis=0)
    return float(np.mean(1 - np.sum((y[half:] - predicted) ** 2, axis=0) / total))


class Confusion(NamedTuple):
    """Counts per attribute, each (A,): true and false positives, true and false negatives."""

    tp: jax.Array
    fp: jax.Array
    tn: jax.Array
    fn: jax.Array


def confusion(predictions: jax.Array, labels: jax.Array, valid: jax.Array | None = None) -> Confusion:
    """Counts of (N, A) predictions against labels; `valid` (N,) leaves padding out.

    Counts of several batches add up: `jax.tree.map(jnp.add, first, second)`.
    """
    if predictions.ndim != 2 or predictions.shape != labels.shape:
        raise ValueError(f"expected two equal (N, A) shapes, got {predictions.shape} and {labels.shape}")
    p, t = predictions.astype(bool), labels.astype(bool)
    v = jnp.ones(p.shape[:1], bool) if valid is None else valid.astype(bool)

    def count(hits: jax.Array) -> jax.Array:
        return jnp.sum(hits & v[:, None], axis=0, dtype=jnp.int32)

    return Confusion(tp=count(p & t), fp=count(p & ~t), tn=count(~p & ~t), fn=count(~p & t))


def accuracy(counts: Confusion) -> jax.Array:
    """Share of right predictions per attribute, (A,); NaN where nothing was counted."""
    return _share(counts.tp + counts.tn, counts.fp + counts.fn)


def balanced_accuracy(counts: Confusion) -> jax.Array:
    """Mean of the true-positive and true-negative rates per attribute, (A,); NaN where a class is absent."""
    return (_share(counts.tp, counts.fn) + _share(counts.tn, counts.fp)) / 2


def majority(counts: Confusion) -> jax.Array:
    """Accuracy of always answering the commoner class, (A,): what a judge has to beat."""
    positive, negative = counts.tp + counts.fn, counts.tn + counts.fp
    return _share(jnp.maximum(positive, negative), jnp.minimum(positive, negative))


def attribute_error(predictions: jax.Array, wanted: jax.Array) -> jax.Array:
    """Squared errors (N, A) of a predictor that answers -1 or 1 (MOON) about attributes `wanted`, 0 or 1, (N, A).

    Its mean over pictures is SL-GAN's attribute error: 0 at best, 1 for an answer of 0, 4 for the opposite one.
    Answers are taken as they are, also beyond -1 and 1.
    """
    if predictions.ndim != 2 or predictions.shape != wanted.shape:
        raise ValueError(f"expected two equal (N, A) shapes, got {predictions.shape} and {wanted.shape}")
    return jnp.square(predictions - (2 * wanted.astype(predictions.dtype) - 1))


def _share(part: jax.Array, rest: jax.Array) -> jax.Array:
    return jnp.divide(part, part + rest)  # of NumPy counts too, whose own division warns of 0 / 0
