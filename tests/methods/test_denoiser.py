"""The denoising network: table IV, eq. 12, and a run that is evaluated and lent."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax import load
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.methods.base import Ctx, build
from faceattr_jax.methods.denoiser import Denoiser, frozen_denoiser, noisy
from faceattr_jax.training import distributed
from tests import checks, runs
from tests.checks import QUICK, quick


@functools.cache
def tiny():
    return build(configs.load("denoiser_128", {"image_size": "8", "model.denoiser": "(4,)"}))


def batch(count: int = 3):
    return {"images": np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)}


def test_every_layer_of_table_4():
    network = build(configs.load("denoiser_128")).networks["denoiser"]
    found = checks.layer_outputs(network, jnp.zeros((1, 128, 128, 3)))
    assert [found[f"conv{i}/__call__"] for i in range(1, 7)] == [(128, 128, c) for c in (64, 64, 64, 64, 64, 3)]
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 128, 128, 3)))["params"]
    assert all(layer["kernel"].shape[:2] == (3, 3) for layer in params.values())


def test_relu_between_the_layers_and_none_after_the_last():
    network = Denoiser((2, 3))
    images = jax.random.uniform(jax.random.key(0), (1, 5, 5, 3))
    params = network.init(jax.random.key(1), images)["params"]
    x = np.asarray(images)
    for i, layer in enumerate(params.values()):
        kernel, padded = np.asarray(layer["kernel"]), np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
        x = np.einsum("bhwcij,ijcd->bhwd", windows, kernel) + layer["bias"]
        x = np.maximum(x, 0) if i < 2 else x
    np.testing.assert_allclose(network.apply({"params": params}, images), x, atol=1e-5)
    assert x.min() < 0


def test_the_loss_is_eq_12_in_the_unit_range():
    method, variables = tiny(), checks.fresh(tiny()).variables
    images = jax.random.uniform(jax.random.key(1), (3, 8, 8, 3), minval=-1)
    ctx = Ctx(jnp.int32(0), jnp.int32(0), jnp.int32(0), jax.random.key(2))
    clean = (images + 1) / 2
    y = clean + 15 / 255 * jax.random.normal(ctx.key, images.shape)
    residual = quick(method.networks["denoiser"].apply)({"params": variables["params"]["denoiser"]}, y)
    expected = np.mean(np.sum((np.asarray(residual) + y - clean) ** 2, axis=(1, 2, 3)))
    found = quick(method.objective)(variables, {"images": images}, {}, ctx)
    np.testing.assert_allclose(found.losses["denoiser"], expected, rtol=1e-5)
    restored = quick(method.restore)(variables, 2 * y - 1)
    np.testing.assert_allclose(restored, np.clip(2 * (y + residual) - 1, -1, 1), atol=1e-5)


def test_the_phase_changes_the_denoiser_alone():
    before = jax.device_get(checks.fresh(tiny()))
    executor = checks.executor(tiny())
    after, carry, _ = executor.run_phase(executor.stage.phases[0], checks.fresh(tiny()), [batch()], {}, 0)
    assert checks.changed(before, jax.device_get(after)) == {"params/denoiser", "optimizer/denoiser"}
    assert carry == {}


def test_host_dispatch_and_scan_give_the_same_numbers():
    checks.executors_agree(checks.executor(tiny()), checks.executor(tiny(), scan=True), [batch()], iterations=2)


def test_gradients_agree_between_one_device_and_eight():
    checks.devices_agree(tiny(), batch(8), share=1e-5, least=1e-3, compiler_options=QUICK)


def test_noise_is_in_levels():
    images = jnp.zeros((4, 32, 32, 3))
    assert float(jnp.std(noisy(images, jax.random.key(0), 15.0)) * 127.5) == pytest.approx(15, rel=0.02)


def test_a_run_killed_and_resumed_is_scored_evaluated_and_lent(faces, tmp_path, monkeypatch):
    one = checks.one_device()
    monkeypatch.setattr(distributed, "mesh", lambda: one)
    run = checks.killed_and_resumed(monkeypatch, runs.denoiser(faces), tmp_path)
    metrics = (run / "metrics.csv").read_text()
    assert "valid/psnr" in metrics
    assert "valid/degraded_psnr" in metrics
    assert (run / "grids" / "restorations-0000004.png").is_file()

    summary = evaluate(run, tmp_path / "report", images=6)
    written = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert written["psnr"] == summary["psnr"]
    # Noise of 15 levels: 20 log10(255 / 15), less what clipping takes away.
    assert 24 < written["rows"]["degraded"]["psnr"] < 27
    assert set(written["rows"]) == {"model", "untrained", "degraded"}
    assert "| degraded |" in (tmp_path / "report" / "evaluation.md").read_text()
    assert (tmp_path / "report" / "grid.png").is_file()

    lent, model = frozen_denoiser(str(run)), load(run)
    jax.tree.map(np.testing.assert_array_equal, lent.variables["params"], model.variables["params"]["denoiser"])
    assert len(lent.sha256) == 64
    assert frozen_denoiser(str(run)).sha256 == lent.sha256


def test_only_a_denoisers_run_can_be_lent(trained):
    with pytest.raises(UserError, match="a run of classifier; it should be one of denoiser, or empty"):
        frozen_denoiser(str(trained / "judge"))
