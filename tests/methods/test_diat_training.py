"""DIAT's schedule against the paper's algorithm 1, and its training."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax import load
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.methods import diat
from faceattr_jax.methods.base import build, rmsprop
from faceattr_jax.training import loop
from faceattr_jax.training.state import init_state
from faceattr_jax.training.step import Executor
from tests import checks, runs
from tests.methods import tiny_diat
from tests.methods.tiny_diat import (
    CTX,
    FACE,
    HALLUCINATION,
    TRANSFER,
    Face,
    batch,
    check_devices,
    check_executors,
    check_phases,
    squared,
    tiny,
)

face_network = tiny_diat.face_network


# Phases.


def test_every_phase_changes_its_own_and_all_else_stays_bit_identical():
    check_phases(TRANSFER)


def test_rmsprop_adds_its_epsilon_to_the_root():
    transform = rmsprop(configs.load(TRANSFER))
    held, square = transform.init(jnp.zeros(2)), np.zeros(2)
    for gradient in (np.array([2.0, 1e-7]), np.array([-1.0, 3e-7])):
        square = 0.99 * square + 0.01 * gradient**2
        direction, held = transform.update(jnp.asarray(gradient, jnp.float32), held)
        np.testing.assert_allclose(direction, gradient / (np.sqrt(square) + 1e-8), rtol=1e-5)


def test_the_schedule_is_algorithm_1():
    phases = {phase.name: phase for phase in build(configs.load(TRANSFER)).stages[1].phases}
    assert {name: phase.repeats for name, phase in phases.items()} == {
        "forward": 1, "discriminator": 12, "transfer": 12, "smoothing": 6,
    }  # fmt: skip
    assert [name for name, phase in phases.items() if phase.project] == ["discriminator"]
    assert all(phase.draw == "iteration" for phase in phases.values())


def test_clipping_comes_once_after_twelve_updates(monkeypatch):
    """With a bound that the updates cross: without the projection D is outside of it, with it on it."""
    method = tiny(optimizer__learning_rate="0.01", loss__clip="0.02", steps__discriminator="12")
    phase = method.stages[1].phases[1]
    assert (phase.name, phase.repeats) == ("discriminator", 12)
    calls = []
    ends = {}
    executor = checks.executor(method, 1)
    clip = executor._projections["discriminator"]
    for project in (True, False):

        def projection(state, project=project):
            calls.append(project)
            return clip(state) if project else state

        monkeypatch.setitem(executor._projections, "discriminator", projection)  # the executor is others', too
        held, carry, _ = executor.run_phase(executor.stage.phases[0], checks.fresh(method), [batch()], {}, 0)
        held, _, _ = executor.run_phase(executor.stage.phases[1], held, [batch()], carry, 0)
        ends[project] = jax.device_get(held.variables["params"])
    assert calls == [True, False]
    free, bound = ends[False]["discriminator"], ends[True]["discriminator"]
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(free)) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.clip(a, -0.02, 0.02), b), free, bound)
    jax.tree.map(np.testing.assert_array_equal, ends[False]["transform"], ends[True]["transform"])


@pytest.mark.parametrize("stage", [0, 1])
def test_host_dispatch_and_scan_give_the_same_numbers(stage):
    check_executors(TRANSFER, stage)


@pytest.mark.parametrize("stage", [0, 1])
def test_gradients_agree_between_one_device_and_eight(stage):
    found = check_devices(TRANSFER, stage)
    # Pre-training leaves the mask alone.
    if stage == 0:
        assert not any(leaf.any() for leaf in jax.tree.leaves(found["reconstruction"]["transfer"]["mask"]))


def test_source_and_guided_sets():
    labels = (np.arange(40) % 4 == 0).astype(np.float32)[:, None]
    indices = np.arange(100, 140)

    def drawn(method, count=30):
        sampler = jax.jit(method.sampler(jax.random.key(0), indices, labels, 4))
        found = [jax.device_get(sampler(draw, 0)) for draw in range(count)]
        return {name: set(np.concatenate([rows[name] for rows in found])) for name in ("source", "guided")}

    has = set(indices[labels[:, 0] == 1])
    assert drawn(tiny()) == {"source": has, "guided": set(indices) - has}
    assert drawn(tiny(value="1")) == {"source": set(indices) - has, "guided": has}
    few = drawn(tiny(value="1", source_images="8"))["source"]
    assert len(few) == 8
    assert few < set(indices) - has
    # The same ones in both stages, whose streams have keys of their own.
    other = tiny(value="1", source_images="8").sampler(jax.random.key(1), indices, labels, 4)
    assert set(np.concatenate([other(d, 0)["source"] for d in range(4)])) == few
    assert drawn(tiny(HALLUCINATION)) == {"source": set(indices), "guided": set(indices)}


# Runs.


def test_a_run_killed_and_resumed_in_both_stages(on_one_device, faces, trained, tmp_path, monkeypatch):
    """Four iterations with a judge beside them, in one piece and in three; then every command's code path."""
    short = {"steps__discriminator": 2, "steps__transfer": 2, "steps__smoothing": 1, "train__checkpoint_every": 1}
    config = runs.diat(faces, pretrain__iterations=2, train__iterations=2, evaluation__judge=str(trained / "judge"),
                       **short)  # fmt: skip
    whole = loop.train(config, tmp_path / "whole")
    iterate = Executor.iterate
    seen = []

    def dying(executor, state, batches, number):
        seen.append((executor.stage.name, number))
        if seen.count(seen[-1]) == 1 and number == 1:
            raise checks.Killed
        return iterate(executor, state, batches, number)

    with monkeypatch.context() as patch:
        patch.setattr(Executor, "iterate", dying)
        for _ in range(2):
            with pytest.raises(checks.Killed):
                loop.train(config, tmp_path / "parts")
    assert seen[-1] == ("train", 1)
    resumed = loop.train(config, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(resumed))
    metrics = (tmp_path / "whole" / "metrics.csv").read_text()
    assert metrics == (tmp_path / "parts" / "metrics.csv").read_text()
    assert "valid/attribute_accuracy" in metrics
    assert (tmp_path / "whole" / "grids" / "edits-0000004.png").is_file()

    # The face network is named, in no checkpoint, and must be the same one.
    record = json.loads((tmp_path / "whole" / "frozen.json").read_text())
    assert record == {"face": {"network": "lens", "sha256": FACE.sha256}}
    assert set(whole.variables) == {"params", "batch_stats"}
    with monkeypatch.context() as patch:
        patch.setattr(diat, "open_face", lambda config: Face(seed=1))
        with pytest.raises(UserError, match="begun with other weights of its face network"):
            loop.train(config, tmp_path / "whole")

    # An editor and its evaluation need no face network, and look at the faces that can be edited alone.
    def missing(config):
        raise AssertionError

    monkeypatch.setattr(diat, "open_face", missing)
    summary = evaluate(tmp_path / "whole", tmp_path / "report", images=6, curve=True)
    assert summary["attribute_accuracy"] == summary["attribute_accuracy_removing"]
    assert summary["attribute_accuracy_adding"] is None
    assert "no face here lacks it" in (tmp_path / "report" / "evaluation.md").read_text()
    editor = load(tmp_path / "whole")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    images = jnp.asarray(pixels, jnp.float32) / 127.5 - 1
    edited = editor.edit(pixels, {"Eyeglasses": 0}, source=[[1], [0]])
    assert np.any(edited[0] != images[0])
    np.testing.assert_allclose(edited[1], images[1], atol=1e-6)
    np.testing.assert_allclose(editor.edit(pixels, {"Eyeglasses": 0})[0], edited[0], atol=1e-6)
    np.testing.assert_allclose(editor.slide(pixels, "Eyeglasses", (0.0, 1.0))[1, 0], edited[0], atol=1e-6)
    with pytest.raises(UserError, match="trained for Eyeglasses=0 alone, so it cannot give Eyeglasses=1"):
        editor.edit(pixels, {"Eyeglasses": 1})


@pytest.mark.slow
def test_a_borrowed_denoiser(on_one_device, faces, tmp_path):
    loop.train(runs.denoiser(faces), tmp_path / "denoiser")
    short = {"steps__discriminator": 1, "steps__transfer": 1, "steps__smoothing": 1, "train__iterations": 1}
    config = runs.diat(faces, denoiser=str(tmp_path / "denoiser"), loss__threshold=0.0, **short)
    method = build(config)
    assert "denoiser" not in method.networks
    assert [phase.name for phase in method.stages[0].phases] == ["reconstruction", "regression"]
    loop.train(config, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "frozen.json").read_text())
    assert record["denoiser"] == {"network": "denoiser", "sha256": method.frozen["denoiser"].sha256}
    # It is the lent weights that smooth.
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
    data = {"source": {"images": images}, "guided": {"images": images}}
    held = init_state(method, 0).variables
    held = {**held, "frozen": {role: network.variables for role, network in method.frozen.items()}}
    found = method.smoothing_objective(held, data, {}, CTX).metrics["roughness"]
    result = (method.transfer(held, images, train=True).result + 1) / 2
    lent = load(tmp_path / "denoiser")
    residual = lent.method.networks["denoiser"].apply({"params": lent.variables["params"]["denoiser"]}, result)
    np.testing.assert_allclose(found, squared(residual, np.zeros_like(residual)), rtol=1e-3)
