"""The classifier's other networks and outputs: MOON (VGG-16, regressed to -1 and 1) and DIAT's residual network."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax.editor import load
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import Ctx, Given, build
from faceattr_jax.pretrained import vgg16, weights
from faceattr_jax.training import loop
from faceattr_jax.training.state import init_state, with_given
from tests import checks, runs
from tests.checks import QUICK, quick

CTX = Ctx(jnp.int32(0), jnp.int32(0), jnp.int32(0), jax.random.key(1))
SIZE = 32
COMMON = {"image_size": SIZE, "shift": 0, "attributes": "Bald,Bangs"}
TINY = {
    "classifier_moon": {"model.width": 2, "model.fc": 8},
    "classifier_diat": {"model.widths": (2, 4), "model.fc": 8, "model.dropout": 0.0},
}
NAMES = sorted(TINY)


@functools.cache
def tiny(name, **changes):
    settings = {**COMMON, **TINY[name], **changes}
    return build(configs.load(name, {key: str(value) for key, value in settings.items()}))


def batch(count=4):
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8),
        "labels": np.tile([[1, 0], [0, 0], [0, 1], [0, 1]], (count // 4, 1)).astype(np.float32),
    }


def test_every_layer_of_moon():
    method = build(configs.load("classifier_moon"))
    found = checks.layer_outputs(method.networks["classifier"], jnp.zeros((1, 224, 224, 3)))
    for i, (width, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        for j in range(count):
            assert found[f"conv{i + 1}_{j + 1}/__call__"] == (224 >> i, 224 >> i, width)
    assert found["fc6/__call__"] == found["fc7/__call__"] == (4096,)
    assert found["fc8/__call__"] == found["__call__"] == (40,)
    shapes = jax.eval_shape(lambda: init_state(method, 0)).variables
    assert shapes.keys() == {"params", "memory"}
    assert shapes["params"]["classifier"]["fc6"]["kernel"].shape == (7 * 7 * 512, 4096)


def test_every_layer_of_diats():
    method = build(configs.load("classifier_diat"))
    found = checks.layer_outputs(method.networks["classifier"], jnp.zeros((1, 128, 128, 3)))
    convolutions = {"0": (64, 64, 64), "1": (32, 32, 128)}
    blocks = {f"_block{i}_{j}": (32 >> i, 32 >> i, 128) for i in range(3) for j in range(2)}
    for name, shape in {**convolutions, **blocks}.items():
        assert found[f"conv{name}/__call__"] == found[f"norm{name}/__call__"] == shape
    assert found["fc/__call__"] == (256,)
    assert found["logits/__call__"] == found["__call__"] == (40,)
    assert sum(name.startswith("conv") for name in found) == 2 + 2 * 3
    params = jax.eval_shape(lambda: init_state(method, 0)).variables["params"]["classifier"]
    assert params["conv0"]["kernel"].shape == (4, 4, 3, 64)
    assert params["conv_block0_0"]["kernel"].shape == (3, 3, 128, 128)
    assert params["fc"]["kernel"].shape == (4 * 4 * 128, 256)


def test_a_block_adds_to_what_it_got():
    network = tiny("classifier_diat").networks["classifier"]
    images = jax.random.normal(jax.random.key(0), (2, SIZE, SIZE, 3))
    variables = checks.fresh(tiny("classifier_diat")).variables
    variables = {c: variables[c]["classifier"] for c in ("params", "batch_stats")}
    zeroed = {
        name: jax.tree.map(jnp.zeros_like, layer) if name.startswith("norm_block") else layer
        for name, layer in variables["params"].items()
    }
    run = functools.partial(network.apply, capture_intermediates=True, mutable=["intermediates"])
    _, kept = quick(run)({**variables, "params": zeroed}, images)
    x = np.maximum(np.asarray(kept["intermediates"]["norm1"]["__call__"][0]), 0)
    for _ in range(3):  # each block hands on what it got, and the pooling halves it
        x = x.reshape(2, x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))
    fc = kept["intermediates"]["fc"]["__call__"][0]
    np.testing.assert_allclose(fc, x.reshape(2, -1) @ np.asarray(zeroed["fc"]["kernel"]), atol=1e-5)


@pytest.mark.parametrize("target", [0.5, 0.2])
def test_moons_objective_by_hand(target):
    method = tiny("classifier_moon", **{"loss.target": target, "loss.l2": 0.1})
    variables = jax.device_get(checks.fresh(method).variables)
    images = jax.random.normal(jax.random.key(0), (4, SIZE, SIZE, 3))
    labels = batch()["labels"]
    out = quick(method.objective)(variables, {"images": images, "labels": labels}, {}, CTX)
    own = {"params": variables["params"]["classifier"]}
    dropout = {"dropout": jax.random.fold_in(CTX.key, 1)}
    run = quick(functools.partial(method.networks["classifier"].apply, train=True))
    outputs = np.asarray(run(own, images, rngs=dropout), np.float64)
    rate = (labels.sum(0) + 1) / 6  # (2/6, 3/6)
    error = 0.0
    for row, signs in zip(outputs, 2 * labels - 1, strict=True):
        for output, sign, s in zip(row, signs, rate, strict=True):
            s, t = (s, target) if sign > 0 else (1 - s, 1 - target)
            error += (1 if t > s else (1 - s) * t / (s * (1 - t))) * (output - sign) ** 2 / outputs.size
    squares = sum(np.sum(leaf.astype(np.float64) ** 2) for leaf in jax.tree.leaves(own) if leaf.ndim > 1)
    np.testing.assert_allclose(out.metrics["squared_error"], error, rtol=1e-4)
    np.testing.assert_allclose(out.losses["classifier"], error + 0.05 * squares, rtol=1e-4)
    assert float(out.metrics["accuracy"]) == np.mean((outputs > 0) == (labels > 0.5))
    assert out.mutated.keys() == {"memory/counts"}


def test_a_sign_is_read_as_a_probability():
    method = tiny("classifier_moon")
    outputs = jnp.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    np.testing.assert_array_equal(method.reading.probability(outputs), [0, 0, 0.25, 0.5, 0.75, 1, 1])
    variables = jax.device_get(checks.fresh(method).variables)
    images = jax.random.normal(jax.random.key(0), (3, SIZE, SIZE, 3))
    features = quick(method.features)(variables, images)
    assert features.shape == (3, 8)
    last = variables["params"]["classifier"]["fc8"]
    expected = method.reading.probability(features @ last["kernel"] + last["bias"])
    np.testing.assert_allclose(quick(method.classify)(variables, images), expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_phase_changes_the_network_and_the_counts(name):
    before = jax.device_get(checks.fresh(tiny(name)))
    executor = checks.executor(tiny(name))
    phase = executor.stage.phases[0]
    after, carry, _ = executor.run_phase(phase, checks.fresh(tiny(name)), [batch()], {}, 0)
    expected = {"params/classifier", "memory/counts", "optimizer/classifier"}
    expected |= {"batch_stats/classifier"} if name == "classifier_diat" else set()
    assert checks.changed(before, jax.device_get(after)) == expected
    assert carry == {}


@pytest.mark.parametrize("name", NAMES)
def test_host_dispatch_and_scan_give_the_same_numbers(name):
    host, scanned = checks.executor(tiny(name)), checks.executor(tiny(name), scan=True)
    checks.executors_agree(host, scanned, [batch()], iterations=2)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_agree_between_one_device_and_eight(name):
    checks.devices_agree(tiny(name), batch(16), share=1e-4, least=1e-3, compiler_options=QUICK)


def test_what_is_given_replaces_parameters_and_their_averages():
    method = tiny("classifier_moon", ema=0.5)
    state = checks.fresh(method)
    own = state.variables["params"]["classifier"]
    kernel = np.asarray(own["fc7"]["kernel"]) + 1
    given = Given("some", "hash", {"params": {"fc7": {"kernel": kernel.astype(np.float64)}}})
    begun = with_given(state, {"classifier": given})
    assert checks.changed(state, begun) == {"params/classifier", "ema/classifier"}
    for params in (begun.variables["params"], begun.ema):
        own = params["classifier"]
        np.testing.assert_array_equal(own["fc7"]["kernel"], kernel)
        assert own["fc7"]["kernel"].dtype == jnp.float32
        assert own["fc7"]["kernel"].sharding == state.variables["params"]["classifier"]["fc7"]["kernel"].sharding
        rest = [
            {k: v for k, v in tree.items() if k != "fc7"} for tree in (own, state.variables["params"]["classifier"])
        ]
        jax.tree.map(np.testing.assert_array_equal, *rest)
    assert with_given(state, {}) is state


def moon(faces, **changes):
    narrow = {"image_size": 224, "model.width": 2, "model.fc": 8, "train.iterations": 2, "batch_size": 8, "shift": 0}
    return runs.changed("classifier_moon", {**narrow, "evaluation.images": 8}, faces, changes)


def test_a_run_starts_from_imagenet_once(torch, on_one_device, monkeypatch, faces, tmp_path):
    from tests.oracles import images_torch

    monkeypatch.setattr(weights, "VGG16", dataclasses.replace(weights.VGG16, sha256="", size=None))
    file = tmp_path / weights.VGG16.file
    with torch.no_grad():
        torch.save(images_torch.randomise(images_torch.VGG16(outputs=1000, width=2, fc=8)).state_dict(), file)
    config = moon(faces, model__weights=str(tmp_path))
    method = build(config)
    fresh = jax.device_get(checks.fresh(method).variables["params"]["classifier"])
    state = jax.device_get(loop.start_state(method, config.seed, checks.one_device()))
    begun = state.variables["params"]["classifier"]
    theirs = vgg16.read(file, vgg16.VGG16(outputs=1000, width=2, fc=8))["params"]
    for name, layer in begun.items():
        jax.tree.map(np.testing.assert_array_max_ulp, layer, fresh["fc8"] if name == "fc8" else theirs[name])
    assert not np.array_equal(begun["conv1_1"]["kernel"], fresh["conv1_1"]["kernel"])

    loop.train(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "given.json").read_text())
    assert record["classifier"]["network"] == "vgg16"
    assert len(record["classifier"]["sha256"]) == 64
    file.unlink()  # of no use any more, to go on or to judge
    assert int(loop.train(moon(faces, model__weights=str(tmp_path), train__iterations=3), tmp_path / "run").step) == 3
    load(tmp_path / "run")


def test_bad_weights_are_said_before_anything_is_written(faces, tmp_path):
    def refused(says, **changes):
        with pytest.raises(UserError, match=says):
            loop.train(moon(faces, **changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused("there is no file of weights at", model__weights=str(tmp_path / "absent.pth"))
    refused("for images of 224 pixels, and image_size is 32", model__weights=str(tmp_path), image_size=32)
    (tmp_path / weights.VGG16.file).write_bytes(b"<html>")
    refused("is not the vgg16-397923af.pth", model__weights=str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_a_run_killed_and_resumed_ends_as_any_other(name, on_one_device, faces, monkeypatch, tmp_path):
    narrow = {**TINY[name], "image_size": SIZE, "evaluation.images": 8, "train.iterations": 4, "optimizer.schedule": ()}
    run = checks.killed_and_resumed(monkeypatch, runs.changed(name, narrow, faces, {}), tmp_path)
    assert "valid/balanced_accuracy" in (run / "metrics.csv").read_text()


def test_unknown_choices_are_named():
    for key, value, near in (("model.network", "vgg19", "vgg16"), ("loss.outputs", "sings", "signs")):
        config = configs.load("classifier_moon", {key: value})
        with pytest.raises(UserError, match=rf"{key} is '{value}' \(did you mean '{near}'\?\)"):
            build(config)
    with pytest.raises(UserError, match=r"loss.target is 1.0; a rate"):
        tiny("classifier_moon", **{"loss.target": 1.0})
