"""Protocols: the papers' numbers, what is measured against loops by hand, and what is skipped with a sentence."""

import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.config import load
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import (
    editing,
    embedders,
    features,
    identity,
    measures,
    opening,
    papers,
    protocol,
)
from faceattr_jax.evaluation.editors import CopyingEditor
from faceattr_jax.evaluation.embedders import Embedder
from faceattr_jax.evaluation.readers import Distributions, Gallery, Likeness, Varieties
from faceattr_jax.methods import base
from tests import runs

PAPERS = Path(__file__).resolve().parents[3] / "shared" / "papers"
# Fewer dimensions than faces, and sums of pixels that are not of unit length.
SIDE = 2


def small(images):
    return jax.image.resize(images, (len(images), SIDE, SIDE, 3), "linear").reshape(len(images), -1) + 3.0


@pytest.fixture
def network():
    def classify(images):
        return jax.nn.softmax(20 * small(images)[:, :4])

    return Embedder("lens", "0" * 64, f"resized to {SIDE} px", small, classify)


# The papers' numbers.


@pytest.mark.parametrize("name", protocol.names())
def test_published_numbers_are_in_the_papers_text(name):
    text = PAPERS / f"{name}.txt"
    if not text.is_file():
        pytest.skip(f"no text of the paper at {text}")
    found = {float(number) for number in re.findall(r"\d*\.\d+", text.read_text())}
    published = [
        value
        for measure in protocol.find(name).measures
        for numbers in measure.published.values()
        for value in numbers.values()
    ]
    assert len(published) == {"attgan": 3, "attribute_inverse": 20, "diat": 15, "elegant": 50, "slgan": 12}[name]
    for value in published:
        assert {value, round(100 * value, 2)} & found, value


def test_tables_have_the_papers_rows_under_the_right_heads():
    def published(name, title):
        return next(m.published for m in protocol.find(name).measures if m.title == title)

    fid = published("elegant", "FID")
    assert (fid["ELEGANT"]["Bangs=1"], fid["ELEGANT"]["Male=0"], fid["StarGAN"]["Male=0"]) == (30.71, 56.80, 206.21)
    assert published("attribute_inverse", "FID after PCA to 1024")["CycleGAN"]["Young"] == 38.1
    assert published("attribute_inverse", "DFN, mean")["paper"]["Eyeglasses"] == 0.94
    assert published("diat", "Attribute accuracy by task")["DIAT"]["Eyeglasses=0"] == 0.763
    assert published("diat", "Face verification")["DIAT"]["Mouth_Slightly_Open=0"] == 0.903
    assert published("slgan", "User study")["icGAN"]["guess"] == 0.654


def test_steps_are_configs_that_ship():
    from faceattr_jax import config as configs

    for name in protocol.names():
        found = protocol.find(name)
        for step in found.steps:
            configs.load(step.config, step.overrides)
        assert all(map(configs.load, found.configs))


# What readers gather, against loops.


def every(source, indices, model, name, value):
    """Inputs and edits as saved of faces whose label is `value`, one by one."""
    labels = source.table.select(source.table.attributes)
    chosen = [i for i in indices if labels[i, source.table.attributes.index(name)] == value]
    images = to_float(jnp.asarray(source.images(np.array(chosen))))
    own = jnp.asarray(labels[chosen])
    target = own.at[:, source.table.attributes.index(name)].set(1 - value)
    return images, to_float(to_uint8(model.edit(images, own, target, 1.0)))


@pytest.mark.parametrize("batch_size", [5, 24])
def test_readers_against_loops(fake, network, batch_size):
    source = fake.Drawn()
    source.table.identity = np.arange(24) // 2
    indices = np.arange(1, 24)
    model, name = fake.Perfect(source), "Eyeglasses"
    sets = Distributions(network, fake.NAMES, kernel=True)
    everybody, people = np.arange(24), source.table.identity
    source.table.people = lambda chosen: people
    like = Likeness(network, fake.NAMES, norms=True, gallery=Gallery(network, source, everybody))
    varieties = Varieties(network, indices)

    def watch(seen):
        for reader in (sets, like, varieties):
            reader(seen)

    editing.evaluate_editors(
        {"model": model, "copy": CopyingEditor(fake.NAMES)}, fake.Judge(errs=[3], wrong=name), source, fake.NAMES,
        indices, batch_size=batch_size, region_faces=0, watch=watch,
    )  # fmt: skip
    gallery = np.asarray(small(to_float(jnp.asarray(source.images(everybody)))), np.float64)
    for value, direction in enumerate(("adding", "removing")):
        images, edits = every(source, indices, model, name, value)
        a, b = np.asarray(small(images), np.float64), np.asarray(small(edits), np.float64)
        cell = (name, direction)
        np.testing.assert_allclose(sets.faces[cell].moments.mean, a.mean(0), rtol=1e-6)
        np.testing.assert_allclose(sets.edits[cell].moments.covariance, np.cov(b.T), atol=1e-6)
        assert sets.edits[cell].kept.shape == b.shape
        np.testing.assert_allclose(like["distances"][cell], np.linalg.norm(a - b, axis=1), rtol=1e-5)
        np.testing.assert_allclose(
            like["norms"][cell], np.linalg.norm(b, axis=1) / np.linalg.norm(a, axis=1), rtol=1e-6
        )
        nearest = [np.argmin(np.linalg.norm(gallery - row, axis=1)) for row in b]
        own = [np.argmin(np.linalg.norm(gallery - row, axis=1)) for row in a]
        np.testing.assert_array_equal(like["by_image"][cell], np.equal(nearest, own))
        np.testing.assert_array_equal(like["by_person"][cell], people[nearest] == people[own])
        labels = source.table.labels[indices, 2]
        right = np.isin(indices[labels == value], [3], invert=True)
        np.testing.assert_array_equal(like["right"][cell], right)
    rebuilt = to_float(jnp.asarray(source.images(indices)))
    whole = features.InceptionScore(len(indices))
    whole.add(network.classify(rebuilt), np.arange(len(indices)))
    assert varieties.reconstructed.score() == pytest.approx(whole.score(), rel=1e-6)


def test_an_unedited_face_is_its_own_source(fake, network):
    source, indices = fake.Source(), np.arange(20)
    source.table.identity = None
    like = Likeness(network, fake.NAMES, norms=True, gallery=Gallery(network, source, indices))
    copy = {"model": CopyingEditor(fake.NAMES)}
    editing.evaluate_editors(copy, fake.Judge(), source, fake.NAMES, indices, batch_size=8, watch=like)
    for cell, ratios in like["norms"].items():
        assert np.all(ratios == 1)
        assert np.all(like["distances"][cell] == 0)
        assert like["by_image"][cell].all()
        assert not like["right"][cell].any()


def test_the_threshold_is_that_of_other_people(fake, network, monkeypatch):
    source = fake.Source(count=24)
    people = np.arange(24) // 3
    valid = np.arange(12)
    source.table.identity = people
    source.table.indices = {"valid": valid, "train": valid + 12}.__getitem__
    source.table.people = lambda indices: np.where(np.isin(np.arange(24), indices), people, -1)
    limit, said = embedders.threshold(network, source, "test")
    same, other = identity.draw_pairs(people[valid], 12)
    vectors = identity.embeddings(network.embed, source, valid)
    expected = identity.best_threshold(identity.pair_distances(vectors, same), identity.pair_distances(vectors, other))
    assert limit == expected
    assert "12 pairs of one person and as many of two from the valid split" in said
    assert "train split" in embedders.threshold(network, source, "valid")[1]


# Protocols end to end, on models that were never trained.


def tables(markdown):
    """Heading -> rows of cells, header first."""
    found = {}
    for part in re.split(r"^## ", markdown, flags=re.MULTILINE)[1:]:
        lines = [line for line in part.splitlines() if line.startswith("| ")]
        found[part.splitlines()[0]] = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return found


def measured(monkeypatch, faces, tmp_path, name, configs, network, **settings):
    """evaluation.json, and its Markdown's tables, of fresh runs of `configs`; the judge is a fresh one, too."""
    held = {str(i): runs.fresh(config, f"runs/fresh/{i}") for i, config in enumerate(configs)}
    judge = runs.fresh(runs.classifier(faces), "runs/judge/6")
    monkeypatch.setattr(opening, "load", lambda path: held.get(str(path), judge))
    if network:
        monkeypatch.setattr(embedders, "faces", lambda crop, *names, **options: network)
        monkeypatch.setattr(embedders, "pictures", lambda which: network if which != "inception" else "no inception")
    papers.evaluate(name, list(held), tmp_path, judge="judge", **settings)
    tree = json.loads((tmp_path / "evaluation.json").read_text())
    text = (tmp_path / "evaluation.md").read_text()
    html = (tmp_path / "evaluation.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', html), "nothing is loaded"
    found = tables(text)
    for measure in tree["measures"]:
        if measure["skipped"]:
            assert f"Skipped: {measure['skipped']}." in text
        if measure["rows"]:
            header, _, *cells = found[measure["title"]]
            for row, shown in zip(measure["rows"], cells, strict=True):
                assert shown[0] == row["which"]
                theirs = (row["published"].get(m) for m in measure["published_by"])
                values = [row["value"], *theirs, *row["beside"].values()]
                cells_after = shown[header.index("ours") :]
                assert not any(cells_after[len(values) :])
                for value, cell in zip(values, cells_after, strict=False):
                    assert cell == "-" if value is None else float(cell) == pytest.approx(value, abs=0.006)
    return tree, {measure["title"]: measure for measure in tree["measures"]}


def test_attribute_inverse(monkeypatch, faces, tmp_path, network):
    configs = [runs.attribute_inverse(faces)]
    tree, found = measured(monkeypatch, faces, tmp_path, "attribute_inverse", configs, network, images=8)
    assert found["FID after PCA to 1024"]["skipped"] == "no inception"
    assert {row["which"]: row["published"]["paper"] for row in found["FID after PCA to 1024"]["rows"]}["Male"] == 21.1
    stand_in = found["Frechet distance by EfficientNet-lite0 after PCA to 1024"]["rows"][0]
    assert stand_in["value"] is None
    assert "needs 1025 pictures" in stand_in["note"]
    assert "needs 100 pictures" in found["kernel distance by EfficientNet-lite0"]["rows"][0]["note"]
    assert not stand_in["published"], "a stand-in is not put beside an FID"
    both = found["Frechet distance by EfficientNet-lite0 after PCA to 1024"]["rows"][1]
    assert both["which"] == f"{stand_in['which']}, components of both"
    row = found["DFN, mean"]["rows"][0]
    assert (row["which"], row["published"]) == ("Eyeglasses", {"paper": 0.94, "CycleGAN": 0.83})
    assert 0.5 < row["value"] < 2
    assert found["Cyclic PSNR"]["rows"][0]["value"] > 0
    # The judge reads more than this run edits: what becomes of the rest is untouched change.
    (changed, _) = found["Untouched attributes"]["rows"]
    assert 0 <= changed["value"] <= 1
    row = found["Attribute accuracy"]["rows"][0]
    assert row["which"] == "Eyeglasses"
    assert list(row["beside"]) == ["judge", "untouched change", "same person"]
    assert row["beside"]["untouched change"] == pytest.approx(changed["value"])
    assert row["beside"]["same person"] is None, "a threshold takes data that say who is on a picture"
    judged = {row["which"]: row for row in found["Accuracy of the judge"]["rows"]}
    assert list(judged) == [
        "Eyeglasses", "mean", "mean of all that it reads", "mean, balanced", "mean of all that it reads, balanced",
    ]  # fmt: skip
    assert judged["mean, balanced"]["value"] == pytest.approx(row["beside"]["judge"])
    assert not judged["Eyeglasses"]["beside"]
    assert len(tree["runs"][0]["model weights"]) == 64
    reasons = tree["runs"][0]["not_comparable"]
    assert "the data have 24 training faces, CelebA 162,770" in reasons
    assert "model.width is 2, in the config of the paper's size 64" in reasons
    assert "it was trained for 0 iterations, the paper's size takes 305,190" in reasons


def cells(**rates):
    """A run's own rates: attribute -> (faces, untouched change) of adding and of removing."""
    return {
        name: {d: {"faces": n, "untouched_change": c} for d, (n, c) in zip(("adding", "removing"), pair, strict=True)}
        for name, pair in rates.items()
    }


def test_what_stands_beside_rows_about_edits():
    single = cells(Male=((1, 0.5), (3, 0.1)), Bangs=((5, None), (0, None)))
    apart = {
        ("Male", "adding"): [0.1],
        ("Male", "removing"): [0.5, 0.7, 0.8],
        ("Bangs", "adding"): [0.2, 0.9, 0.3, 0.4, 0.1],
    }

    class Person:
        embedder = SimpleNamespace(name="dlib", about="dlib")

        def __getitem__(self, measure):
            return {cell: np.array(apart.get(cell, [])) for cell in itertools.product(single, ("adding", "removing"))}

    balanced = {"Male": 0.9, "Bangs": 0.7, "Young": 0.2}
    both = [{"attributes": ["Male", "Bangs"], "untouched_change": 0.4}]
    found = protocol.Found(
        0,
        SimpleNamespace(source=None, split="test"),
        {"editors": {"model": {"single": single, "multiple": both, "untouched_change": 0.3}}},
        {protocol.PERSON: Person()},
        {},
        {},
        reading={name: {"balanced_accuracy": value} for name, value in balanced.items()},
    )

    def beside(which):
        return list(measures.beside(found, which).values())

    assert list(measures.beside(found, "Male=0")) == ["judge", "untouched change", "same person"]
    assert beside("Male=0") == [0.9, pytest.approx(0.1), pytest.approx(1 / 3)]
    assert beside("Male") == [0.9, pytest.approx(0.2), 0.5]
    assert beside("Bangs, components of both") == [0.7, None, 0.8]
    assert beside("mean") == [pytest.approx(0.8), 0.3, pytest.approx(6 / 9)]
    assert beside("Male + Bangs") == [pytest.approx(0.8), 0.4, None]
    assert beside("PSNR") == []
    rows = {row.which: row.value for row in measures.same_person().take([found])}
    assert rows == {"Male": 0.5, "Bangs": 0.8, "mean": 0.65, "mean without Male": 0.8}


def test_notes_say_of_which_rows_they_are():
    def notes(*rows, several=False):
        return papers._notes([{"run": run, "which": which, "note": note} for run, which, note in rows], several)

    assert notes((0, "Male", "by dlib"), (0, "Bangs", "by dlib"), (0, "mean", ""), (-1, "Young", "x")) == ["by dlib"]
    assert notes((0, "Male", "few"), (0, "Bangs", "fewer"), (0, "Young", "few")) == ["Male, Young: few", "Bangs: fewer"]
    assert notes((0, "", "no weights")) == ["no weights"]
    assert notes((0, "Male", ""), (1, "", "no weights"), several=True) == ["run 1: no weights"]


def test_a_run_without_a_number_has_a_row_that_says_why(monkeypatch):
    def take(found):
        if found.number == 1:
            raise UserError("too few faces")
        yield protocol.Row("Male", 0.5, 3)

    able, unable = (
        SimpleNamespace(number=i, evaluation={"images": 3}, readers=readers, missing=missing)
        for i, (readers, missing) in enumerate((({"reader": 1}, {}), ({}, {"reader": "no weights"})))
    )
    monkeypatch.setattr(measures, "beside", lambda found, which: {})
    table = papers._tabulated(protocol.Measure("M", "", measures.each(take)), [able, unable])
    found = [(row["run"], row["value"], row["note"]) for row in table["rows"]]
    assert found == [(0, 0.5, ""), (1, None, "too few faces")]
    assert not table["skipped"]
    with_reader = protocol.Measure("M", "", measures.each(take), needs=("reader",))
    table = papers._tabulated(with_reader, [able, unable])
    assert [(row["run"], row["note"]) for row in table["rows"]] == [(0, ""), (1, "no weights")]
    table = papers._tabulated(protocol.Measure("M", "", measures.each(take)), [unable])
    assert (table["rows"], table["skipped"]) == ([], "too few faces")


def test_faces_of_people_are_recognised(monkeypatch, tmp_path, network):
    """AttGAN's protocol on data that say who is on a picture: drawn faces."""
    data = "synthetic:480"
    tree, found = measured(monkeypatch, data, tmp_path, "attgan", [runs.attgan(data)], network, images=12, curve=True)
    names = [*runs.ATTRIBUTES, "mean", "mean without Male"]
    for title in ("Rank-1 by image", "Rank-1 by identity", "Same person"):
        assert [row["which"] for row in found[title]["rows"]] == names
        assert all(0 <= row["value"] <= 1 for row in found[title]["rows"])
    by_image, by_person = (found[f"Rank-1 by {what}"]["rows"][-2]["value"] for what in ("image", "identity"))
    assert by_image <= by_person, "one's own picture is of oneself"
    same = {row["which"]: row["value"] for row in found["Same person"]["rows"]}
    assert "pairs of one person and as many of two from the valid split" in found["Same person"]["rows"][0]["note"]
    for row in found["Attribute accuracy"]["rows"]:
        if row["which"] in runs.ATTRIBUTES:
            assert row["beside"]["same person"] == pytest.approx(same[row["which"]])
    curve = {row["strength"]: row for row in tree["curves"][0]}
    assert list(curve) == [0, 0.5, 1, 1.5, 2]
    assert len({row["distance"] for row in curve.values()}) == 5, "each strength is watched by itself"
    assert all(0 <= row["same_person"] <= 1 for row in curve.values())
    assert 'alt="By strength"' in (tmp_path / "evaluation.html").read_text()


def test_two_runs_make_a_cycle_and_a_third_restores(monkeypatch, faces, tmp_path, network):
    give, take = (runs.diat(faces, value=value) for value in (1, 0))
    narrow = {"attributes": (), "image_size": 32, "model.width": 4, "model.transform": (1, 2, 2)}
    unet = runs.changed("diat_hallucination:unet", narrow, faces, {})
    tree, found = measured(monkeypatch, faces, tmp_path, "diat", [give, take, unet], network, images=6)
    assert [row["which"] for row in found["Cyclic PSNR"]["rows"]] == [
        "Eyeglasses=1",
        "Eyeglasses=0",
        "Mouth_Slightly_Open=1",
    ]
    assert [row["published"] for row in found["Cyclic PSNR"]["rows"]] == [{}, {}, {"DIAT": 33.27}]
    assert found["Attribute accuracy by task"]["rows"][1]["published"] == {"DIAT": 0.763}
    # All faces of the split tell how well the judge reads: those that a run has something to do with are of one kind.
    beside = [row["beside"]["judge"] for row in found["Attribute accuracy by task"]["rows"] if row["run"] >= 0]
    assert [0 <= value <= 1 for value in beside] == [True, True]
    assert beside[0] == beside[1]
    assert {row["which"]: row["published"] for row in found["Restoration, PSNR"]["rows"]}["unet"] == {"DIAT": 30.12}
    assert "do not say who is on a picture" in found["Face verification"]["skipped"]
    assert len(re.findall("and their edits by", (tmp_path / "evaluation.html").read_text())) == 3
    assert len(tree["runs"]) == 3


def test_exchanges_and_new_faces(monkeypatch, faces, tmp_path, network):
    two = runs.ATTRIBUTES[:2]
    _, found = measured(
        monkeypatch, faces, tmp_path / "e", "elegant", [runs.elegant(faces, attributes=two)], network, images=12
    )
    assert [row["which"] for row in found["FID"]["rows"]][:2] == ["Bangs=1", "Bangs=0"]
    assert found["Frechet distance by a face network"]["rows"][0]["images"] > 0
    _, found = measured(
        monkeypatch, faces, tmp_path / "s", "slgan", [runs.slgan(faces, attributes=two)], network, images=12
    )
    assert found["Inception Score"]["skipped"] == "no inception"
    errors = found["Attribute error"]["rows"]
    assert all(0 <= row["value"] <= 4 for row in errors)
    assert "stands in" in errors[0]["note"]
    assert not errors[0]["beside"], "about new faces, not edits"
    assert "new faces: a row for each" in (tmp_path / "s" / "evaluation.html").read_text()
    assert found["User study"]["rows"][0]["published"] == {"SL-GAN": 4.37, "Attrib2img": 3.02, "icGAN": 4.10}


def test_dfn_reads_a_recogniser_before_it_scales_its_vectors(monkeypatch, faces, tmp_path):
    config = runs.recognizer(str(faces), crop="none")
    monkeypatch.setattr("faceattr_jax.editor.load", lambda path: runs.fresh(config))
    reads = [embedders.faces("none", "recognizer", recognizer="r", unscaled=unscaled) for unscaled in (False, True)]
    images = jax.random.uniform(jax.random.key(0), (3, 32, 32, 3), minval=-1)
    unit, unscaled = (np.asarray(read.embed(images)) for read in reads)
    lengths = np.linalg.norm(unscaled, axis=1)
    np.testing.assert_allclose(unscaled / lengths[:, None], unit, atol=1e-5)
    assert np.all(np.abs(lengths - 1) > 1e-2)
    configs = [runs.attribute_inverse(faces)]
    monkeypatch.setattr(embedders, "pictures", lambda which: "none")
    _, found = measured(
        monkeypatch, faces, tmp_path, "attribute_inverse", configs, None, images=8, recognizer="r"
    )  # fmt: skip
    row = found["DFN, mean"]["rows"][0]
    assert row["value"] > 0
    assert "recognizer" in row["note"]


def test_a_reader_that_fails_skips_its_measure_alone(monkeypatch, faces, tmp_path, network):
    """Unit vectors, of which there is no DFN."""
    unit = Embedder("unit", "0" * 64, "", lambda x: small(x) / jnp.linalg.norm(small(x), axis=1, keepdims=True))
    configs = [runs.attribute_inverse(faces)]
    _, found = measured(monkeypatch, faces, tmp_path, "attribute_inverse", configs, unit, images=8)
    assert "this one's are all 1 long" in found["DFN, mean"]["skipped"]
    assert found["Attribute accuracy"]["rows"][0]["value"] is not None
    assert not found["Frechet distance by a face network"]["skipped"]


def test_cycles_are_of_the_strength_that_was_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(
        measures.cycles, "cyclic_psnr", lambda *_, strength, **__: asked.append(strength) or {"Male": {"adding": 1.0}}
    )
    model = SimpleNamespace(method=SimpleNamespace(towards={}), attributes=("Male",))
    cells = {"Male": {"adding": {"faces": 2}, "removing": {"faces": 0}}}
    found = protocol.Found(
        0, SimpleNamespace(model=model, source=None, indices=None), {"editors": {"model": {"single": cells}}},
        {protocol.CYCLES: None}, {}, {}, strength=0.5,
    )  # fmt: skip
    assert [row.value for row in measures.cyclic().take([found])] == [1.0]
    assert asked == [0.5]


def test_iterations_are_compared_by_rounds_of_the_attributes(faces):
    elegant = protocol.find("elegant")
    assert (elegant.split, elegant.balanced, elegant.images) == ("train", True, 20_000)
    for step in elegant.steps[1:]:
        assert base.build(load(step.config, step.overrides)).stages[0].iterations == 200_000
    source = SimpleNamespace(table=SimpleNamespace(indices=lambda split: range(20_000)))
    for attributes, steps, reason in ((("Bangs",), "199999", "200,000"), (runs.ATTRIBUTES, "599999", "600,000")):
        model = runs.fresh(runs.elegant(faces, attributes=attributes), f"runs/e/{steps}")
        opened = opening.Opened(model, source, np.arange(20_000), "celeba", "train")
        said = papers.not_comparable(protocol.Found(0, opened, None, {}, {}, {}), elegant)
        assert f"it was trained for {int(steps):,} iterations, the paper's size takes {reason}" in said


def test_the_face_network_of_an_identity_loss_is_named(faces, tmp_path):
    step = tmp_path / "best" / "2"
    step.mkdir(parents=True)
    source = SimpleNamespace(table=SimpleNamespace(indices=lambda split: []))
    opened = opening.Opened(runs.fresh(runs.diat(faces), str(step)), source, np.arange(2), "", "")

    def said():
        reasons = papers.not_comparable(protocol.Found(0, opened, None, {}, {}, {}), protocol.find("diat"))
        return [reason for reason in reasons if "identity loss" in reason]

    assert said() == []
    (tmp_path / "frozen.json").write_text(json.dumps({"face": {"network": "dlib"}}))
    assert said() == ["its identity loss looked through dlib, the paper's through VGG-Face"]
    (tmp_path / "frozen.json").write_text(json.dumps({"face": {"network": "vgg_face"}}))
    assert said() == []


def test_a_missing_network_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "the weights of 'inception' are not here" in embedders.pictures("inception")
    assert embedders.faces("none", "recognizer") == "no --recognizer=WORKDIR was given"
    with pytest.raises(UserError, match="there is no"):
        embedders.faces("none", "recognizer", recognizer=str(tmp_path / "absent"))
