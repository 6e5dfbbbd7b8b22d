"""Losses: pure functions, arrays in, a scalar out; means over all elements unless said otherwise.

Layers that compute in bfloat16 are compared in float32, in which every loss is.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from faceattr_jax.nn.precision import full


def l1(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean absolute error (AttGAN eq. 10; the papers' weights belong to the mean, not to the norm)."""
    return jnp.mean(jnp.abs(full(prediction) - full(target)))


def l2(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error (the released code's reading of ELEGANT eq. 10)."""
    return jnp.mean((full(prediction) - full(target)) ** 2)


def squared_distance(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """|prediction - target|^2, a sum over each sample's elements, a mean over samples (DIAT eqs. 11, 12, 17, 19)."""
    return jnp.mean(jnp.sum((full(prediction) - full(target)) ** 2, axis=tuple(range(1, prediction.ndim))))


def sigmoid_cross_entropy(logits: jax.Array, labels: jax.Array, *, weights: jax.Array | float = 1.0) -> jax.Array:
    """Mean binary cross entropy of logits against 0/1 labels of the same shape (AttGAN eqs. 7 and 9)."""
    return jnp.mean(weights * optax.sigmoid_binary_cross_entropy(logits, labels))


def signed_regression(outputs: jax.Array, labels: jax.Array, *, weights: jax.Array | float = 1.0) -> jax.Array:
    """Mean squared distance of outputs to -1 and 1, for 0/1 labels of the same shape (MOON: Rudd et al. 2016)."""
    return jnp.mean(weights * (outputs - (2.0 * labels - 1.0)) ** 2)


def domain_weights(labels: jax.Array, source: jax.Array, target: jax.Array | float) -> jax.Array:
    """Weights (B, n) under which attributes of rates `source` (n,) count as if their rates were `target` (MOON).

    labels: 0/1 (B, n). Of an attribute's two values the one that the data have too little of weighs 1; the other, of
    rate s where t is wanted, (1 - s) t / (s (1 - t)).
    """
    s = jnp.where(labels > 0.5, source, 1.0 - source)
    t = jnp.where(labels > 0.5, target, 1.0 - target)
    return jnp.minimum(1.0, (1.0 - s) * t / (s * (1.0 - t)))


def margin_softmax(cosines: jax.Array, classes: jax.Array, *, scale: float = 1.0, margin: float = 0.0) -> jax.Array:
    """Mean cross entropy of a softmax over `scale` times cosines (B, K), that of the right class less `margin`.

    CosFace (Wang et al. 2018, eq. 4). classes: (B,) whole numbers.
    """
    right = jax.nn.one_hot(classes, cosines.shape[-1], dtype=cosines.dtype)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scale * (cosines - margin * right), classes))


def wasserstein_critic(real: jax.Array, fake: jax.Array) -> jax.Array:
    """-E D(real) + E D(fake) (AttGAN eq. 11)."""
    return jnp.mean(fake) - jnp.mean(real)


def wasserstein_generator(fake: jax.Array) -> jax.Array:
    """-E D(fake) (AttGAN eq. 12)."""
    return -jnp.mean(fake)


def gan_discriminator(real: jax.Array, fake: jax.Array) -> jax.Array:
    """-E log D(real) - E log(1 - D(fake)), D the sigmoid of logits (ELEGANT eqs. 7-8; attribute inverse eq. 1)."""
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))


def saturating_generator(fake: jax.Array) -> jax.Array:
    """E log(1 - D(fake)) of logits (attribute inverse eq. 1): no gradient where D is sure that fakes are fake."""
    return -jnp.mean(jax.nn.softplus(fake))


def nonsaturating_generator(fake: jax.Array) -> jax.Array:
    """-E log D(fake) of logits (ELEGANT eq. 11; Goodfellow et al. 2014)."""
    return jnp.mean(jax.nn.softplus(-fake))


# What a generator minimises against `gan_discriminator`.
GAN_GENERATORS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "saturating": saturating_generator,
    "nonsaturating": nonsaturating_generator,
}


def gaussian(mean: jax.Array, value: jax.Array) -> jax.Array:
    """-log N(value; mean, I) per dimension, less its constant: mean of (value - mean)^2 / 2 (SL-GAN eq. 5)."""
    return 0.5 * l2(mean, value)


def standard_normal_kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, exp(log_variance)) || N(0, I)), summed over dimensions (B, d), mean over the batch (SL-GAN 3.3)."""
    each = 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)
    return jnp.mean(jnp.sum(each, axis=-1))


def feature_matching(features: Sequence[jax.Array], others: Sequence[jax.Array], *, per: str = "element") -> jax.Array:
    """Sum over layers of |D_i(x) - D_i(y)|_1 / N_i (attribute inverse eq. 5), mean over the batch.

    features, others: maps (B, H_i, W_i, C_i). per: N_i counts every ``"element"`` of a map, or every ``"pixel"``.
    """
    channels = [{"element": 1, "pixel": f.shape[-1]}[per] for f in features]
    return sum((c * l1(f, o) for c, f, o in zip(channels, features, others, strict=True)), start=jnp.float32(0))


def perceptual(features: Sequence[jax.Array], others: Sequence[jax.Array], weights: Sequence[float]) -> jax.Array:
    """Sum over layers of w_l / (2 C H W) |f_l(x) - f_l(y)|^2 (DIAT eqs. 9-10), mean over the batch.

    features, others: maps (B, H_l, W_l, C_l) or vectors (B, C_l).
    """
    terms = (0.5 * w * l2(f, o) for w, f, o in zip(weights, features, others, strict=True))
    return sum(terms, start=jnp.float32(0))


def excess(values: jax.Array, threshold: float) -> jax.Array:
    """max(0, value - threshold), mean over the batch (DIAT eq. 13). values: (B,)."""
    return jnp.mean(jnp.maximum(values - threshold, 0.0))


def region_share(region: jax.Array, share: float, *, per: str = "sum") -> jax.Array:
    """(sum of the region - share * N)^2 of regions (B, H, W, 1) of N pixels (DIAT eq. 14), mean over the batch.

    per: ``"sum"`` as the equation has it, ``"mean"`` divided by N^2.
    """
    pixels = region.shape[1] * region.shape[2]
    off = jnp.sum(region, axis=(1, 2, 3)) - share * pixels
    return jnp.mean((off / {"sum": 1, "mean": pixels}[per]) ** 2)


def total_variation(images: jax.Array) -> jax.Array:
    """Sum of squared differences between neighbouring pixels, (B,) of (B, H, W, C) (Mahendran and Vedaldi 2015)."""
    down, right = (jnp.sum(jnp.diff(images, axis=axis) ** 2, axis=(1, 2, 3)) for axis in (1, 2))
    return down + right


def gradient_penalty(
    critic: Callable[[jax.Array], jax.Array], real: jax.Array, fake: jax.Array, key: jax.Array
) -> jax.Array:
    """E (|grad_x D(x)|_2 - 1)^2 at x = real + alpha (fake - real), alpha ~ U(0, 1) per sample (WGAN-GP).

    critic: (B, H, W, C) or (B, d) -> (B,) or (B, 1), each output a function of its own sample alone (no batch norm).
    The norm runs over all axes of a sample; 1e-12 under the root keeps its own gradient finite at 0.
    """
    alpha = jax.random.uniform(key, (real.shape[0],) + (1,) * (real.ndim - 1), real.dtype)
    mixed = real + alpha * (fake - real)
    gradient = jax.grad(lambda x: jnp.sum(critic(x)))(mixed)
    squared = jnp.sum(gradient**2, axis=tuple(range(1, gradient.ndim)))
    return jnp.mean((jnp.sqrt(squared + 1e-12) - 1.0) ** 2)
