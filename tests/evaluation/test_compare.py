"""Runs on one page: the same faces, the same edits, the exact truth."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import embedders, opening, run
from faceattr_jax.evaluation.compare import compare
from faceattr_jax.evaluation.editors import Widened
from faceattr_jax.evaluation.opening import Resized


class Table(SimpleNamespace):
    def __len__(self):
        return len(self.labels)


class Stub:
    """A method of known behaviour: what `edits` and `judge` do."""

    def __init__(self, attributes, edits=None, judge=None, towards=None):
        self.attributes, self.towards = tuple(attributes), towards or {}
        self.capabilities = frozenset({"edit"} if edits else {"classify"})
        self._edits, self._judge = edits, judge

    def edit(self, variables, images, request):
        return self._edits(images, request.source, request.target, request.strength)

    def reconstruct(self, variables, images, labels):
        return images

    def classify(self, variables, images):
        return self._judge.classify(images)


def loaded(method, path, size=16, data="drawn"):
    config = ConfigDict(
        {"method": path, "image_size": size, "crop": "none", "data": {"path": data}, "evaluation": {"judge": ""}}
    )
    return SimpleNamespace(
        method=method, variables={"params": {}}, config=config, size=size, crop="none", path=Path(path),
        attributes=method.attributes,
    )  # fmt: skip


@pytest.fixture
def page(fake, monkeypatch):
    """Runs of a perfect editor of two attributes, of one that changes nothing and knows three, of one that gives."""
    source = fake.Drawn()
    source.table = Table(**vars(source.table), indices=lambda split: np.arange(24))
    paints = fake.Perfect(source, ("Eyeglasses", "Male"))
    give = {"Eyeglasses": 1}
    models = {
        "perfect": Stub(paints.attributes, lambda x, a, b, s: jax.pure_callback(
            lambda *args: np.asarray(paints.edit(*map(jnp.asarray, args)), np.float32),
            jax.ShapeDtypeStruct(x.shape, x.dtype), x, a, b, s)),
        "idle": Stub(("Male", "Eyeglasses", "Black_Hair"), lambda x, a, b, s: x + 0.0),
        "giver": Stub(("Eyeglasses",), lambda x, a, b, s: x + 0.0, towards=give),
        "other": Stub(("Blond_Hair",), lambda x, a, b, s: x + 0.0),
        "judge": Stub(fake.NAMES, judge=fake.Judge()),
        "narrow": Stub(("Male",), judge=fake.Judge()),
    }  # fmt: skip
    monkeypatch.setattr(opening, "load", lambda path: loaded(models[path], path))
    monkeypatch.setattr(opening, "open_source", lambda path, size, crop: source)
    monkeypatch.setattr(embedders, "faces", lambda crop, *names: "no weights here")
    return models


def test_a_perfect_editor_beside_an_idle_one(page, tmp_path):
    found = compare(["perfect", "idle"], tmp_path, judge="judge")
    assert found["attributes"] == ["Eyeglasses", "Male"]
    assert found["shared_cells"] == ["Eyeglasses=1", "Eyeglasses=0", "Male=1", "Male=0"]
    perfect, idle = (run["shared"] for run in found["runs"])
    assert (perfect["accuracy"], perfect["untouched_change"], perfect["region_ratio"]) == (1, 0, pytest.approx(0))
    assert (idle["accuracy"], idle["untouched_change"], idle["region_ratio"]) == (0, 0, 1)
    assert found["unedited"]["shared"]["accuracy"] == 0
    assert found["runs"][0]["person"] == "no weights here"
    assert json.loads((tmp_path / "comparison.json").read_text()) == found
    text = (tmp_path / "comparison.md").read_text()
    assert "| 0: perfect, 16 px | 24 | 1.000 | 0.000 |" in text
    assert "data:image/png" in (tmp_path / "comparison.html").read_text()


def test_who_is_still_the_same_person(page, monkeypatch, tmp_path):
    """By pixels so far apart that every change is beyond dlib's threshold, and a copy is not."""
    dlib = embedders.Embedder("dlib", "0" * 64, "", lambda x: 1e3 * x.reshape(len(x), -1))
    monkeypatch.setattr(embedders, "faces", lambda crop, *names: dlib)
    found = compare(["perfect", "idle"], tmp_path, judge="judge")
    assert [run["shared"]["same_person"] for run in found["runs"]] == [0, 1]
    assert found["unedited"]["cells"]["Male=1"]["same_person"] is None
    assert all("unedited" not in run for run in found["runs"])
    assert 'alt="Accuracy against identity"' in (tmp_path / "comparison.html").read_text()


def test_accuracy_while_training_is_drawn_where_runs_wrote_it_down(page, monkeypatch, tmp_path):
    (tmp_path / "run" / "best" / "4").mkdir(parents=True)
    rows = "step,name,value\n2,valid/attribute_accuracy,0.25\n2,generator/change,3.0\n4,valid/attribute_accuracy,0.5\n"
    (tmp_path / "run" / "metrics.csv").write_text(rows)
    kept = opening.load
    paths = {"perfect": tmp_path / "run" / "best" / "4", "idle": tmp_path / "nowhere"}
    monkeypatch.setattr(
        opening, "load", lambda path: SimpleNamespace(**{**vars(kept(path)), "path": paths.get(path, path)})
    )
    found = compare(["perfect", "idle"], tmp_path / "out", judge="judge", images=10)
    assert found["runs"][0]["progress"] == {"iterations": [2, 4], "accuracy": [0.25, 0.5]}
    assert found["runs"][1]["progress"] == {"iterations": [], "accuracy": []}
    text = (tmp_path / "out" / "comparison.html").read_text()
    assert "Accuracy while they trained" in text
    assert 'alt="accuracy while training"' in text


def test_means_are_over_what_all_can_do(page, tmp_path):
    found = compare(["idle", "giver"], tmp_path, judge="judge", images=10)
    assert found["shared_cells"] == ["Eyeglasses=1"]
    assert list(found["runs"][0]["cells"]) == ["Eyeglasses=1", "Eyeglasses=0"]
    assert list(found["runs"][1]["cells"]) == ["Eyeglasses=1"]
    faces = [run["cells"]["Eyeglasses=1"]["faces"] for run in found["runs"]]
    assert faces[0] == faces[1] == found["runs"][1]["faces"]


def test_what_does_not_go_together(page, tmp_path, monkeypatch):
    for runs, judge, message in (
        (["perfect"], "judge", "takes two runs or more"),
        (["perfect", "judge"], "judge", "edits no faces"),
        (["perfect", "other"], "judge", "no attribute in common \\(perfect: Eyeglasses, Male; other: Blond_Hair\\)"),
        (["perfect", "idle"], "narrow", "the judge does not know Eyeglasses"),
        (["perfect", "idle"], "idle", "reads no attributes"),
        (["perfect", "idle"], "", "give --judge"),
    ):
        with pytest.raises(UserError, match=message):
            compare(runs, tmp_path / "out", judge=judge)
    with pytest.raises(UserError, match="a classifier that had no part in its training: give --judge=WORKDIR"):
        run.evaluate(Path("idle"), tmp_path / "out")
    kept = opening.load
    monkeypatch.setattr(opening, "load", lambda path: loaded(page[path], path, data=path))
    with pytest.raises(UserError, match="trained on perfect and idle: say with --data"):
        compare(["perfect", "idle"], tmp_path / "out", judge="judge")
    monkeypatch.setattr(opening, "load", kept)
    assert not (tmp_path / "out").exists()


def test_a_judge_of_another_size_sees_resized_pictures(page, monkeypatch, tmp_path):
    monkeypatch.setattr(opening, "load", lambda path: loaded(page[path], path, 8 if path == "judge" else 16))
    with pytest.raises(UserError, match="none crops of 8 px, the editor makes none crops of 16 px"):
        opening.open_judge(opening.open_run("idle"), "judge")
    judge, about = opening.open_judge(opening.open_run("idle"), "judge", resize=True)
    assert isinstance(judge, Resized)
    assert about["resized"] == "from 16 px to 8, antialiased"
    seen = Resized(SimpleNamespace(attributes=(), embeds=False, classify=lambda x: x), 8)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    halved = seen.classify(jnp.asarray(images))
    # Antialiased bilinear halving is the tent of width 4, whose weights inside are 1/8, 3/8, 3/8, 1/8.
    tent = np.array([1, 3, 3, 1]) / 8
    inner = np.einsum("i,j,bijc->bc", tent, tent, images[:, 3:7, 5:9])
    np.testing.assert_allclose(halved[:, 2, 3], inner, atol=1e-6)


def test_a_judge_of_a_narrower_crop_sees_its_own_square(page, monkeypatch):
    crops = {"judge": "vaegan148", "idle": "center178"}

    def load(path):
        found = loaded(page[path], path)
        found.crop = crops[path]
        return found

    monkeypatch.setattr(opening, "load", load)
    drawn = opening.open_run("idle")
    judge, _ = opening.open_judge(drawn, "judge", resize=True)
    assert not isinstance(judge, Resized), "drawn faces are not cropped"
    photographs = SimpleNamespace(model=drawn.model, source=SimpleNamespace())
    judge, about = opening.open_judge(photographs, "judge", resize=True)
    # Rows 40 to 188 and columns 15 to 163 of the picture of which center178 keeps rows 20 to 198.
    np.testing.assert_allclose(judge._square, (20 / 178, 15 / 178, 148 / 178))
    assert about["resized"] == "from 16 px to 16 of vaegan148 crops, antialiased"
    crops.update(judge="none")
    with pytest.raises(UserError, match="looks at none crops of 16 px, the editor makes center178"):
        opening.open_judge(photographs, "judge", resize=True)
    crops.update(judge="center178", idle="vaegan148")
    narrow = SimpleNamespace(model=load("idle"), source=SimpleNamespace())
    with pytest.raises(UserError, match="looks at center178 crops, of which vaegan148 shows a part"):
        opening.open_judge(narrow, "judge", resize=True)


def test_widened_asks_for_its_own_columns():
    inner = SimpleNamespace(
        attributes=("B", "A"), edit=lambda x, a, b, s: (a, b), reconstruct=lambda x, a: a, swap=lambda x, r, m: m
    )
    wide = Widened(inner, ("A", "C", "B"))
    own, target = jnp.array([[1, 2, 3]]), jnp.array([[4, 5, 6]])
    got = wide.edit(None, own, target, 1.0)
    assert [x.tolist() for x in got] == [[[3, 1]], [[6, 4]]]
    assert wide.reconstruct(None, own).tolist() == wide.swap(None, None, own).tolist() == [[3, 1]]
