"""Checkpoints that are damaged, absent, or have no room."""

import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import faceattr_jax as fj
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import build
from faceattr_jax.training import checkpoint, loop
from faceattr_jax.training.checkpoint import Checkpoints
from tests import checks, runs


@pytest.fixture(scope="module")
def run(faces, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    loop.train(runs.attgan(faces, train__iterations=4, train__evaluate_every=0), workdir)
    return workdir


@pytest.fixture
def state(run):
    """A fresh one, on one device."""
    return checks.fresh(_method(run))


@functools.cache
def _method(run):
    return build(checkpoint.read_config(checkpoint.find(run)))


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_load_reads_what_was_saved(run):
    editor = fj.load(run)
    assert editor.attributes == runs.ATTRIBUTES
    assert (editor.size, editor.crop) == (32, "none")
    assert editor.path == run / "checkpoints" / "4"
    assert fj.load(run / "checkpoints" / "2").path.name == "2"


def test_find_where_there_is_nothing(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="there is no checkpoint here"):
            checkpoint.find(path)


@pytest.mark.parametrize("item", ["state/d", "state/manifest.ocdbt", "config/metadata"])
def test_a_half_deleted_checkpoint_is_named(copied, faces, item):
    target = copied / "checkpoints" / "4" / item
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(UserError, match=r"checkpoints/4: this checkpoint is incomplete or damaged.*delete the folder"):
        fj.load(copied)
    if not item.startswith("config"):
        with pytest.raises(UserError, match=r"checkpoints/4: this checkpoint is incomplete"):
            loop.train(runs.attgan(faces, train__iterations=6), copied)
    shutil.rmtree(copied / "checkpoints" / "4")
    assert fj.load(copied).path.name == "2"


def test_a_checkpoint_that_lacks_a_network_is_another_versions(run, state):
    newer = {**state.variables["params"], "critic2": {"bias": jnp.zeros(3)}}
    like = state.replace(variables={**state.variables, "params": newer})
    with pytest.raises(UserError, match=r"checkpoints/4: .* has no variables/params/critic2/bias; another version"):
        checkpoint.read_variables(checkpoint.find(run), like)


def test_a_full_disk_leaves_the_last_good_checkpoint(run, state, tmp_path, monkeypatch):
    """Whatever Orbax raises while it writes becomes one sentence, and the older steps stay."""
    config = checkpoint.read_config(checkpoint.find(run))
    checkpoints = Checkpoints(tmp_path, config, keep=2)
    checkpoints.save(1, state)
    checkpoints.wait()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._last, "save", full)
    with pytest.raises(UserError, match=r"step 2 could not be written.*No space left.*last good one is step 1"):
        checkpoints.save(2, state)
    checkpoints.close()
    assert checkpoint.find(tmp_path).name == "1"


def test_kept_steps_best_and_scores(tmp_path, run, state):
    config = checkpoint.read_config(checkpoint.find(run))
    checkpoints = Checkpoints(tmp_path, config, keep=2)
    assert checkpoints.latest_step is None
    for step in (1, 2, 3):
        checkpoints.save(step, state)
    assert checkpoints.save_best(1, state, 0.5, "score")
    assert not checkpoints.save_best(2, state, 0.5, "score")
    assert checkpoints.save_best(3, state, 0.6, "score")
    checkpoints.wait()
    assert checkpoints.latest_step == 3
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]
    assert [p.name for p in (tmp_path / "best").iterdir()] == ["3"]
    again = Checkpoints(tmp_path, config, keep=2)
    assert again.best_score == 0.6
    again.close()


def test_the_state_may_be_donated_while_it_is_saved(tmp_path, run, state):
    config = checkpoint.read_config(checkpoint.find(run))
    expected = jax.device_get(state)
    expected = jax.tree.map(np.array, expected)
    checkpoints = Checkpoints(tmp_path, config, keep=2)
    checkpoints.save(1, state)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    for _ in range(5):
        state = overwrite(state)
    jax.block_until_ready(state)
    checkpoints.wait()
    restored = checkpoints.restore(like)
    jax.tree.map(np.testing.assert_array_equal, expected, jax.device_get(restored))
    assert float(jnp.max(jax.tree.leaves(state)[0])) == -1
    checkpoints.close()
