"""Pixel operations against loops, SciPy and derivatives written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.test_util import check_grads

from faceattr_jax.nn.pixels import binarize, depth_to_space, gaussian_blur, replicate

pytestmark = pytest.mark.usefixtures("strict_promotion")


def test_depth_to_space_puts_channels_where_they_belong():
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 12)).astype(np.float32)
    expected = np.zeros((2, 6, 4, 3), np.float32)
    for row in range(6):
        for column in range(4):
            first = (2 * (row % 2) + column % 2) * 3
            expected[:, row, column] = x[:, row // 2, column // 2, first : first + 3]
    np.testing.assert_array_equal(depth_to_space(jnp.asarray(x), 2), expected)


def test_replicate_makes_squares():
    x = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(replicate(jnp.asarray(x), 4), np.kron(x, np.ones((1, 4, 4, 1))))


def test_the_gaussian_is_scipys_with_edges_repeated():
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype(np.float32)
    expected = scipy.ndimage.gaussian_filter(x, (0, 1.6, 1.6, 0), mode="nearest", radius=(0, 2, 2, 0))
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(x), 5, 1.6), expected, atol=1e-6)
    square = np.zeros((1, 16, 16, 1), np.float32)
    square[:, 6:10, 6:10] = 1
    blurred = np.asarray(gaussian_blur(jnp.asarray(square), 5, 1.6))
    np.testing.assert_array_equal(blurred[0, :, :, 0] != 0, np.pad(np.ones((8, 8), bool), 4))
    np.testing.assert_allclose(gaussian_blur(jnp.ones((1, 8, 8, 1)), 5, 1.6), 1, rtol=1e-6)


def test_binarize_is_hard_forwards_and_straight_through_backwards():
    e = jnp.array([-0.5, 0.0, 0.3, 0.5, 0.50001, 1.0, 1.2])
    value, pullback = jax.vjp(binarize, e)
    np.testing.assert_array_equal(value, [0, 0, 0, 0, 1, 1, 1])
    given = jnp.arange(1.0, 8.0)
    np.testing.assert_array_equal(pullback(given)[0], [0, 2, 3, 4, 5, 6, 0])
    # Behind a sigmoid, whose outputs are all inside, it is the sigmoid's derivative that is left.
    logits = jnp.array([-2.0, 0.0, 3.0])
    found = jax.jit(jax.grad(lambda x: jnp.sum(binarize(jax.nn.sigmoid(x)) * given[:3])))(logits)
    p = 1 / (1 + np.exp(-np.asarray(logits)))
    np.testing.assert_allclose(found, given[:3] * p * (1 - p), rtol=1e-6)
    assert binarize(e.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_what_is_linear_has_its_own_gradient():
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 4))
    for function in (lambda v: depth_to_space(v, 2), lambda v: replicate(v, 2), lambda v: gaussian_blur(v, 3, 1.0)):
        check_grads(function, (x,), order=1, modes=["rev"], rtol=1e-2)
