"""The probe reads what is there, in whatever form, and nothing else."""

import numpy as np
import pytest

from faceattr_jax.evaluation import probing


def latents(rng, count):
    """Labels 0/1 (N, 4), and z that holds the first plainly, the second as a product of signs, the third rarely."""
    y = rng.integers(0, 2, (count, 4)).astype(np.float32)
    y[:, 2] = rng.random(count) < 0.1
    z = rng.normal(size=(count, 6)).astype(np.float32)
    z[:, 0] = 5 * (2 * y[:, 0] - 1) + rng.normal(size=count)
    z[:, 1] = np.abs(z[:, 1]) + 0.3
    z[:, 2] = (np.abs(z[:, 2]) + 0.3) * rng.choice([-1, 1], count)
    z[:, 1] *= np.sign(z[:, 2]) * (2 * y[:, 1] - 1)
    z[:, 3] += 4 * y[:, 2]
    return z * 7 + 100, y


def test_the_probe_reads_what_is_there():
    rng = np.random.default_rng(0)
    (x, y), (test_x, test_y) = latents(rng, 1200), latents(rng, 600)
    found = probing.probe(x, y, test_x, test_y, epochs=12)
    plain, product, rare, absent = found
    assert plain > 0.99
    assert product > 0.9  # no linear probe beats 0.5
    assert rare > 0.9  # balanced, though nine in ten lack it
    assert absent == pytest.approx(0.5, abs=0.06)
    np.testing.assert_array_equal(found, probing.probe(x, y, test_x, test_y, epochs=12))


def test_evaluate_latents(fake):
    source = fake.Source(count=96)
    models = {
        "model": lambda images: images[:, 4:8].reshape(len(images), -1),
        "untrained": lambda images: images[:, 12:].reshape(len(images), -1),  # where nothing is painted
    }
    indices = np.arange(64, 94)
    found = probing.evaluate_latents(models, source, fake.NAMES, np.arange(64), indices, batch_size=16)
    assert found["faces"] == 64
    assert found["models"]["model"]["attributes"] == dict.fromkeys(fake.NAMES, 1.0)
    assert found["models"]["untrained"]["balanced_accuracy"] == 0.5
    summary = probing.summarize(found)
    assert summary == {"probe_balanced_accuracy": 1.0, "untrained_probe_balanced_accuracy": 0.5}

    labels = source.table.labels
    labels[indices, 2] = True
    found = probing.evaluate_latents(models, source, fake.NAMES, np.arange(64), indices)
    assert found["models"]["model"]["attributes"]["Eyeglasses"] is None
    assert found["models"]["model"]["balanced_accuracy"] == 1.0
