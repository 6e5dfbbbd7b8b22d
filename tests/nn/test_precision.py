"""bfloat16 is what layers compute in, and nothing else."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import losses
from faceattr_jax.errors import UserError
from faceattr_jax.nn import precision
from faceattr_jax.nn.blocks import Convolutions
from faceattr_jax.nn.conv import native_convolutions
from tests.checks import one_device
from tests.training import programs


def dtypes(tree):
    return jax.tree.map(lambda leaf: leaf.dtype, tree)


@pytest.mark.parametrize("paper", programs.PAPERS)
def test_what_is_kept_and_every_loss_stay_float32(paper):
    method = programs.method(paper, dtype="bfloat16")
    for stage in method.stages:
        with native_convolutions():
            for phase, update, arguments in programs.updates(method, stage, one_device()):
                lowered = update.lower(*arguments)
                state, carry, metrics = lowered.out_info
                assert dtypes(state) == dtypes(arguments[0])
                assert {leaf.dtype for leaf in jax.tree.leaves((carry, metrics))} <= {jnp.dtype("float32")}
                convolutions = re.findall(r"stablehlo\.convolution.* : \((.*)", lowered.as_text())
                assert convolutions or not phase.trains
                assert all("bf16" in types and "f32" not in types for types in convolutions)


def test_parameters_are_float32_and_a_layer_gives_what_it_computes():
    network = Convolutions(((4, 3, 2), (8, 3, 2)), "layer")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    variables = network.init(jax.random.key(0), x)
    exact = network.apply(variables, x)
    with precision.computing("bfloat16"):
        assert dtypes(network.init(jax.random.key(0), x)) == dtypes(variables)
        rounded = network.apply(variables, x)
    assert exact.dtype == jnp.float32
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(rounded, np.float32), exact, atol=0.05)
    assert np.abs(np.asarray(rounded, np.float32) - exact).max() > 1e-4


def test_the_penalty_of_a_linear_critic_is_float32():
    """Its gradient is the kernel, which bfloat16 rounds by up to 2^-9; square, sum and root are exact after that."""
    kernel = np.random.default_rng(0).normal(size=(12, 1)).astype(np.float32)
    layer = precision.Dense(1, use_bias=False)
    real, fake = jnp.ones((4, 12)), jnp.zeros((4, 12))
    with precision.computing("bfloat16"):
        penalty = losses.gradient_penalty(
            lambda x: layer.apply({"params": {"kernel": kernel}}, x), real, fake, jax.random.key(0)
        )
    rounded = np.asarray(jnp.asarray(kernel, jnp.bfloat16), np.float64)
    assert penalty.dtype == jnp.float32
    np.testing.assert_allclose(penalty, (np.sqrt((rounded**2).sum()) - 1) ** 2, rtol=1e-5)


def test_another_dtype_is_refused():
    with pytest.raises(UserError, match=r"dtype is 'bfloat61' \(did you mean 'bfloat16'\?\); it can be float32 or"):
        precision.computing("bfloat61")
