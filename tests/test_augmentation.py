"""The augmentation study: what is trained on, and the table of the gain."""

import json
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import augmentation, cli
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.data.source import open_source
from faceattr_jax.errors import UserError
from faceattr_jax.training import distributed
from tests import checks, runs


@pytest.fixture(scope="module")
def editor(faces):
    return runs.fresh(runs.attgan(faces))


def test_edits_follow_the_pictures(faces, editor):
    source = open_source(str(faces), size=32, crop="none")
    augmented = augmentation.Augmented(source, editor)
    table, train = augmented.table, source.table.indices("train")
    assert len(table) == len(source.table) + 3 * len(train)
    for split in ("valid", "test"):  # real ones alone
        np.testing.assert_array_equal(table.indices(split), source.table.indices(split))
    own = source.table.select(runs.ATTRIBUTES)
    flipped = np.abs(np.repeat(own[train], 3, axis=0) - np.tile(np.eye(3), (len(train), 1)))
    np.testing.assert_array_equal(table.labels[len(own) :], flipped)

    shown = np.array([2, len(own) + 4, 0, len(own)])
    pixels = augmented.images(shown)
    np.testing.assert_array_equal(pixels[[0, 2]], source.images(shown[[0, 2]]))
    for at, face, name in ((1, train[1], "Eyeglasses"), (3, train[0], "Bangs")):
        value = 1 - own[face, runs.ATTRIBUTES.index(name)]
        images = to_float(jnp.asarray(source.images(np.array([face]))))
        edited = editor.edit(images, {name: int(value)}, source=own[face][None])
        np.testing.assert_allclose(pixels[at], np.asarray(to_uint8(edited))[0], atol=1)


def test_one_direction_alone(faces, editor, monkeypatch):
    source = open_source(str(faces), size=32, crop="none")
    monkeypatch.setattr(type(editor.method), "towards", {"Male": 1})
    table = augmentation.Augmented(source, editor).table
    train = source.table.indices("train")
    lacking = int((source.table.select(["Male"])[train] == 0).sum())
    assert len(table) == len(source.table) + 2 * len(train) + lacking


def test_the_gain_by_hand():
    def one(accuracy, bald):
        return {"accuracy": accuracy, "balanced_accuracy": 0.5, "attributes": {"Bald": {"accuracy": bald}}}

    found = augmentation.summary([one(0.90, 0.5), one(0.92, 0.7)], [one(0.91, 0.5), one(0.95, 0.7)])
    # Gains of .01 and .03: mean .02, standard error .01, and t = 12.706 with one degree of freedom.
    gain = found["mean"]["accuracy"]["gain"]
    np.testing.assert_allclose(
        [gain[k] for k in ("mean", "low", "high")], [0.02, 0.02 - 0.12706, 0.02 + 0.12706], atol=1e-5
    )
    assert found["attributes"]["Bald"]["with"]["mean"] == pytest.approx(0.6)
    assert found["attributes"]["Bald"]["gain"] == {"mean": 0, "low": 0, "high": 0}
    counts = {"without": 10_000, "with": 140_000}
    about = {"data": "d", "editor": "e", "train_pictures": counts, "seeds": [0, 1], "iterations": 2500}
    text = augmentation.table({**found, **about})
    assert "| accuracy | 91.00 (78.29 to 103.71) | 93.00 (67.59 to 118.41) | +2.00 (-10.71 to +14.71) |" in text
    assert "| accuracy, in the paper | 93.78 | 94.64 | +0.86 |" in text


def test_from_one_command(faces, editor, tmp_path, capsys, monkeypatch):
    """Both trainings, two seeds, stopped once on the way."""
    monkeypatch.setattr(augmentation, "load", lambda path: editor)
    one = checks.one_device()
    monkeypatch.setattr(distributed, "mesh", lambda: one)
    out = tmp_path / "study"
    argv = ["study", "augment", "runs/fresh", "--config=classifier_synthetic", f"--out={out}", "--seeds=2"]
    small = {"model.widths": "(4,)", "model.fc": "4", "batch_size": "8", "train.iterations": "2"}
    argv += [f"--config.{key}={value}" for key, value in {**small, "optimizer.schedule": "()"}.items()]
    trained = []

    def interrupted(config, run, *, stopped):
        trained.append((run.name, config.seed, config.attributes, config.crop))
        if len(trained) == 2:
            stopped.set()
        elif len(trained) == 3:
            monkeypatch.setattr(augmentation, "train", kept)
        return kept(config, run, stopped=threading.Event())

    kept = augmentation.train
    monkeypatch.setattr(augmentation, "train", interrupted)
    assert cli.main(argv) == cli.STOPPED
    assert trained == [(f"{side}-0", 0, runs.ATTRIBUTES, "none") for side in ("without", "with")]
    assert cli.main(argv) == 0
    found = json.loads((out / "augmentation.json").read_text())
    assert found["train_pictures"] == {"without": 24, "with": 24 * 4}
    assert list(found["attributes"]) == list(runs.ATTRIBUTES)
    assert json.loads((out / "with-1/config.json").read_text())["data"]["path"] == str(out / "data")
    reports = [json.loads((out / f"{name}/evaluation/evaluation.json").read_text()) for name in ("with-0", "with-1")]
    assert found["mean"]["accuracy"]["with"]["mean"] == pytest.approx(np.mean([r["accuracy"] for r in reports]))
    assert {r["protocol"]["data"] for r in reports} == {f"{faces}, test split, 12 images"}
    assert (out / "augmentation.md").read_text() in capsys.readouterr().out


def test_what_is_no_study(faces, editor, tmp_path, monkeypatch):
    classifier = runs.classifier(faces)
    for model, config, seeds, message in (
        (runs.fresh(classifier), classifier, 3, "a classifier model edits no faces"),
        (editor, editor.config, 3, "--config=attgan is no classifier"),
        (editor, classifier, 1, "--seeds=1 gives no interval"),
    ):
        monkeypatch.setattr(augmentation, "load", lambda path, model=model: model)
        with pytest.raises(UserError, match=message):
            augmentation.augment("runs/x", config, tmp_path / "out", seeds=seeds)
    assert not (tmp_path / "out").exists()
