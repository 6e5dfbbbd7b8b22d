"""Evaluation by exemplar on drawn faces, whose truth is known, and its correlation against SciPy's."""

import numpy as np
import pytest

from faceattr_jax.attributes import CONFLICTS
from faceattr_jax.data.images import to_float
from faceattr_jax.data.synthetic import ATTRIBUTES, SyntheticSource
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import metrics
from faceattr_jax.evaluation.editors import CopyingEditor, ReferenceEditor
from faceattr_jax.evaluation.exemplar import evaluate_exchangers, opposites, summarize
from faceattr_jax.evaluation.report import markdown

NAMES = ("Eyeglasses", "Bangs")


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_scipys(ties):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x = rng.normal(size=50)
    y = x + rng.normal(size=50)
    if ties:
        x, y = np.round(x), np.round(y)
    rho, low, high = metrics.spearman(x, y)
    np.testing.assert_allclose(rho, stats.spearmanr(x, y).statistic, rtol=1e-12)
    error = stats.norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / 47)
    np.testing.assert_allclose(np.arctanh([low, high]), np.arctanh(rho) + np.array([-error, error]), rtol=1e-6)
    assert metrics.spearman(x, np.zeros(50)) == (None, None, None)
    assert metrics.spearman(x, x) == (1.0, None, None)


def test_opposites():
    labels = np.array([0, 1, 0, 0, 1, 0, 1])
    indices = np.array([0, 1, 2, 3, 4, 5])
    found = opposites(labels, indices, indices, "Bangs", np.random.default_rng(0))
    assert np.all(labels[found] != labels[indices])
    assert set(found) <= set(indices)
    assert sorted(found[labels[indices] == 0]) == [1, 1, 4, 4]
    with pytest.raises(UserError, match="has Bangs=1"):
        opposites(np.zeros(6), indices, indices, "Bangs", np.random.default_rng(0))


class Truth:
    """Draws every exchange; knows faces by their pixels. Its reconstruction is one level off."""

    attributes = NAMES

    def __init__(self, source):
        self.source = source
        every = source.images(np.arange(len(source.table)))
        self.index = {picture.tobytes(): i for i, picture in enumerate(every)}

    def _faces(self, images):
        pictures = np.round((np.asarray(images) + 1) * 127.5).astype(np.uint8)
        return np.array([self.index[picture.tobytes()] for picture in pictures])

    def swap(self, images, references, mask):
        faces, labels = self._faces(images), self.source.table.labels.astype(int)
        target, wearing = labels[faces].copy(), {}
        for others, row in zip(references, np.asarray(mask), strict=True):
            (name,) = np.array(NAMES)[row]
            column, wearing[name] = ATTRIBUTES.index(name), self._faces(others)
            target[:, column] = labels[wearing[name], column]
            excluded = [ATTRIBUTES.index(other) for other in CONFLICTS.get(name, ()) if other in ATTRIBUTES]
            target[:, excluded] *= 1 - target[:, [column]]
        return to_float(self.source.counterfactual(faces, target, wearing=wearing))

    def reconstruct(self, images, labels):
        return images + np.where(images < 0, 1, -1) / 127.5


class KnowingJudge:
    """Says of any picture what the truth's face has most likely: it is nearest to which of the known pictures."""

    attributes = NAMES

    def classify(self, images):
        return np.full((len(images), 2), 0.9, np.float32)


def test_truth_copy_and_reference():
    source = SyntheticSource(60, size=32)
    editors = {"model": Truth(source), "copy": CopyingEditor(NAMES), "reference": ReferenceEditor(NAMES)}
    found = evaluate_exchangers(editors, KnowingJudge(), source, NAMES, np.arange(60), batch_size=16)
    model, copy, reference = (found["editors"][name] for name in editors)
    assert model["region"]["ratio"] == 0
    assert copy["region"]["ratio"] == pytest.approx(1)
    assert reference["region"]["ratio"] > 0.5
    assert model["exemplar"]["drift_ratio"] < 0.1
    assert copy["exemplar"]["drift_ratio"] == 0
    assert reference["exemplar"]["drift_ratio"] > 5
    for name in NAMES:
        assert model["exemplar"]["style"][name]["tone"]["correlation"] == pytest.approx(
            model["exemplar"]["style"][name]["tone"]["ceiling"]
        )
        assert copy["exemplar"]["style"][name]["tone"]["correlation"] is None
    assert model["adding"] == 1.0, "this judge finds everything"
    assert model["removing"] == 0.0
    summary = summarize(found)
    assert summary["region_error_ratio"] == 0
    assert summary["reference_region_drift_ratio"] > 5
    assert "style_Eyeglasses_tone_low" in summary
    has = int(source.table.select(NAMES)[:, 0].sum())
    assert f"| {NAMES[0]} | adding | {60 - has} | 0.000 | 1.000 |" in markdown(
        summary, {**found, "judge": {}}, protocol={}
    )


def test_a_counterfactual_wears_another_faces_style():
    source = SyntheticSource(60, size=32)
    faces = np.arange(5)
    labels = source.table.labels[faces].astype(int)
    own = source.counterfactual(faces, labels, wearing={"Eyeglasses": faces})
    np.testing.assert_array_equal(own, source.images(faces))
    labels[:, ATTRIBUTES.index("Eyeglasses")] = 1
    one, other = (source.counterfactual(faces, labels, wearing={"Eyeglasses": faces + k}) for k in (7, 31))
    assert (one != other).any(axis=(1, 2, 3)).all()
    outside = source.region(faces, "Eyeglasses") == 0
    assert not (one != other).any(-1)[outside].any()
    with pytest.raises(UserError, match="Young has no style of its own"):
        source.counterfactual(faces, labels, wearing={"Young": faces})
