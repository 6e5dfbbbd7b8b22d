"""Sliders on pictures whose every pixel is known; the Kolmogorov-Smirnov distance against other ways to compute it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data.images import to_uint8
from faceattr_jax.evaluation import metrics, sliding


def test_kolmogorov_smirnov_by_hand():
    # F jumps to 1/2 at .2 and to 1 at .5: farthest from the diagonal just after .5.
    assert metrics.kolmogorov_smirnov(np.array([0.5, 0.2])) == pytest.approx(0.5)
    assert metrics.kolmogorov_smirnov(np.array([0.9])) == pytest.approx(0.9)
    assert metrics.kolmogorov_smirnov((np.arange(10) + 0.5) / 10) == pytest.approx(0.05)
    assert metrics.kolmogorov_smirnov(np.zeros(5)) == 1.0


def test_kolmogorov_smirnov_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    for values in (np.random.default_rng(0).beta(2, 3, 101), np.full(4, 0.3), np.linspace(0, 1, 7)):
        expected = stats.kstest(values, "uniform").statistic
        assert metrics.kolmogorov_smirnov(values) == pytest.approx(expected, abs=1e-12)


class Painter:
    """Slides by painting an attribute's square; its intensities are a face's place among COUNT."""

    def __init__(self, fake, count, steps):
        self.fake, self.count, self.steps = fake, count, steps
        self.attributes = fake.NAMES

    def intensities(self, images):
        place = (to_uint8(images)[:, 0, 0, 0].astype(jnp.float32) + 0.5) / self.count
        return jnp.stack([place] * (len(self.attributes) - 1) + [place**2], axis=1)

    def slide(self, images, column, value, source):
        assert source.shape == (len(images), len(self.attributes))
        level = self.steps.get(self.attributes[column], value)
        return images.at[:, *self.fake.square(column)].set(level)


def graded(fake):
    """A judge whose answer is the level of the square, from 0 to 1."""

    def classify(images):
        each = [jnp.mean(images[:, *fake.square(i)], axis=(1, 2, 3)) for i in range(len(fake.NAMES))]
        return (jnp.stack(each, axis=1) + 1) / 2

    judge = fake.Judge()
    judge.classify = jax.jit(classify)
    return judge


def test_evaluate_sliders(fake):
    source = fake.Source(count=24)
    good = Painter(fake, 24, {})
    # One slider that never moves, though it satisfies the judge at one end.
    bad = Painter(fake, 24, {"Male": 0.8})
    found = sliding.evaluate_sliders(
        {"model": good, "untrained": bad}, graded(fake), source, np.arange(24), faces=10, batch_size=7
    )
    assert (found["images"], found["faces"]) == (24, 10)
    model, other = found["sliders"]["model"], found["sliders"]["untrained"]
    for name in fake.NAMES[:3]:
        assert model[name]["ks"] == pytest.approx(0.5 / 24, abs=1e-6)
        assert model[name]["correlation"] == pytest.approx(1.0)
        assert model[name]["ends"] == 1.0
    assert model["Male"]["ks"] == pytest.approx(0.25, abs=0.03)  # |sqrt(t) - t| is largest at 1/4
    assert other["Male"]["correlation"] == 0.0
    assert other["Male"]["ends"] == 0.5
    summary = sliding.summarize(found)
    assert summary["slider_ks_worst"] == model["Male"]["ks"]
    assert summary["untrained_slider_correlation_worst"] == 0.0
    assert summary["untrained_slider_correlation"] == pytest.approx(0.75)


def test_slides_grid(fake):
    source = fake.Source(count=4)
    labels = source.table.select(fake.NAMES)[:3]
    pictures, headings, names = sliding.slides_grid(Painter(fake, 4, {}), source.images(np.arange(3)), labels)
    assert pictures.shape == (4, 7, fake.SIDE, fake.SIDE, 3)
    assert headings == ["Input", "-1", "-0.6", "-0.2", "0.2", "0.6", "1"]
    assert names == ["Black Hair", "Blond Hair", "Eyeglasses", "Male"]
    np.testing.assert_array_equal(pictures[3, 0], source.images(np.array([0]))[0])  # the faces start again
    assert np.all(pictures[2, 6][fake.square(2)] == 255)
