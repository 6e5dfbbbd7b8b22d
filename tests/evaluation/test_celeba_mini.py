"""What the metrics say of real faces: minutes, and CelebA in its own layout.

`./launch/test.sh -n 0 -s -m slow tests/evaluation/test_celeba_mini.py`
"""

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import attributes, load
from faceattr_jax.data.images import to_float
from faceattr_jax.data.source import Source, open_source
from faceattr_jax.evaluation import editing, embedders, identity, labelling
from faceattr_jax.evaluation.editors import Compiled
from faceattr_jax.evaluation.features import Moments, frechet
from faceattr_jax.evaluation.opening import open_run
from faceattr_jax.evaluation.readers import Likeness
from faceattr_jax.evaluation.run import evaluate

pytestmark = pytest.mark.slow
BATCH = 50


@pytest.fixture(scope="module")
def source(celeba_mini) -> Source:
    return open_source(str(celeba_mini), size=128, crop="center178")


def test_dlib_verifies_people_it_never_saw(source):
    """Balanced pairs of the test split, at the threshold that is best on the valid split's people."""
    dlib = embedders.faces("center178", "dlib")
    if isinstance(dlib, str):
        pytest.skip(dlib)
    limit, about = embedders.threshold(dlib, source, "test")
    indices = identity.whole_people(source, source.table.indices("test"), 0)
    people = source.table.people(indices)[indices]
    same, other = identity.draw_pairs(people, 2_000)
    vectors = identity.embeddings(dlib.embed, source, indices)
    right = identity.pair_accuracy(*(identity.pair_distances(vectors, pairs) for pairs in (same, other)), limit)
    print(f"\n{right:.4f} of 2,000 pairs of one person and 2,000 of two at {about}")
    assert right >= 0.95


def test_a_frechet_distance_grows_with_blur_and_noise(source):
    """And is small between two halves of one set, which share no picture."""
    ndimage = pytest.importorskip("scipy.ndimage")
    network = embedders.pictures("efficientnet_lite0")
    if isinstance(network, str):
        pytest.skip(network)
    indices = np.random.default_rng(0).permutation(source.table.indices("test"))
    images = np.asarray(source.images(indices))
    noise = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)

    def read(pictures: np.ndarray) -> np.ndarray:
        parts = (to_float(jnp.asarray(pictures[i : i + BATCH])) for i in range(0, len(pictures), BATCH))
        return np.concatenate([network.embed(part) for part in parts])

    def eight_bit(pictures: np.ndarray) -> np.ndarray:
        return pictures.round().clip(0, 255).astype(np.uint8)

    own = read(images)
    whole, halves = Moments().add(own), [Moments().add(own[i::2]) for i in (0, 1)]
    apart = frechet(*halves)
    blurred, noisy = (
        [frechet(whole, Moments().add(read(eight_bit(change(amount))))) for amount in amounts]
        for change, amounts in (
            (lambda sigma: ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0)), (0.5, 1, 2, 4)),
            (lambda deviation: images + deviation * noise, (5, 10, 20, 40)),
        )
    )
    print(f"\nhalves {apart:.1f}; blur of 0.5, 1, 2, 4 px: {np.round(blurred, 1)}; ", end="")
    print(f"noise of 5, 10, 20, 40 levels: {np.round(noisy, 1)}")
    assert blurred[2] >= 3 * apart
    assert (np.diff([0.0, *blurred]) > 0).all()
    assert (np.diff([0.0, *noisy]) > 0).all()


def scores(variable: str, celeba_mini, tmp_path) -> dict:
    """What `faceattr evaluate` says of the run that an environment variable names."""
    run = os.environ.get(variable) or pytest.skip(f"needs {variable}, the workdir of a run on CelebA's faces")
    evaluate(Path(run), tmp_path, data=str(celeba_mini))
    return json.loads((tmp_path / "evaluation.json").read_text())


def test_a_judge_reads_attgans_attributes(celeba_mini, tmp_path):
    """FACEATTR_JUDGE=runs/judge, as by classifier_64:mini."""
    rows = scores("FACEATTR_JUDGE", celeba_mini, tmp_path)["attributes"]
    own = {name: rows[name] for name in attributes.ATTGAN}
    accuracy, balanced = (labelling.mean(own, measure) for measure in ("accuracy", "balanced_accuracy"))
    print(f"\naccuracy {accuracy:.4f}, balanced {balanced:.4f}")
    assert accuracy >= 0.92
    assert balanced >= 0.82
    assert all(row["accuracy"] > row["majority"] for row in own.values())


def test_a_recogniser_verifies_people_it_never_saw(celeba_mini, tmp_path):
    """FACEATTR_RECOGNIZER=runs/recognizer, as by recognizer_64:mini."""
    found = scores("FACEATTR_RECOGNIZER", celeba_mini, tmp_path)
    print(f"\n{found['verification']:.4f}, untrained {found['untrained_verification']:.4f}")
    assert found["verification"] >= 0.70


def test_the_packaged_model_keeps_the_person(celeba_mini):
    """On edits of other attributes than Male, at strength 2, by dlib's threshold."""
    editor = load("attgan_celeba_64")
    opened = open_run("attgan_celeba_64", data=str(celeba_mini), images=100)
    person = embedders.faces(editor.crop, "dlib")
    if isinstance(person, str):
        pytest.skip(person)
    likeness = Likeness(person, editor.attributes)
    model = Compiled(editor.method, editor.variables)
    names = [name for name in editor.attributes if name != "Male"]
    # Its own C is the judge, at whose verdicts nobody looks.
    editing.evaluate_editors(
        {"model": model}, model, opened.source, names, opened.indices,
        strength=2.0, combinations=(), region_faces=0, watch=likeness,
    )  # fmt: skip
    apart = np.concatenate(list(likeness["distances"].values()))
    share = np.mean(apart <= embedders.OWN_THRESHOLDS["dlib"])
    print(f"\n{share:.4f} of {len(apart):,} edits are of the same person")
    assert share >= 0.80
