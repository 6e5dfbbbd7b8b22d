"""DIAT's attribute transfer against the paper's tables and equations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax.errors import UserError
from faceattr_jax.methods import diat
from faceattr_jax.methods.base import EditRequest, build
from faceattr_jax.nn.conv import Conv
from faceattr_jax.pretrained import vgg_face
from faceattr_jax.training.state import init_state
from tests import checks
from tests.checks import quick
from tests.methods import tiny_diat
from tests.methods.tiny_diat import (
    CTX,
    FACE,
    HALLUCINATION,
    TRANSFER,
    UNET,
    A,
    X,
    applied,
    carried,
    flat,
    float_batch,
    squared,
    state,
    tiny,
    variables,
)

face_network = tiny_diat.face_network


# Networks. (height, channels) after each layer.

DOWN = [(64, 64), (32, 128), (16, 256), (8, 512), (4, 512)]
UP = [(8, 512), (16, 256), (32, 128), (64, 64)]
SPACE = [128, 128, 64, 32, 16]  # channels that "DTOW" leaves, at 8, 16, 32, 64 and 128 px
MASK = [(64, 32), (32, 64), (32, 64), (32, 64), (32, 1)]
DISCRIMINATOR = [(64, 32), (64, 32), (32, 64), (32, 64), (16, 128), (8, 128)]
DISCRIMINATOR_KERNELS = [8, 3, 4, 3, 4, 4]


def test_every_layer_of_the_tables():
    method = build(configs.load(TRANSFER))
    images = jnp.zeros((1, 128, 128, 3))
    params = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]

    def rows(found, name, table, first=1):
        shapes = [found[f"{name.format(i)}/__call__"] for i in range(first, first + len(table))]
        assert shapes == [(s, s, c) for s, c in table]

    transform = checks.layer_outputs(method.networks["transform"], images)
    rows(transform, "conv{}", [*DOWN, *UP, (128, 3)])
    rows(transform, "norm{}", [*DOWN, *UP])
    assert "norm10/__call__" not in transform
    shapes = [params["transform"][f"conv{i}"]["kernel"].shape for i in range(1, 11)]
    assert [shape[0] for shape in shapes] == [4] * 5 + [3] * 4 + [5]
    assert [shape[2] for shape in shapes[5:]] == SPACE

    mask = checks.layer_outputs(method.networks["mask"], images)
    rows(mask, "conv{}", MASK)
    rows(mask, "norm{}", MASK)
    assert [params["mask"][f"conv{i}"]["kernel"].shape[0] for i in range(1, 6)] == [4, 4, 3, 3, 3]
    assert jax.eval_shape(diat.smooth_mask, jnp.zeros((1, 32, 32, 1))).shape == (1, 128, 128, 1)

    seen = checks.layer_outputs(method.networks["discriminator"], images)
    rows(seen, "conv{}", DISCRIMINATOR)
    kernels = [params["discriminator"][f"conv{i}"]["kernel"].shape[0] for i in range(1, 7)]
    assert kernels == DISCRIMINATOR_KERNELS
    assert (seen["fc/__call__"], seen["score/__call__"]) == ((1000,), (1,))

    rows(checks.layer_outputs(method.networks["denoiser"], images), "conv{}", [(128, 64)] * 5 + [(128, 3)])
    hallucination = build(configs.load(HALLUCINATION))
    assert set(hallucination.networks) == {"transform", "discriminator", "denoiser"}
    assert all(hallucination.networks[name] == method.networks[name] for name in hallucination.networks)
    assert build(configs.load(UNET)).networks == {"transform": method.networks["transform"]}


def test_networks_are_the_oracles(torch):
    """T, M and D in PyTorch: paddings of 1 (3 and 2), sums after the activations, the mask's replication and blur."""
    functional = torch.nn.functional

    def array(x):
        return torch.from_numpy(np.array(x))

    def conv(x, layer, stride=1, padding=1):
        bias = array(layer["bias"]) if "bias" in layer else None
        return functional.conv2d(x, array(layer["kernel"]).permute(3, 2, 0, 1), bias, stride, padding)

    def norm(x, layer, stats):
        mean, variance, weight, bias = (array(v) for v in (stats["mean"], stats["var"], layer["scale"], layer["bias"]))
        return functional.batch_norm(x, mean, variance, weight, bias, eps=1e-3)

    def to_space(x):
        # PyTorch's own shuffle counts the channel before the place.
        count, depth, height, width = x.shape
        return functional.pixel_shuffle(x.view(count, 4, depth // 4, height, width).transpose(1, 2).flatten(1, 2), 2)

    held, x = state().variables, array(X).permute(0, 3, 1, 2)
    params, stats = held["params"]["transform"], held["batch_stats"]["transform"]
    y, maps = x, []
    for i in (1, 2, 3):
        y = conv(y, params[f"conv{i}"], 2)
        y = functional.leaky_relu(norm(y, params[f"norm{i}"], stats[f"norm{i}"]), 0.2)
        maps.append(y)
    for i, skip in ((4, maps[1]), (5, maps[0])):
        y = functional.relu(norm(conv(to_space(y), params[f"conv{i}"]), params[f"norm{i}"], stats[f"norm{i}"])) + skip
    transformed = torch.tanh(conv(to_space(y), params["conv6"], padding=2))

    params, stats = held["params"]["mask"], held["batch_stats"]["mask"]
    y = x
    for i, stride in enumerate((2, 2, 1, 1, 1), 1):
        y = norm(conv(y, params[f"conv{i}"], stride), params[f"norm{i}"], stats[f"norm{i}"])
        y = functional.relu(y) if i < 5 else torch.sigmoid(y)
    line = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / 1.6) ** 2)
    kernel = torch.outer(line, line)
    whole = functional.pad((y > 0.5).float().repeat_interleave(4, 2).repeat_interleave(4, 3), (2,) * 4, "replicate")
    mask = functional.conv2d(whole, (kernel / kernel.sum())[None, None])
    assert 0 < float(mask.mean()) < 1

    made = quick(lambda v: tiny().transfer(v, X))(held)
    for ours, theirs in (
        (made.transformed, transformed),
        (made.binary, (y > 0.5).float()),
        (quick(tiny().mask)(held, X), mask),
        (made.result, mask * transformed + (1 - mask) * x),
    ):
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), atol=1e-4)

    params, y = held["params"]["discriminator"], x
    scores, maps = quick(tiny().networks["discriminator"].apply)({"params": params}, X)
    for i, (stride, padding) in enumerate(((2, 3), (1, 1), (2, 1), (1, 1)), 1):
        y = functional.leaky_relu(conv(y, params[f"conv{i}"], stride, padding), 0.2)
        np.testing.assert_allclose(maps[i - 1], y.permute(0, 2, 3, 1), atol=1e-4)
    hidden = y.permute(0, 2, 3, 1).flatten(1) @ array(params["fc"]["kernel"]) + array(params["fc"]["bias"])
    score = functional.leaky_relu(hidden, 0.2) @ array(params["score"]["kernel"]) + array(params["score"]["bias"])
    np.testing.assert_allclose(scores, score[:, 0], atol=1e-4)


def closed(held, value: float):
    """The variables with a mask that is 0 (1) everywhere to the right, whatever the image: by its last norm's shift."""
    mask = held["params"]["mask"]
    norm = {"scale": jnp.zeros(1), "bias": jnp.full(1, 50.0 if value else -50.0)}
    return {**held, "params": {**held["params"], "mask": {**mask, "norm5": norm}}}


def test_pixels_outside_the_mask_are_the_inputs_to_the_bit():
    transfer = quick(lambda v: tiny().transfer(v, X))
    made, mask = transfer(state().variables), np.asarray(quick(tiny().mask)(state().variables, X))[..., 0]
    outside = mask == 0
    assert 0 < outside.mean() < 1
    np.testing.assert_array_equal(np.asarray(made.result)[outside], np.asarray(X)[outside])
    assert np.all(np.any(np.asarray(made.result)[~outside] != np.asarray(X)[~outside], axis=-1))
    edited = _edit(state().variables, X, jnp.ones((4, 1)), jnp.zeros((4, 1)), 1.0)
    np.testing.assert_array_equal(np.asarray(edited)[outside], np.asarray(X)[outside])
    np.testing.assert_array_equal(transfer(closed(state().variables, 0)).result, X)
    opened = transfer(closed(state().variables, 1))
    np.testing.assert_allclose(opened.result, opened.transformed, atol=1e-5)


def test_the_mask_learns_through_the_binariser():
    def result(params):
        held = state().variables
        return jnp.sum(
            tiny().transfer({**held, "params": {**held["params"], "mask": params}}, X, train=True).result ** 2
        )

    gradient = quick(jax.grad(result))(state().variables["params"]["mask"])
    assert all(float(jnp.abs(layer["kernel"]).max()) > 0 for name, layer in gradient.items() if "conv" in name)


# Losses, each by hand from the bare networks.


@functools.cache
def by_hand(compared: str = "T"):
    """The terms of L_F."""
    transformed, e = applied("transform", X), np.asarray(applied("mask", X))
    binary = (e > 0.5).astype(np.float32)
    mask = diat.smooth_mask(jnp.asarray(binary))
    result = mask * transformed + (1 - mask) * X
    other = {"T": transformed, "F": result}[compared]
    ours, theirs = (applied("discriminator", x)[1] for x in (other, X))
    count = binary[0].size
    return result, {
        "adversarial": -np.mean(applied("discriminator", result)[0]),
        "identity": squared(FACE.features(FACE.variables, other), FACE.features(FACE.variables, X)),
        "perceptual": sum(squared(ours[i], theirs[i]) / (2 * ours[i][0].size) for i in (2, 3)),
        "ratio": np.mean((binary.reshape(len(X), -1).sum(1) - 0.32 * count) ** 2),
    }


@pytest.mark.parametrize("compared", ["T", "F"])
def test_the_transfers_loss_is_eq_15(compared):
    method = tiny(loss__compared=compared)
    out = quick(method.transfer_objective)(variables(), float_batch(), carried(), CTX)
    result, terms = by_hand(compared)
    assert set(out.metrics) == set(terms)
    for name, expected in terms.items():
        np.testing.assert_allclose(out.metrics[name], expected, rtol=1e-3, err_msg=name)
    total = terms["adversarial"] + 2 * terms["identity"] + 3 * terms["perceptual"] + 0.01 * terms["ratio"]
    np.testing.assert_allclose(out.losses["transfer"], total, rtol=1e-3)
    np.testing.assert_allclose(carried()["fakes"], result, atol=1e-5)


def test_diat_1_compares_layers_of_the_frozen_network():
    method = tiny("diat_128:diat1", loss__perceptual_layers="(('conv', 5.0),)")
    carry = carried("diat_128:diat1", loss__perceptual_layers="(('conv', 5.0),)")
    out = quick(method.transfer_objective)(variables(), float_batch(), carry, CTX)

    def maps(images):
        small = jax.image.resize(images, (len(images), 8, 8, 3), "linear")
        return Conv(4, 3, 2).apply({"params": FACE.variables["params"]["conv"]}, small)

    other = applied("transform", X)
    expected = 5 * squared(maps(other), maps(X)) / (2 * maps(X)[0].size)
    np.testing.assert_allclose(out.metrics["perceptual"], expected, rtol=1e-3)
    np.testing.assert_allclose(out.metrics["identity"], by_hand()[1]["identity"], rtol=1e-3)
    with pytest.raises(UserError, match=r"names 'con', which the face network 'lens' does not have \(did you mean"):
        diat.seen_by(FACE, FACE.variables, X, ["con"])


def test_diat_1s_layers_are_vgg_faces():
    found = checks.layer_outputs(vgg_face.VGGFace(), jnp.zeros((1, 224, 224, 3)))
    layers = configs.load("diat_128:diat1").loss.perceptual_layers
    assert [found[f"{name}/__call__"] for name, _ in layers] == [(56, 56, 256), (28, 28, 512)]


def test_weights_of_zero_leave_out_their_terms_and_the_face_network():
    method = tiny(loss__identity="0.0", loss__perceptual="0.0")
    assert method.frozen == {}
    held = state().variables
    carry = quick(method.forward_objective)(held, float_batch(), {}, CTX).carry
    out = quick(method.transfer_objective)(held, float_batch(), carry, CTX)
    assert set(out.metrics) == {"adversarial", "ratio"}


def test_the_discriminators_loss_is_eq_8_and_may_have_a_penalty():
    carry = {"fakes": by_hand()[0]}
    real, fake = (np.mean(applied("discriminator", x)[0]) for x in (A, carry["fakes"]))
    clip, penalty = (
        quick(m.discriminator_objective)(variables(), float_batch(), carry, CTX)
        for m in (tiny(), tiny(loss__adversarial="penalty"))
    )
    np.testing.assert_allclose(clip.losses["discriminator"], fake - real, rtol=1e-4)
    np.testing.assert_allclose(penalty.metrics["adversarial"], fake - real, rtol=1e-4)
    alpha = jax.random.uniform(CTX.key, (4, 1, 1, 1))
    mixed = alpha * carry["fakes"] + (1 - alpha) * A
    own = {"params": state().variables["params"]["discriminator"]}
    gradient = quick(jax.grad(lambda x: jnp.sum(tiny().networks["discriminator"].apply(own, x)[0])))(mixed)
    term = np.mean((np.linalg.norm(flat(gradient), axis=1) - 1) ** 2)
    np.testing.assert_allclose(penalty.metrics["gradient_penalty"], term, rtol=1e-3)
    np.testing.assert_allclose(penalty.losses["discriminator"], fake - real + 10 * term, rtol=1e-4)
    assert [phase.project is None for phase in tiny(loss__adversarial="penalty").stages[1].phases] == [True] * 4


@pytest.mark.parametrize("kind", ["denoiser", "tv"])
def test_smoothness_is_what_exceeds_the_threshold(kind):
    result = (np.asarray(by_hand()[0]) + 1) / 2
    if kind == "denoiser":
        rough = np.sum(np.asarray(applied("denoiser", jnp.asarray(result))) ** 2, axis=(1, 2, 3))
    else:
        rough = sum(np.sum(np.diff(result, axis=axis) ** 2, axis=(1, 2, 3)) for axis in (1, 2))
    threshold = float(np.mean(rough))  # above some of the images, below others
    method = tiny(loss__smoothness=kind, loss__threshold=repr(threshold))
    out = quick(method.smoothing_objective)(variables(), float_batch(), {}, CTX)
    np.testing.assert_allclose(out.metrics["roughness"], threshold, rtol=1e-3)
    expected = np.mean(np.maximum(rough - threshold, 0))
    assert expected > 0
    np.testing.assert_allclose(out.losses["transfer"], expected, rtol=2e-2)
    assert ("denoiser" in method.networks) == (kind == "denoiser")


def test_pre_training_is_eqs_12_17_and_18():
    data, held = float_batch(), variables()
    both = jnp.concatenate([A, X])  # in the order of their names, in which noise is dealt
    out = quick(tiny().reconstruction_objective)(held, data, {}, CTX)
    np.testing.assert_allclose(out.losses["transfer"], squared(both, applied("transform", both)) / 4, rtol=1e-3)
    out = quick(tiny().regression_objective)(held, data, {}, CTX)
    scores = [np.asarray(applied("discriminator", x)[0]) for x in (A, X)]
    np.testing.assert_allclose(
        out.losses["discriminator"], np.mean((1 - scores[0]) ** 2) + np.mean((-1 - scores[1]) ** 2), rtol=1e-4
    )
    np.testing.assert_allclose(out.metrics["accuracy"], (np.mean(scores[0] > 0) + np.mean(scores[1] <= 0)) / 2)
    out = quick(tiny().denoising_objective)(held, data, {}, CTX)
    clean = (both + 1) / 2
    noisy = clean + 15 / 255 * jax.random.normal(CTX.key, both.shape)
    expected = squared(applied("denoiser", noisy) + noisy, clean)
    np.testing.assert_allclose(out.losses["denoiser"], expected, rtol=1e-3)


# Inference.


@quick
def _edit(held, images, source, target, strength):
    return tiny().edit(held, images, EditRequest(target=target, source=source, strength=strength))


def test_faces_without_the_value_are_transferred_and_others_come_back_bit_for_bit():
    held, wears = state().variables, jnp.array([[1.0], [0.0], [1.0], [0.0]])
    result = quick(lambda v: tiny().transfer(v, X))(held).result
    edited = _edit(held, X, wears, jnp.zeros((4, 1)), 1.0)
    np.testing.assert_allclose(edited[::2], result[::2], atol=1e-6)
    np.testing.assert_array_equal(edited[1::2], X[1::2])
    np.testing.assert_array_equal(_edit(held, X, wears, jnp.ones((4, 1)), 1.0), X)
    np.testing.assert_array_equal(_edit(held, X, wears, jnp.zeros((4, 1)), 0.0), X)
    beyond = _edit(held, X, wears, jnp.zeros((4, 1)), 2.0)
    np.testing.assert_allclose(beyond[::2], np.clip(2 * result - X, -1, 1)[::2], atol=1e-5)
    unread = quick(lambda v: tiny().edit(v, X, EditRequest(target=jnp.zeros((4, 1)))))(held)
    np.testing.assert_allclose(unread, result, atol=1e-6)
    np.testing.assert_array_equal(tiny().reconstruct(held, X), X)


def test_edit_is_pure_under_vmap_and_grad():
    held, target = state().variables, jnp.zeros((4, 1))
    together = _edit(held, X, 1 - target, target, 1.0)
    one = jax.vmap(lambda x, a, b: _edit(held, x[None], a[None], b[None], 1.0)[0])(X, 1 - target, target)
    np.testing.assert_allclose(one, together, atol=1e-5)
    gradient = quick(jax.grad(lambda x: jnp.sum(tiny().edit(held, x, EditRequest(target=target)) ** 2)))(X)
    assert np.isfinite(gradient).all()
    assert float(jnp.abs(gradient).max()) > 0


# Mistakes.


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (TRANSFER, {"attributes": "Male,Young"}, "gives one attribute a value, not 2"),
        (TRANSFER, {"value": "2"}, "value is 2; an attribute is 0 or 1"),
        (TRANSFER, {"image_size": "100"}, "image_size is 100; the 5 layers of T need a multiple of 32"),
        (TRANSFER, {"loss.adversarial": "clipp"}, r"loss.adversarial is 'clipp' \(did you mean 'clip'\?\); it can be"),
        (TRANSFER, {"loss.compared": "G"}, "loss.compared is 'G'; it can be T or F"),
        (TRANSFER, {"task": "transfr"}, r"task is 'transfr' \(did you mean 'transfer'\?\)"),
        (TRANSFER, {"model.width": "6"}, "model.width is 6; T moves channels to space, which takes a multiple of 4"),
        (HALLUCINATION, {"scale": "3"}, "need a multiple of 96"),
    ],
)
def test_mistakes_are_named(name, overrides, message):
    with pytest.raises(UserError, match=message):
        build(configs.load(name, overrides))
