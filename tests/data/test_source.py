import dataclasses

import numpy as np
import pytest

from faceattr_jax.data.source import Table, kind, open_source
from faceattr_jax.errors import UserError

TABLE = Table(
    attributes=("Bald", "Male", "Young"),
    labels=np.array([[0, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]], bool),
    split=np.array([0, 2, 1, 0], np.int8),
    names=["a", "b", "c", "d"],
)


def test_select_gives_labels_in_the_asked_order():
    selected = TABLE.select(["Young", "Bald"])
    assert selected.dtype == np.float32
    assert selected.tolist() == [[1, 0], [0, 1], [1, 0], [0, 0]]
    with pytest.raises(UserError, match="did you mean 'Male'"):
        TABLE.select(["Mal"])


def test_indices_of_splits():
    assert TABLE.indices("train").tolist() == [0, 3]
    assert TABLE.indices("valid").tolist() == [2]
    assert TABLE.indices("test").tolist() == [1]
    assert TABLE.indices("all").tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="did you mean 'valid'"):
        TABLE.indices("validation")


def test_people_are_counted_from_0_over_those_at_the_indices():
    table = dataclasses.replace(TABLE, identity=np.array([40, 7, 30, 40]))
    assert table.people(np.array([0, 2])).tolist() == [1, -1, 0, 1]
    assert table.people(table.indices("all")).tolist() == [2, 0, 1, 2]
    assert table.people(np.array([1])).tolist() == [-1, 0, -1, -1]
    with pytest.raises(UserError, match="do not say who is on a picture"):
        TABLE.people(np.array([0]))


def test_the_kind_is_found_by_content(celeba, tmp_path):
    assert kind("synthetic") == kind("synthetic:10:3") == "synthetic"
    assert kind(str(celeba)) == "celeba"
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "labels.csv").touch()
    assert kind(str(tmp_path / "csv")) == "csv"
    (tmp_path / "tfds" / "celeb_a").mkdir(parents=True)
    assert kind(str(tmp_path / "tfds")) == "tfds"
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "prepared.json").touch()
    assert kind(str(tmp_path / "prepared")) == "prepared"


def test_what_cannot_be_opened_is_refused(tmp_path):
    def refused(path, says):
        with pytest.raises(UserError, match=says):
            open_source(str(path), size=64)

    refused(tmp_path / "absent", "there is no folder")
    refused(tmp_path, "is empty; it should hold CelebA's own layout")
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path, "nothing in the folder")
    refused(tmp_path / "notes.txt", "is a file; give the folder")
    refused("synthetic:many", "write synthetic:COUNT:SEED")
    refused("synthetic:0", "write synthetic:COUNT:SEED")
    refused("synthetic:5:1:2:3", "write synthetic:COUNT:SEED:SHIFT")


def test_what_a_set_of_drawn_faces_is_told_is_passed_on():
    source = open_source("synthetic:60:7", size=32)
    assert len(source.table) == 60
    assert source.size == 32
    again, other = open_source("synthetic:60:7", size=32), open_source("synthetic:60:8", size=32)
    np.testing.assert_array_equal(source.table.labels, again.table.labels)
    assert (source.table.labels != other.table.labels).any()
    moved = open_source("synthetic:60:7:20", size=32)
    np.testing.assert_array_equal(moved.table.labels, source.table.labels)
    assert np.ptp(moved.table.landmarks[:, 0], 0).min() > 2 * np.ptp(source.table.landmarks[:, 0], 0).max()


def test_an_unknown_crop_is_refused_when_opened(intact_celeba):
    with pytest.raises(UserError, match="did you mean 'center178'"):
        open_source(str(intact_celeba), size=64, crop="centre178")
