"""The classifier: its shapes, its weighting of rare values, and its augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from faceattr_jax import config as configs
from faceattr_jax.methods import classifier
from faceattr_jax.methods.base import Ctx, build
from faceattr_jax.nn.blocks import max_pool
from faceattr_jax.training.state import init_state

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


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_objective_by_hand(balance):
    method = build(configs.load("classifier_128", {**TINY, "loss.balance": str(balance), "loss.l2": "0.1"}))
    variables = init_state(method, 0).variables
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    labels = jnp.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    out = method.objective(variables, {"images": images, "labels": labels}, {}, CTX)
    own = {name: variables[name]["classifier"] for name in ("params", "batch_stats")}
    logits, _ = method.networks["classifier"].apply(own, images, train=True, mutable=["batch_stats"])

    rate = (np.asarray(labels).sum(0) + 1) / 6
    entropies = np.asarray(optax.sigmoid_binary_cross_entropy(logits, labels))
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
    if balance == 1:  # both values weigh the same in total
        np.testing.assert_allclose(rate * rate**-1.0, (1 - rate) * (1 - rate) ** -1.0)


def test_label_smoothing_lowers_the_target():
    method = build(configs.load("classifier_128", {**TINY, "loss.label_smoothing": "0.2", "loss.l2": "0.0"}))
    variables = init_state(method, 0).variables
    batch = {"images": jnp.zeros((4, 8, 8, 3)), "labels": jnp.ones((4, 2))}
    # Zero images give zero logits at initialisation: cross entropy is log 2 whatever the target.
    np.testing.assert_allclose(method.objective(variables, batch, {}, CTX).metrics["entropy"], np.log(2), rtol=1e-4)


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
    variables = init_state(method, 0).variables
    images = jax.random.normal(jax.random.key(0), (3, 8, 8, 3))
    features = method.features(variables, images)
    assert features.shape == (3, 8)
    last = variables["params"]["classifier"]["logits"]
    probabilities = jax.nn.sigmoid(features @ last["kernel"] + last["bias"])
    np.testing.assert_allclose(method.classify(variables, images), probabilities, rtol=1e-6)


def test_max_pool_is_flaxs():
    import flax.linen as nn

    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
    np.testing.assert_array_equal(max_pool(x), nn.max_pool(x, (2, 2), (2, 2)))
