"""Region errors on the faces that the package draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data.images import to_float
from faceattr_jax.data.synthetic import SyntheticSource
from faceattr_jax.evaluation.editors import CopyingEditor, invert
from faceattr_jax.evaluation.regions import region_errors

ATTRIBUTES = ("Bald", "Eyeglasses")


class Truth:
    """Draws the truth, in a style of its own choice; knows the faces of the batch from their pixels."""

    attributes = ATTRIBUTES

    def __init__(self, source: SyntheticSource, style: int | None) -> None:
        self.source, self.style = source, style
        indices = np.arange(len(source.table))
        self.index = {picture.tobytes(): i for i, picture in zip(indices, source.images(indices), strict=True)}

    def edit(self, images: jax.Array, source: jax.Array, target: jax.Array, strength: float) -> jax.Array:
        pictures = np.round((np.asarray(images) + 1) * 127.5).astype(np.uint8)
        indices = np.array([self.index[picture.tobytes()] for picture in pictures])
        table = self.source.table
        inverted = [ATTRIBUTES[j] for j in np.flatnonzero(np.any(np.asarray(source) != np.asarray(target), axis=0))]
        labels, _ = invert(table.labels[indices].astype(np.float32), table.attributes, inverted)
        return to_float(jnp.asarray(self.source.counterfactual(indices, labels, self.style)))

    def reconstruct(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        return images


def test_the_truth_has_no_error_and_stays_in_its_region() -> None:
    source = SyntheticSource(60, size=32)
    editors = {"own": Truth(source, None), "other": Truth(source, 0), "copy": CopyingEditor(ATTRIBUTES)}
    found = region_errors(editors, source, ATTRIBUTES, np.arange(60), strength=1.0, batch_size=4, faces=3, styles=2)
    for attribute in ATTRIBUTES:
        for direction in ("adding", "removing"):
            own, other, copy = (found[name][attribute][direction] for name in editors)
            assert own["ratio"] == other["ratio"] == 0
            assert max(own["drift"], other["drift"]) < 0.05  # of a level: where the soft mask is not quite 1
            assert copy["ratio"] == pytest.approx(1)
            assert copy["drift"] == 0
            assert 0 <= own["floor"] < 1
            assert 0 < own["faces"] <= 3
    assert found["own"]["Eyeglasses"]["removing"]["floor"] == 0  # no style is free
