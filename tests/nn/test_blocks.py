"""Norms, tiling and pooling against NumPy."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.nn import blocks


class Norm(nn.Module):
    kind: str

    @nn.compact
    def __call__(self, x, train=False):
        return blocks.norm(x, self.kind, 0.9, train, name="norm")


@pytest.mark.parametrize(("kind", "axes", "epsilon"), [
    ("layer", (1, 2, 3), 1e-6), ("instance", (1, 2), 1e-6), ("batch", (0, 1, 2), 1e-3),
])  # fmt: skip
def test_norms(kind, axes, epsilon):
    rng = np.random.default_rng(0)
    x = rng.normal(0.1, 0.05, (2, 3, 4, 5)).astype(np.float32)
    scale, bias = rng.normal(size=(2, 5)).astype(np.float32)
    variables = {"params": {"norm": {"scale": scale, "bias": bias}}}
    if kind == "batch":
        variables["batch_stats"] = {"norm": {"mean": np.full(5, 2, np.float32), "var": np.ones(5, np.float32)}}
    found, new = Norm(kind).apply(variables, x, train=True, mutable=["batch_stats"])
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    np.testing.assert_allclose(found, scale * (x - mean) / np.sqrt(variance + epsilon) + bias, rtol=1e-3, atol=1e-3)
    if kind == "batch":
        np.testing.assert_allclose(new["batch_stats"]["norm"]["mean"], 0.9 * 2 + 0.1 * mean.ravel(), rtol=1e-5)
        np.testing.assert_allclose(new["batch_stats"]["norm"]["var"], 0.9 + 0.1 * variance.ravel(), rtol=1e-5)
        plain = Norm(kind).apply(variables, x)
        np.testing.assert_allclose(plain, scale * (x - 2) / np.sqrt(1 + epsilon) + bias, rtol=1e-4)
    else:
        assert new == {}


def test_tile_and_mean_pool():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    tiled = np.asarray(blocks.tile(jnp.asarray(x), jnp.array([[1.0, 2.0], [3.0, 4.0]])))
    np.testing.assert_array_equal(tiled[..., :3], x)
    np.testing.assert_array_equal(tiled[..., 3:], np.broadcast_to([[[[1, 2]]], [[[3, 4]]]], (2, 4, 6, 2)))
    pooled = blocks.mean_pool(jnp.asarray(x), 2)
    for row, column in np.ndindex(2, 3):
        square = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_allclose(pooled[:, row, column], square.mean((1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("size", "strides"), [(3, 1), (3, 2), (2, 3)])
def test_windows(size, strides):
    x = np.random.default_rng(0).normal(size=(2, 8, 7, 3)).astype(np.float32)
    found = np.stack(blocks.windows(jnp.asarray(x), size, strides))
    views = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::strides, ::strides]
    np.testing.assert_array_equal(found.transpose(1, 2, 3, 4, 0), views.reshape(*views.shape[:4], size * size))


def test_rows_of_sets_alternate_and_come_apart_again():
    a, b, c = np.arange(24.0).reshape(3, 4, 2)
    rows = blocks.interleave(*map(jnp.asarray, (a, b, c)))
    np.testing.assert_array_equal(rows, [a[0], b[0], c[0], a[1], b[1], c[1], a[2], b[2], c[2], a[3], b[3], c[3]])
    for ours, own in zip(blocks.separate(rows, 3), (a, b, c), strict=True):
        np.testing.assert_array_equal(ours, own)
