"""Losses against hand-computed values and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads

from faceattr_jax import losses


def test_l1_is_the_mean_over_all_elements():
    assert float(losses.l1(jnp.array([[1.0, -1.0], [0.0, 2.0]]), jnp.array([[0.0, 1.0], [0.0, 0.0]]))) == 5 / 4


def test_sigmoid_cross_entropy():
    logits, labels = jnp.array([[0.0, 2.0]]), jnp.array([[1.0, 0.0]])
    expected = (np.log(2) + np.log(1 + np.exp(2))) / 2
    np.testing.assert_allclose(losses.sigmoid_cross_entropy(logits, labels), expected, rtol=1e-6)
    weighted = losses.sigmoid_cross_entropy(logits, labels, weights=jnp.array([3.0, 0.0]))
    np.testing.assert_allclose(weighted, 3 * np.log(2) / 2, rtol=1e-6)


def test_l2_is_the_mean_square():
    assert float(losses.l2(jnp.array([[1.0, -1.0], [0.0, 2.0]]), jnp.array([[0.0, 1.0], [0.0, 0.0]]))) == 9 / 4


def test_signed_regression():
    outputs, labels = jnp.array([[0.5, -2.0]]), jnp.array([[1.0, 1.0]])
    assert float(losses.signed_regression(outputs, labels)) == (0.25 + 9) / 2
    assert float(losses.signed_regression(outputs, labels, weights=jnp.array([[2.0, 1.0]]))) == (0.5 + 9) / 2
    assert float(losses.signed_regression(-outputs, 1 - labels)) == (0.25 + 9) / 2


def test_domain_weights():
    labels, source = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), jnp.array([0.2, 0.8, 0.5])
    # Of the commoner value one in four counts; where both are as common as wanted all do.
    np.testing.assert_allclose(losses.domain_weights(labels, source, 0.5), [[1, 0.25, 1], [0.25, 1, 1]], rtol=1e-6)
    # One face in five has the attribute and one in ten is wanted: (0.8 * 0.1) / (0.2 * 0.9) of those that have it.
    weights = losses.domain_weights(jnp.array([[1.0], [0.0]]), jnp.array([0.2]), 0.1)
    np.testing.assert_allclose(weights, [[4 / 9], [1]], rtol=1e-6)


@pytest.mark.parametrize("target", [0.5, 0.1, 0.9])
def test_weighted_faces_have_the_target_rates(target):
    labels = np.zeros((50, 3), np.float32)
    for i, count in enumerate((3, 20, 45)):
        labels[:count, i] = 1
    weights = np.asarray(losses.domain_weights(jnp.asarray(labels), jnp.asarray(labels.mean(0)), target), np.float64)
    np.testing.assert_allclose((weights * labels).sum(0) / weights.sum(0), target, rtol=1e-5)
    assert np.allclose(weights.max(0), 1)


def test_margin_softmax():
    cosines, who = jnp.array([[0.5, -0.5, 0.0], [0.1, 0.9, 0.3]]), jnp.array([0, 1])
    exponents = np.exp([[4 * (0.5 - 0.2), -2, 0], [0.4, 4 * (0.9 - 0.2), 1.2]])
    expected = -np.log(exponents[[0, 1], [0, 1]] / exponents.sum(1)).mean()
    np.testing.assert_allclose(losses.margin_softmax(cosines, who, scale=4.0, margin=0.2), expected, rtol=1e-6)


def test_wasserstein():
    real, fake = jnp.array([1.0, 2.0]), jnp.array([0.0, 5.0])
    assert float(losses.wasserstein_critic(real, fake)) == 1.0
    assert float(losses.wasserstein_generator(fake)) == -2.5


def test_gan():
    """Logits of probabilities 1/2, 3/4 and 1/4."""
    half, likely, unlikely = 0.0, np.log(3), -np.log(3)
    discriminator = losses.gan_discriminator(jnp.array([[half], [likely]]), jnp.array([unlikely, half]))
    np.testing.assert_allclose(discriminator, -(np.log(1 / 2) + np.log(3 / 4)), rtol=1e-6)
    fake = jnp.array([likely, half])
    np.testing.assert_allclose(losses.saturating_generator(fake), (np.log(1 / 4) + np.log(1 / 2)) / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.nonsaturating_generator(fake), -(np.log(3 / 4) + np.log(1 / 2)) / 2, rtol=1e-6)


def test_gradients_under_a_sure_discriminator():
    sure = jnp.array([-30.0])
    assert float(jax.grad(losses.saturating_generator)(sure)[0]) == pytest.approx(0, abs=1e-12)
    assert float(jax.grad(losses.nonsaturating_generator)(sure)[0]) == pytest.approx(-1)
    for loss in (losses.saturating_generator, losses.nonsaturating_generator):
        assert np.isfinite([float(loss(jnp.array([x]))) for x in (-1e4, 1e4)]).all()


def test_feature_matching_by_hand():
    """Differences 1, 3, 0, 0 over two pixels of two channels, and 3, 0, 0 over one pixel of three."""
    features = [jnp.array([[[[1.0, -2.0], [5.0, 0.0]]]]), jnp.array([[[[4.0, 1.0, 1.0]]]])]
    others = [jnp.array([[[[0.0, 1.0], [5.0, 0.0]]]]), jnp.array([[[[1.0, 1.0, 1.0]]]])]
    assert float(losses.feature_matching(features, others)) == 4 / 4 + 3 / 3
    assert float(losses.feature_matching(features, others, per="pixel")) == 4 / 2 + 3 / 1
    twice = [[jnp.concatenate([f, f]) for f in maps] for maps in (features, others)]
    assert float(losses.feature_matching(*twice)) == 2


@pytest.mark.parametrize(("slope", "expected"), [(1.0, 0.0), (0.0, 1.0), (3.0, 4.0)])
def test_gradient_penalty_of_a_linear_critic(slope, expected):
    """D(x) = slope * <u, x> with |u| = 1 has gradient norm |slope| everywhere."""
    u = jax.random.normal(jax.random.key(0), (4, 4, 3))
    u = u / jnp.linalg.norm(u)
    real, fake = jax.random.normal(jax.random.key(1), (2, 5, 4, 4, 3))
    penalty = losses.gradient_penalty(lambda x: slope * jnp.sum(u * x, (1, 2, 3)), real, fake, jax.random.key(2))
    np.testing.assert_allclose(penalty, expected, rtol=1e-5, atol=1e-6)


def test_gradient_penalty_mixes_each_sample_with_its_own_alpha():
    """D(x) = |x|^2 / 2 has gradient x, so the penalty tells the mixtures apart: a NumPy loop is the oracle."""
    real = jnp.stack([jnp.full((2, 2, 1), 1.0), jnp.full((2, 2, 1), 2.0), jnp.full((2, 2, 1), 3.0)])
    fake = -real
    key = jax.random.key(7)
    alpha = np.asarray(jax.random.uniform(key, (3, 1, 1, 1)))
    assert len(np.unique(alpha)) == 3
    terms = []
    for a, r, f in zip(alpha.ravel(), np.asarray(real), np.asarray(fake), strict=True):
        terms.append((np.sqrt(np.sum((r + a * (f - r)) ** 2)) - 1) ** 2)
    penalty = losses.gradient_penalty(lambda x: jnp.sum(x**2, (1, 2, 3)) / 2, real, fake, key)
    np.testing.assert_allclose(penalty, np.mean(terms), rtol=1e-5)


def test_gradient_penalty_is_differentiable_even_where_the_gradient_is_zero():
    real, fake = jax.random.normal(jax.random.key(1), (2, 3, 2, 2, 1))

    def penalty(slope):
        return losses.gradient_penalty(lambda x: slope * jnp.sum(jnp.sin(x), (1, 2, 3)), real, fake, jax.random.key(0))

    check_grads(penalty, (1.3,), order=1, modes=["rev"], rtol=1e-2)
    assert np.isfinite(jax.grad(penalty)(0.0))


def test_gaussian_is_the_log_density_less_its_constant():
    mean, value = np.array([[0.0, 1.0], [2.0, -1.0]]), np.array([[1.0, 1.0], [0.0, 0.5]])
    density = scipy.stats.norm(mean, 1).logpdf(value) + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(losses.gaussian(jnp.asarray(mean), jnp.asarray(value)), -density.mean(), rtol=1e-6)


def test_kl_to_the_prior_against_the_integral():
    mean, log_variance = np.array([[0.5, -1.0]]), np.array([[0.0, np.log(0.25)]])
    x = np.linspace(-12, 12, 20_001)
    total = 0.0
    for m, v in zip(mean[0], np.exp(log_variance[0]), strict=True):
        q = scipy.stats.norm(m, np.sqrt(v))
        total += np.trapezoid(q.pdf(x) * (q.logpdf(x) - scipy.stats.norm.logpdf(x)), x)
    both = [jnp.asarray(np.repeat(a, 3, axis=0)) for a in (mean, log_variance)]  # a mean over faces, not a sum
    np.testing.assert_allclose(losses.standard_normal_kl(*both), total, rtol=1e-5)
    assert float(losses.standard_normal_kl(jnp.zeros((2, 3)), jnp.zeros((2, 3)))) == 0


def test_squared_distance_sums_over_a_sample_and_averages_over_samples():
    a = jnp.array([[[1.0, 2.0]], [[0.0, 0.0]]])
    np.testing.assert_allclose(losses.squared_distance(a, jnp.zeros((2, 1, 2))), (5 + 0) / 2)


def test_perceptual_is_half_the_weighed_mean_square_of_every_layer():
    rng = np.random.default_rng(0)
    ours, theirs = ([rng.normal(size=s) for s in ((3, 4, 2, 5), (3, 7))] for _ in range(2))
    expected = sum(
        w / (2 * a[0].size) * np.mean([np.sum((x - y) ** 2) for x, y in zip(a, b, strict=True)])
        for w, a, b in zip((2.0, 3.0), ours, theirs, strict=True)
    )
    found = losses.perceptual([jnp.asarray(x) for x in ours], [jnp.asarray(x) for x in theirs], (2.0, 3.0))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_excess_counts_what_is_above_the_threshold():
    values = jnp.array([1.0, 15.0, 20.0, 30.0])
    np.testing.assert_allclose(losses.excess(values, 16.0), (4 + 14) / 4)
    np.testing.assert_allclose(jax.grad(losses.excess)(values, 16.0), [0, 0, 0.25, 0.25])


def test_region_share():
    region = jnp.stack([jnp.zeros((4, 8, 1)), jnp.ones((4, 8, 1))])  # 32 pixels; a quarter is 8
    np.testing.assert_allclose(losses.region_share(region, 0.25), (8**2 + 24**2) / 2)
    np.testing.assert_allclose(losses.region_share(region, 0.25, per="mean"), (0.25**2 + 0.75**2) / 2)


def test_total_variation():
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
    expected = [
        sum((x[i + 1, j] - x[i, j]) @ (x[i + 1, j] - x[i, j]) for i in range(2) for j in range(4))
        + sum((x[i, j + 1] - x[i, j]) @ (x[i, j + 1] - x[i, j]) for i in range(3) for j in range(3))
        for x in image
    ]
    np.testing.assert_allclose(losses.total_variation(jnp.asarray(image)), expected, rtol=1e-5)
