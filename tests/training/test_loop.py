"""The loop: what a run leaves behind, and that an interrupted one leaves the same."""

import os
import signal
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

from faceattr_jax import cli
from faceattr_jax.data.source import open_source
from faceattr_jax.errors import UserError
from faceattr_jax.training import checkpoint, loop
from faceattr_jax.training.step import Executor
from tests import runs
from tests.checks import Killed, kill_at, killed_and_resumed, unshare_compiled


def same(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.fixture(scope="module")
def finished(faces, tmp_path_factory):
    """An uninterrupted run: its workdir and final state."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    return workdir, loop.train(runs.attgan(faces), workdir)


def test_training_takes_the_train_split_without_what_is_excluded(faces):
    source = open_source(str(faces), size=32, crop="none")
    train = source.table.indices("train")
    assert list(loop.training_indices(runs.classifier(faces), source)) == list(train)
    config = runs.diat(faces, data__exclude="('Male', 'Bangs')")
    labels = source.table.select(["Male", "Bangs"])
    kept = [i for i in train if not labels[i].any()]
    assert 0 < len(kept) < len(train)
    assert list(loop.training_indices(config, source)) == kept


def test_a_run_leaves_config_metrics_grids_and_checkpoints(finished, faces):
    workdir, state = finished
    assert int(state.step) == 6
    assert checkpoint.read_config(checkpoint.find(workdir)) == runs.attgan(faces)
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "4", "6"]
    assert sorted(p.name for p in (workdir / "grids").iterdir()) == ["edits-0000003.png", "edits-0000006.png"]
    rows = [row.split(",") for row in (workdir / "metrics.csv").read_text().splitlines()[1:]]
    assert [int(row[0]) for row in rows if row[1] == "generator/reconstruction"] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(float(row[2])) for row in rows)
    assert list((workdir / "tensorboard").iterdir())


@pytest.mark.parametrize("iterations", [(0,), (3,), (3, 5), (4, 5)])
def test_a_killed_run_ends_with_the_same_bits(finished, faces, tmp_path, iterations):
    """Killed before, at and after checkpoints and evaluations, once and twice; one goes on by programs of its own."""
    workdir, state = finished
    for iteration in iterations:
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, iteration)
            with pytest.raises(Killed):
                loop.train(runs.attgan(faces), tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        if iterations == (3, 5):
            unshare_compiled(patch)
        resumed = loop.train(runs.attgan(faces), tmp_path / "run")
    same(state, resumed)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (workdir / "metrics.csv").read_bytes()
    for name in ("edits-0000003.png", "edits-0000006.png"):
        assert (tmp_path / "run" / "grids" / name).read_bytes() == (workdir / "grids" / name).read_bytes()


def test_a_scanned_run_killed_and_resumed(faces, tmp_path, monkeypatch):
    """As on GPU and TPU, whole iterations at a time; each part by programs of its own."""
    unshare_compiled(monkeypatch, scan=True)
    few = {"model__widths": (4,), "train__evaluate_every": 0, "train__iterations": 4}
    killed_and_resumed(monkeypatch, runs.classifier(faces, **few), tmp_path)


def test_several_iterations_in_a_call(faces, tmp_path, monkeypatch):
    """Checkpoints and the last step end a call, a signal waits for the end of one; each iteration is logged."""
    few = {"model__widths": (4,), "train__evaluate_every": 0, "train__iterations": 10, "train__checkpoint_every": 5}
    few |= {"data__resident": "on", "train__keep": 9}
    several, executor, counts = Executor.iterate_several, loop.Executor, []
    monkeypatch.setattr(loop, "Executor", lambda *which, **settings: executor(*which, **{**settings, "scan": True}))
    one = loop.train(runs.classifier(faces, **few, train__per_call=1), tmp_path / "one")

    def counting(self, state, drawing, iteration, count):
        counts.append(count)
        if len(counts) == 7:  # the first call of the run that is stopped
            os.kill(os.getpid(), signal.SIGTERM)
        return several(self, state, drawing, iteration, count)

    monkeypatch.setattr(Executor, "iterate_several", counting)
    config = runs.classifier(faces, **few, train__per_call=3)
    whole = loop.train(config, tmp_path / "whole")
    assert counts == [3, 1, 1, 3, 1, 1]
    same(one, whole)

    assert int(loop.train(config, tmp_path / "parts").step) == 3
    same(whole, loop.train(config, tmp_path / "parts"))
    assert counts[6:] == [3, 1, 1, 3, 1, 1]
    names = [sorted(p.name for p in (tmp_path / name / "checkpoints").iterdir()) for name in ("one", "whole", "parts")]
    assert names == [["10", "5"], ["10", "5"], ["10", "3", "5"]]
    rows = [(tmp_path / name / "metrics.csv").read_text() for name in ("one", "whole", "parts")]
    assert rows[0] == rows[1] == rows[2]
    assert {int(row.split(",")[0]) for row in rows[0].splitlines()[1:]} == {*range(1, 11)}


def test_resuming_says_from_which_step(faces, tmp_path, caplog, monkeypatch):
    kill_at(monkeypatch, 5)
    with pytest.raises(Killed):
        loop.train(runs.attgan(faces), tmp_path)
    monkeypatch.undo()
    loop.train(runs.attgan(faces), tmp_path)
    assert "Resuming from step 4 in" in caplog.text


def test_a_finished_run_is_left_as_it_is(finished, faces):
    workdir, state = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file() and "checkpoints" in p.parts}
    same(state, loop.train(runs.attgan(faces), workdir))
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_finished_run_goes_on_with_more_iterations(faces, tmp_path, finished):
    loop.train(runs.attgan(faces, train__iterations=4), tmp_path)
    same(finished[1], loop.train(runs.attgan(faces), tmp_path))


def test_sigterm_saves_and_ends(faces, tmp_path, monkeypatch, finished, caplog):
    iterate = Executor.iterate

    def signalled(self, state, batches, number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return iterate(self, state, batches, number)

    monkeypatch.setattr(Executor, "iterate", signalled)
    stopped = threading.Event()
    state = loop.train(runs.attgan(faces), tmp_path, stopped=stopped)
    assert int(state.step) == 3
    assert stopped.is_set()
    assert "saved at step 3" in caplog.text
    assert (tmp_path / "checkpoints" / "3").is_dir()
    monkeypatch.undo()
    stopped.clear()
    same(finished[1], loop.train(runs.attgan(faces), tmp_path, stopped=stopped))
    assert not stopped.is_set()


def test_a_training_that_sigterm_stopped_has_an_exit_code_of_its_own(tmp_path, monkeypatch):
    for ends, code in ((lambda stopped: stopped.set(), 75), (lambda stopped: None, 0)):
        monkeypatch.setattr(loop, "train", lambda config, workdir, *, stopped, ends=ends: ends(stopped))
        assert cli.main(["train", "--config=classifier_synthetic", f"--workdir={tmp_path}"]) == code


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint_named(faces, tmp_path, monkeypatch):
    iterate = Executor.iterate

    def poisoned(self, state, batches, number):
        state, metrics = iterate(self, state, batches, number)
        if number == 4:
            params = jax.tree.map(lambda x: x * np.nan, state.variables["params"])
            state = state.replace(variables={**state.variables, "params": params})
        return state, metrics

    monkeypatch.setattr(Executor, "iterate", poisoned)
    with pytest.raises(UserError, match=r"is not finite.*last good checkpoint is step 4 in"):
        loop.train(runs.attgan(faces), tmp_path)
    assert checkpoint.find(tmp_path / "checkpoints").name == "4"


def test_a_workdir_of_another_config_or_of_something_else_is_refused(finished, faces, tmp_path):
    workdir, _ = finished
    with pytest.raises(UserError, match=r"another config, which differs in critic_updates, seed; give"):
        loop.train(runs.attgan(faces, seed=1, critic_updates=3), workdir)
    with pytest.raises(UserError, match=r"another config, which differs in .*method"):
        loop.train(runs.classifier(faces), workdir)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="not empty and holds no run"):
        loop.train(runs.attgan(faces), tmp_path)


def test_the_best_checkpoint_is_the_one_with_the_highest_score(faces, tmp_path, monkeypatch):
    from faceattr_jax.evaluation import validation

    scores = iter([0.5, 0.9, 0.7])

    def scripted(config, source):
        return lambda method, variables: ({"score": next(scores)}, {})

    monkeypatch.setattr(validation, "edits", scripted)
    loop.train(runs.attgan(faces, train__evaluate_every=2), tmp_path)
    assert [p.name for p in (tmp_path / "best").iterdir()] == ["4"]
    assert checkpoint.find(tmp_path) == tmp_path / "best" / "4"


def test_eight_devices_train_like_one(faces, tmp_path, monkeypatch, finished):
    """The batch is split over all forced devices; the losses of the first iteration agree with one device's."""
    from faceattr_jax.training import distributed

    def first(workdir: Path) -> dict[str, float]:
        rows = [row.split(",") for row in (workdir / "metrics.csv").read_text().splitlines()[1:]]
        return {row[1]: float(row[2]) for row in rows if row[0] == "1"}

    one = distributed.mesh(jax.devices()[:1])
    monkeypatch.setattr(distributed, "mesh", lambda: one)
    loop.train(runs.attgan(faces, train__iterations=1), tmp_path)
    monkeypatch.undo()
    assert distributed.mesh().size == 8
    eight, single = first(finished[0]), first(tmp_path)
    np.testing.assert_allclose([eight[k] for k in single], [*single.values()], rtol=1e-4, atol=1e-4)


def test_one_device_restores_what_eight_saved(finished, faces, monkeypatch):
    from faceattr_jax.training import distributed

    workdir, state = finished
    one = distributed.mesh(jax.devices()[:1])
    monkeypatch.setattr(distributed, "mesh", lambda: one)
    restored = loop.train(runs.attgan(faces), workdir)
    assert restored.step.sharding.device_set == {jax.devices()[0]}
    same(state, restored)
