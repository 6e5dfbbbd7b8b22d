"""The U-Net: what its skips carry, with whole and with filtered ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.nn.unet import UNet
from tests import checks


@pytest.mark.parametrize("filters", [(), (2, 3)])
def test_shapes_of_any_depth(filters):
    network = UNet((4, 8, 8), filters, outputs=2)
    found = checks.layer_outputs(network, jnp.zeros((1, 24, 24, 3)))
    assert [found[f"down{i}/__call__"] for i in range(3)] == [(12, 12, 4), (6, 6, 8), (3, 3, 8)]
    assert [found[f"up{i}/__call__"] for i in range(2)] == [(12, 12, 4), (6, 6, 8)]
    assert found["rgb/__call__"] == (24, 24, 2)
    # Only a map of one pixel goes without its norm.
    assert "down2_norm/__call__" in found
    deepest = checks.layer_outputs(UNet((4, 8, 8), filters), jnp.zeros((1, 8, 8, 3)))
    assert "down2_norm/__call__" not in deepest
    assert [name for name in found if name.startswith("skip")] == [f"skip{i}/__call__" for i in range(len(filters))]


@pytest.mark.parametrize("filters", [(), (2,)])
def test_every_skip_reaches_the_output(filters):
    """With the deepest path cut, the output still depends on the input, through the skip alone."""
    network = UNet((4, 8), filters)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    params = network.init(jax.random.key(1), images)["params"]
    cut = {**params, "up0": jax.tree.map(jnp.zeros_like, params["up0"])}
    assert np.std(network.apply({"params": cut}, images)[:, :, :, 0]) > 1e-3
    both = {**cut, "rgb": {**cut["rgb"], "kernel": cut["rgb"]["kernel"].at[:, :, 4:].set(0)}}  # the skip comes last
    assert np.std(network.apply({"params": both}, images)[:, :, :, 0]) == 0


def test_a_layer_by_hand():
    """One level at 2 px: the bottleneck is one pixel, the output tanh of its transposed convolution."""
    network = UNet((5,), outputs=1)
    images = jax.random.normal(jax.random.key(0), (3, 2, 2, 2))
    params = jax.tree.map(np.asarray, network.init(jax.random.key(1), images)["params"])
    # A kernel of 4 over 2 px padded by 1 on each side.
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    z = np.einsum("bhwc,hwcd->bd", padded, params["down0"]["kernel"])
    z = np.where(z > 0, z, 0.2 * z)
    # flax slides the kernel, unflipped, over that pixel with two zeros on each side: it meets tap 2, then tap 1.
    expected = np.tanh(np.einsum("bc,hwcd->bhwd", z, params["rgb"]["kernel"][2:0:-1, 2:0:-1]))
    np.testing.assert_allclose(network.apply({"params": params}, images), expected, rtol=1e-4, atol=1e-5)
