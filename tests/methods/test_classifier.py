"""The classifier: its shapes, its weighting of rare values, and its augmentation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax.methods import classifier
from faceattr_jax.methods.base import Ctx, build
from faceattr_jax.nn.blocks import max_pool
from faceattr_jax.training.state import init_state
from tests import checks
from tests.checks import quick

CTX = Ctx(jnp.int32(0), jnp.int32(0), jnp.int32(0), jax.random.key(1))
TINY = {
    "model.widths": "(2, 4)", "model.fc": "8", "attributes": "Bald,Bangs", "image_size": "8", "shift": "0",
    "model.dropout": "0.0",
}  # fmt: skip


def test_shapes_of_the_forty_way_network():
    method = build(configs.load("classifier_128"))
    params = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]["classifier"]
    widths = [params[f"conv{i}_{j}"]["kernel"].shape for i in range(5) for j in range(2)]
    assert [shape[-1] for shape in widths] == [16, 16, 32, 32, 64, 64, 128, 128, 256, 256]
    assert params["fc"]["kernel"].shape == (4 * 4 * 256, 512)
    assert params["logits"]["kernel"].shape == (512, 40)


@pytest.mark.parametrize(("balance", "smoothing"), [(0.0, 0.0), (0.5, 0.0), (1.0, 0.2)])
def test_objective_by_hand(balance, smoothing):
    changes = {"loss.balance": str(balance), "loss.label_smoothing": str(smoothing), "loss.l2": "0.1"}
    method = build(configs.load("classifier_128", {**TINY, **changes}))
    variables = checks.fresh(method).variables
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    labels = jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    out = quick(method.objective)(variables, {"images": images, "labels": labels}, {}, CTX)
    own = {name: variables[name]["classifier"] for name in ("params", "batch_stats")}
    train = functools.partial(method.networks["classifier"].apply, train=True, mutable=["batch_stats"])
    logits, _ = quick(train)(own, images)

    rate = (np.asarray(labels).sum(0) + 1) / 6
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    target = np.where(labels > 0.5, 1 - smoothing / 2, smoothing / 2)
    entropies = -target * np.log(p) - (1 - target) * np.log(1 - p)
    weights = np.where(labels > 0.5, rate**-balance, (1 - rate) ** -balance)
    weights /= rate ** (1 - balance) + (1 - rate) ** (1 - balance)
    entropy = np.mean(weights * entropies)
    kernels = [np.asarray(leaf) for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim > 1]
    l2 = sum(np.sum(kernel.astype(np.float64) ** 2) for kernel in kernels) / 2
    np.testing.assert_allclose(out.metrics["entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(out.losses["classifier"], entropy + 0.1 * l2, rtol=1e-5)
    np.testing.assert_array_equal(out.mutated["memory/counts"]["present"], [1, 2])
    assert float(out.mutated["memory/counts"]["seen"]) == 4
    if balance == 0:
        np.testing.assert_allclose(entropy, entropies.mean(), rtol=1e-6)


def test_the_phase_changes_the_classifier_its_averages_and_the_counts():
    method = build(configs.load("classifier_128", TINY))
    executor = checks.executor(method)
    before = jax.device_get(checks.fresh(method))
    rng = np.random.default_rng(0)
    data = {"images": rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), "labels": np.eye(4, 2, dtype=np.float32)}
    after, carry, _ = executor.run_phase(executor.stage.phases[0], checks.fresh(method), [data], {}, 0)
    assert checks.changed(before, jax.device_get(after)) == {
        "params/classifier", "batch_stats/classifier", "memory/counts", "optimizer/classifier",
    }  # fmt: skip
    assert carry == {}


def test_shifted_moves_each_image_by_whole_pixels():
    images = jax.random.normal(jax.random.key(0), (16, 6, 6, 1))
    moved = np.asarray(classifier.shifted(jax.random.key(1), images, 2))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    seen = set()
    for image, own in zip(moved, padded, strict=True):
        at = [(y, x) for y in range(5) for x in range(5) if np.array_equal(own[y : y + 6, x : x + 6], image)]
        assert at
        seen.add(at[0])
    assert len(seen) > 4
    assert classifier.shifted(jax.random.key(1), images, 0) is images


def test_features_are_what_the_last_layer_reads():
    method = build(configs.load("classifier_128", TINY))
    variables = checks.fresh(method).variables
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
    features = quick(method.features)(variables, images)
    assert features.shape == (3, 8)
    last = variables["params"]["classifier"]["logits"]
    probabilities = jax.nn.sigmoid(features @ last["kernel"] + last["bias"])
    np.testing.assert_allclose(quick(method.classify)(variables, images), probabilities, rtol=1e-6)


def test_max_pool_is_flaxs():
    import flax.linen as nn

    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    np.testing.assert_array_equal(max_pool(x), nn.max_pool(x, (2, 2), (2, 2)))
    ours, flaxs = (
        jax.grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x))))(x)
        for pool in (max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2)))
    )
    np.testing.assert_allclose(ours, flaxs, rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((1, 2, 2, 1))).ravel(), 0.25)
