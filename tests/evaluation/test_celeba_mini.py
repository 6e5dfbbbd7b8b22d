"""What the metrics say of real faces: minutes, and CelebA in its own layout.

`./launch/test.sh -n 0 -s -m slow tests/evaluation/test_celeba_mini.py`
"""

import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data.images import to_float
from faceattr_jax.data.source import Source, open_source
from faceattr_jax.evaluation import embedders, identity
from faceattr_jax.evaluation.features import Moments, frechet

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
