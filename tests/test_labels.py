"""Labelling: what a classifier reads off a folder, as a CSV that is a source again."""

import csv
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from faceattr_jax import cli, photos
from faceattr_jax.data import folder as folders
from faceattr_jax.data.source import open_source
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import build
from faceattr_jax.training.state import init_state
from tests import runs

COUNT = 10


@pytest.fixture(scope="module")
def judge(faces):
    method = build(runs.classifier(faces, image_size=16))
    return Editor(method, jax.jit(lambda: init_state(method, 3).inference_variables)())


@pytest.fixture
def unlabelled(tmp_path):
    """Ten pictures, in a folder and in folders of it; the names want quoting."""
    folder = runs.make_faces(tmp_path / "data", COUNT)
    (folder / "labels.csv").unlink()
    (folder / "more, of them").mkdir()
    for name in ("003.png", "004.png"):
        (folder / name).rename(folder / "more, of them" / name)
    return folder


@pytest.fixture
def command(monkeypatch, judge):
    monkeypatch.setattr("faceattr_jax.training.compilation_cache.enable", lambda folder: 0)
    monkeypatch.setattr("faceattr_jax.editor.load", lambda path: judge)
    return lambda *argv: cli.main(["data", "label", *map(str, argv), "--judge=x"])


@pytest.mark.parametrize("batch_size", [4, 256])
def test_the_labels_are_a_source_with_the_same_predictions(judge, unlabelled, tmp_path, batch_size):
    out, chances = unlabelled / "labels.csv", tmp_path / "chances.csv"
    found = photos.label_folder(judge, unlabelled, out, probabilities=chances, batch_size=batch_size)
    assert found == (COUNT, [])
    source = open_source(str(unlabelled), size=judge.size, crop=judge.crop)
    assert source.table.attributes == runs.ATTRIBUTES
    assert source.table.identity is None
    assert sorted(source.table.names) == sorted(folders.pictures(unlabelled))
    expected = np.asarray(judge.classify(source.images(np.arange(COUNT))))
    np.testing.assert_array_equal(source.table.labels, expected > 0.5)
    assert 0 < source.table.labels.mean() < 1
    header, *rows = csv.reader(chances.read_text().splitlines())
    assert header == ["file", *runs.ATTRIBUTES]
    assert [row[0] for row in rows] == source.table.names
    np.testing.assert_allclose(np.array([row[1:] for row in rows], float), expected, atol=1e-4)


def test_people_keep_their_numbers_and_splits(judge, tmp_path):
    people = runs.make_people(tmp_path / "people")
    before = open_source(str(people), size=16, crop="none").table
    photos.label_folder(judge, people, people / "labels.csv")
    after = open_source(str(people), size=16, crop="none").table
    assert after.attributes == runs.ATTRIBUTES
    assert after.names == before.names
    np.testing.assert_array_equal(after.identity, before.identity)
    np.testing.assert_array_equal(after.split, before.split)


def test_the_command_writes_what_can_be_read_and_lists_the_rest(command, unlabelled, tmp_path, capsys):
    (unlabelled / "000.png").write_bytes(b"no picture")
    Image.new("RGB", (32, 20)).save(unlabelled / "001.png")
    out = tmp_path / "labels.csv"
    assert command(unlabelled, f"--out={out}") == 2
    said = capsys.readouterr()
    assert len(out.read_text().splitlines()) == 1 + COUNT - 2
    problems = [line for line in said.out.splitlines() if line.startswith("problem: ")]
    assert "000.png' is not a picture" in problems[0]
    assert "001.png': crop 'none' is for square pictures, not 32x20" in problems[1]
    assert len(problems) == 2
    assert said.err == f"faceattr: {out}: written without 2 pictures, listed above.\n"
    other = tmp_path / "other.csv"
    assert command(unlabelled, f"--out={other}", "--crop=center") == 2
    assert "written without 1 picture, " in capsys.readouterr().err
    (unlabelled / "000.png").unlink()
    other.unlink()
    assert command(unlabelled, f"--out={other}", "--crop=center") == 0
    assert "other.csv: 9 pictures" in capsys.readouterr().out


def test_mistakes_leave_nothing_behind(command, unlabelled, faces, tmp_path, capsys):
    def refused(says, *argv):
        before = sorted(tmp_path.rglob("*"))
        assert command(*argv) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]
        assert sorted(tmp_path.rglob("*")) == before

    out = f"--out={tmp_path / 'out.csv'}"
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").touch()
    refused("there is no folder", tmp_path / "absent", out)
    refused("there is no picture in", tmp_path / "empty", out)
    refused("would be overwritten", unlabelled, f"--out={tmp_path / 'there.csv'}")
    refused("would be overwritten", unlabelled, out, f"--probabilities={tmp_path / 'there.csv'}")
    refused("would be overwritten", unlabelled, out, f"--probabilities={tmp_path / 'out.csv'}")
    refused("did you mean 'center'", unlabelled, out, "--crop=centre")
    shutil.rmtree(unlabelled / "more, of them")
    for picture in unlabelled.iterdir():
        picture.write_bytes(b"")
    refused("not written, because none of the pictures can be read", unlabelled, out)


def test_only_a_classifier_labels(unlabelled, tmp_path):
    method = build(runs.recognizer("synthetic:60"))
    with pytest.raises(UserError, match="a recognizer model cannot classify"):
        photos.label_folder(Editor(method, {}), unlabelled, tmp_path / "out.csv", crop="none")
