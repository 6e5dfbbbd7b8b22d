"""Swapping: the library's door and the command, with an untrained model."""

import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax import photos
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import build
from tests import checks, runs
from tests.checks import quick


@pytest.fixture(scope="module")
def editor():
    tiny = {"model.width": "2", "model.encoder": "(1, 2, 4)", "image_size": "32", "crop": "none"}
    method = build(configs.load("elegant_128:released", {**tiny, "attributes": ",".join(runs.ATTRIBUTES)}))
    return Editor(method, checks.fresh(method).inference_variables)


@pytest.fixture(scope="module")
def faces_():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def test_swap_linear_and_matrix(editor, faces_):
    face, *others = faces_
    swapped = editor.swap(face, others[0], ["Bangs", "Male"])
    x, r = (jnp.asarray(f[None] / 127.5 - 1, jnp.float32) for f in (face, others[0]))
    by_hand = quick(editor.method.swap)(editor.variables, x, r, jnp.array([1, 0, 1]))
    np.testing.assert_allclose(swapped, by_hand[0], atol=1e-5)
    several = editor.swap(faces_[:2], faces_[None, 2:].repeat(2, 0), ["Bangs", "Male"])
    np.testing.assert_allclose(several, editor.swap(faces_[:2], faces_[2:], ["Bangs", "Male"]), atol=1e-5)
    line = editor.linear(face, others[:1], ["Bangs", "Male"], (0, 0.5, 1))
    np.testing.assert_allclose(line[0], editor.reconstruct(face), atol=1e-5)
    np.testing.assert_allclose(line[2], swapped, atol=1e-5)
    of_one = editor.matrix(face, others[:2], ["Male"], (0, 1))
    np.testing.assert_allclose(of_one[0, 1], editor.swap(face, others[0], ["Male"]), atol=1e-5)
    of_two = editor.matrix(face, others[:2], ["Bangs", "Male"], (0, 1))
    np.testing.assert_allclose(of_two[1, 1], editor.swap(face, others[:2], ["Bangs", "Male"]), atol=1e-5)
    np.testing.assert_allclose(of_two[1, 0], editor.swap(face, others[0], ["Bangs"]), atol=1e-5)


def test_mistakes(editor, faces_):
    face, *others = faces_
    with pytest.raises(UserError, match="3 references for 2 attributes"):
        editor.swap(face, others, ["Bangs", "Male"])
    with pytest.raises(UserError, match="did you mean 'Bangs'"):
        editor.swap(face, others[:1], ["Bnags"])
    with pytest.raises(UserError, match="do not fit"):
        editor.swap(faces_[:2], faces_[:3], ["Bangs"])
    with pytest.raises(UserError, match="two or three references"):
        editor.matrix(face, others[:1], ["Bangs"], (0, 1))
    with pytest.raises(UserError, match="cannot edit; it can reconstruct, swap"):
        editor.edit(face, {"Bangs": 1})


def test_files(editor, faces, tmp_path):
    pictures = [faces / f"{i:03}.png" for i in range(3)]
    swap = [photos.swap_files, editor, pictures[0], pictures[1:], "Bangs,Male", tmp_path]
    call, *arguments = swap
    assert [p.name for p in call(*arguments)] == ["000.swapped.png"]
    assert [p.name for p in call(*arguments, linear=3)] == ["000.linear.png"]
    assert [p.name for p in call(*arguments, matrix=2)] == ["000.matrix.png"]
    with pytest.raises(UserError, match="would be overwritten"):
        call(*arguments)
    with pytest.raises(UserError, match="lead nowhere"):
        call(*arguments, linear=1)


def test_command(monkeypatch, editor, faces, tmp_path, capsys):
    from faceattr_jax import cli

    monkeypatch.setattr("faceattr_jax.training.compilation_cache.enable", lambda folder: 0)
    monkeypatch.setattr("faceattr_jax.editor.load", lambda path: editor)
    argv = ["swap", f"{faces}/000.png", f"{faces}/001.png", "--attributes=Bangs", "--checkpoint=x", f"--out={tmp_path}"]
    assert cli.main(argv) == 0
    assert (tmp_path / "000.swapped.png").exists()
    assert cli.main([*argv[:-3], "--attributes=Hat", *argv[-2:]]) == 2
