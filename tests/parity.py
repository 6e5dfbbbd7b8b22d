"""How the tests of ported networks compare them with an oracle's."""

import jax
import numpy as np


def outputs(network, variables, images):
    """What every layer and block of a network returns, by its name, what it sows, and its own outputs: "__call__"."""
    run = jax.jit(lambda v, x: network.apply(v, x, capture_intermediates=True, mutable="intermediates")[1])
    found = run(variables, images)["intermediates"]
    return {name: (held if isinstance(held, tuple) else held["__call__"])[0] for name, held in found.items()}


def levels(size: int, count: int = 2) -> np.ndarray:
    """Random images (count, size, size, 3) of 0 to 255."""
    return np.random.default_rng(1).uniform(0, 255, (count, size, size, 3)).astype(np.float32)


def compare(ours, theirs, *, relu: bool):
    """Every block of `theirs`, NCHW tensors, to 1e-4 of its own size; with `relu`, after one."""
    for name, tensor in theirs.items():
        expected = tensor.numpy()
        expected = expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected
        found = np.maximum(ours[name], 0) if relu else np.asarray(ours[name])
        assert found.shape == expected.shape
        scale = np.abs(expected).max()
        assert 1e-3 < scale < 1e4, name
        np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4, err_msg=name)
