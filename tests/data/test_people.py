"""A folder for each person, as CASIA-WebFace has them."""

import numpy as np
import pytest

from faceattr_jax.data.check import check
from faceattr_jax.data.prepare import prepare
from faceattr_jax.data.source import kind, open_source
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.training import loop
from tests import runs

PEOPLE, EACH = 60, 3


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return runs.make_people(tmp_path_factory.mktemp("data") / "people", PEOPLE, EACH)


def test_people_have_identities_and_whole_people_are_dealt_to_splits(people):
    assert kind(str(people)) == "people"
    table = open_source(str(people), size=16, crop="none").table
    assert table.attributes == ()
    assert table.select(()).shape == (PEOPLE * EACH, 0)
    assert table.names == sorted(table.names)
    who = {name: name.partition("/")[0] for name in table.names}
    assert len(np.unique(table.identity)) == PEOPLE
    assert len({*zip(table.identity.tolist(), who.values(), strict=True)}) == PEOPLE
    assert len({*zip(table.split.tolist(), who.values(), strict=True)}) == PEOPLE
    shares = np.bincount(table.split, minlength=3) / len(table)
    assert 0.6 < shares[0] < 0.95
    assert shares[1:].min() > 0


def test_splits_and_numbers_stay_when_people_come(people, tmp_path):
    fewer = runs.make_people(tmp_path / "fewer", PEOPLE // 2, EACH)
    known, more = (open_source(str(folder), size=16, crop="none").table for folder in (fewer, people))
    place = [more.names.index(name) for name in known.names]
    np.testing.assert_array_equal(known.split, more.split[place])
    np.testing.assert_array_equal(known.identity, more.identity[place])


def test_a_prepared_copy_is_the_same(people, tmp_path):
    prepare(str(people), tmp_path / "out", size=16, crop="none")
    one, other = (open_source(str(folder), size=16, crop="none") for folder in (people, tmp_path / "out"))
    np.testing.assert_array_equal(one.table.identity, other.table.identity)
    np.testing.assert_array_equal(one.images(np.arange(5)), other.images(np.arange(5)))


def test_check_counts_people_and_lists_what_is_wrong(tmp_path):
    folder = runs.make_people(tmp_path / "people", 4, 2)
    report = check(str(folder))
    assert not report.problems
    assert [report.format().splitlines()[3].split()[i] for i in (0, -1)] == ["people", "4"]
    assert "attribute" not in report.format()
    deep = folder / "000001" / "more"
    deep.mkdir()
    (folder / "000001" / "0.png").rename(deep / "0.png")
    (folder / "000002" / "0.png").write_bytes(b"no picture")
    problems = check(str(folder)).problems
    assert len(problems) == 2
    assert "more/0.png' is in no person's folder" in problems[0]
    assert "000002/0.png' is not a picture" in problems[1]
    with pytest.raises(UserError, match="a picture's place is PERSON/IMAGE"):
        open_source(str(folder), size=16, crop="none")


def test_other_folders_are_none_of_people(people, faces, tmp_path):
    assert kind(str(faces)) == "csv"
    folder = runs.make_people(tmp_path / "people", 1, 2)
    with pytest.raises(UserError, match="a folder of pictures for each person"):
        kind(str(folder))  # one person
    runs.make_people(folder, 2, 2)
    assert kind(str(folder)) == "people"
    (folder / "cover.JPG").touch()
    with pytest.raises(UserError, match="nothing in the folder"):
        kind(str(folder))


def test_a_recogniser_is_trained_and_measured_on_people(people, tmp_path):
    config = runs.recognizer(str(people), crop="none", model__people=50, train__iterations=2)
    loop.train(config, tmp_path / "run")
    assert evaluate(tmp_path / "run", tmp_path / "out", split="valid").keys() >= {"rank1", "verification"}
    with pytest.raises(UserError, match="unknown attribute"):
        loop.train(runs.classifier(people), tmp_path / "judge")
