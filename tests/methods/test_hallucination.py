"""DIAT's hallucination and its baseline against the paper's equations."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax import load
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.training import loop
from tests import checks, runs
from tests.checks import quick
from tests.methods import tiny_diat
from tests.methods.tiny_diat import (
    CTX,
    FACE,
    HALLUCINATION,
    SIZE,
    UNET,
    A,
    X,
    applied,
    carried,
    check_devices,
    check_executors,
    check_phases,
    float_batch,
    squared,
    state,
    tiny,
    variables,
)

face_network = tiny_diat.face_network


def test_the_hallucinations_loss_is_eq_20():
    name = HALLUCINATION
    method = tiny(name)
    x = method.inputs(X)
    small = jax.image.resize(X, (4, SIZE // 8, SIZE // 8, 3), "cubic")
    levels = jnp.clip(jnp.round((small + 1) * 127.5), 0, 255)
    expected = jnp.clip(jax.image.resize(levels / 127.5 - 1, X.shape, "cubic"), -1, 1)
    np.testing.assert_allclose(x, expected, atol=1e-5)
    made = applied("transform", x, name=name)
    plain = tiny(name, loss__perceptual="0.0")
    out = quick(plain.transfer_objective)(variables(name), float_batch(), carried(name), CTX)
    terms = {
        "adversarial": -np.mean(applied("discriminator", made, name=name)[0]),
        "identity": squared(FACE.features(FACE.variables, made), FACE.features(FACE.variables, x)),
        "reconstruction": squared(made, X) / 4,
    }
    assert set(out.metrics) == set(terms)
    for term, value in terms.items():
        np.testing.assert_allclose(out.metrics[term], value, rtol=1e-3, err_msg=term)
    total = terms["adversarial"] + 2 * terms["identity"] + 0.01 * terms["reconstruction"]
    np.testing.assert_allclose(out.losses["transfer"], total, rtol=1e-3)
    assert configs.load(name).loss.perceptual == 0
    # D's regression sees what T is given, and T learns the truth from it.
    first = quick(method.regression_objective)(variables(name), float_batch(), {}, CTX)
    scores = [np.asarray(applied("discriminator", v, name=name)[0]) for v in (A, x)]
    np.testing.assert_allclose(
        first.losses["discriminator"], np.mean((1 - scores[0]) ** 2) + np.mean((-1 - scores[1]) ** 2), rtol=1e-4
    )
    both = jnp.concatenate([X, A])
    found = quick(method.reconstruction_objective)(variables(name), float_batch(), {}, CTX).losses["transfer"]
    expected = squared(both, applied("transform", method.inputs(both), name=name)) / 4
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    # All that the baseline learns from, on one stream of faces.
    found = quick(tiny(UNET).reconstruction_objective)(state(UNET).variables, float_batch()["source"], {}, CTX)
    np.testing.assert_allclose(found.losses["transfer"], squared(X, applied("transform", x, name=UNET)) / 4, rtol=1e-3)


# Phases.


@pytest.mark.parametrize("name", [HALLUCINATION, UNET])
def test_every_phase_changes_its_own_and_all_else_stays_bit_identical(name):
    check_phases(name)


STAGES = [(HALLUCINATION, 0), (HALLUCINATION, 1), (UNET, 0)]


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_host_dispatch_and_scan_give_the_same_numbers(name, stage):
    check_executors(name, stage)


@pytest.mark.parametrize(("name", "stage"), STAGES[1:])
def test_gradients_agree_between_one_device_and_eight(name, stage):
    check_devices(name, stage)


# Runs.


NARROW = {"attributes": (), "image_size": 32, "model.width": 4, "model.transform": (1, 2, 2), "evaluation.images": 8}


def test_the_baseline_killed_and_resumed(on_one_device, faces, tmp_path, monkeypatch):
    config = runs.changed(UNET, {**NARROW, "train.iterations": 4, "train.evaluate_every": 4}, faces, {})
    metrics = (checks.killed_and_resumed(monkeypatch, config, tmp_path) / "metrics.csv").read_text()
    assert "valid/psnr" in metrics
    assert not (tmp_path / "whole" / "frozen.json").exists()


@pytest.mark.slow
def test_hallucination_and_its_baseline_run_and_are_evaluated(on_one_device, faces, trained, tmp_path, monkeypatch):
    short = {"steps.discriminator": 1, "steps.transfer": 1, "steps.smoothing": 1}
    narrow = {**NARROW, "train.iterations": 2, "train.evaluate_every": 2}
    rest = {"model.discriminator_width": 2, "model.discriminator": ((1, 8, 2), (1, 3, 1), (2, 4, 2)), "model.fc": 4,
            "model.denoiser": (2,), "pretrain.iterations": 1}  # fmt: skip
    config = runs.changed(HALLUCINATION, {**narrow, **rest, **short}, faces, {})
    checks.killed_and_resumed(monkeypatch, config, tmp_path, 1).rename(tmp_path / "diat")
    loop.train(runs.changed(UNET, narrow, faces, {}), tmp_path / "unet")
    assert not (tmp_path / "unet" / "frozen.json").exists()
    reports = {
        name: evaluate(tmp_path / name, tmp_path / f"{name}_report", judge=judge, images=6)
        for name, judge in (("diat", str(trained / "judge")), ("unet", ""))
    }
    rows = {name: json.loads((tmp_path / f"{name}_report" / "evaluation.json").read_text())["rows"] for name in reports}
    # By the judge that one of them was given, of 6 faces in 8 features.
    assert reports["diat"]["frechet_judge"] != rows["diat"]["degraded"].pop("frechet_judge") > 0
    assert rows["diat"]["degraded"] == rows["unet"]["degraded"]
    assert 0 < rows["diat"]["degraded"]["gradient_energy_ratio"] < 1
    assert reports["diat"]["psnr"] > 0
    with pytest.raises(UserError, match="cannot edit; it can restore"):
        load(tmp_path / "diat").edit(np.zeros((32, 32, 3), np.uint8), {"Eyeglasses": 0})
