"""Scores of restored faces, of models that give back the truth, or what they were given."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import editing, features, metrics, restoration


class Method:
    """Degrades by noise; restores by whatever is in its variables."""

    def degrade(self, images, key):
        return images + 0.2 * jax.random.normal(key, images.shape)

    def restore(self, variables, images):
        return images * variables["scale"]


def test_the_copy_scores_as_what_it_was_given_and_batches_do_not_matter(fake):
    source, indices = fake.Source(count=10), np.arange(10)
    compiled = restoration.Compiled(Method())
    held = {"copy": {"scale": 1.0}, "grey": {"scale": 0.0}}
    rows = restoration.evaluate(compiled, held, source, indices)
    assert list(rows) == ["degraded", "copy", "grey"]
    assert rows["copy"] == rows["degraded"]
    assert set(rows["copy"]) == {"psnr", "psnr_y", "ssim", "ssim_y", "gradient_energy_ratio"}
    again = restoration.evaluate(compiled, held, source, indices, batch_size=4)
    for name, row in rows.items():
        np.testing.assert_allclose([*again[name].values()], [*row.values()], rtol=1e-6)
    truth = to_float(jnp.asarray(source.images(indices)))
    grey = jnp.zeros_like(truth)
    np.testing.assert_allclose(rows["grey"]["psnr"], np.mean(metrics.psnr(grey, truth)), rtol=1e-6)
    np.testing.assert_allclose(rows["grey"]["ssim"], np.mean(metrics.ssim(grey, truth)), rtol=1e-6)
    assert rows["grey"]["gradient_energy_ratio"] == 0
    assert rows["copy"]["gradient_energy_ratio"] > 1  # noise is sharp
    pictures, names = restoration.grid(compiled, {"scale": 1.0}, source, indices[:2])
    assert pictures.shape == (2, 3, fake.SIDE, fake.SIDE, 3)
    np.testing.assert_array_equal(pictures[:, 0], pictures[:, 1])
    np.testing.assert_array_equal(pictures[:, 2], source.images(indices[:2]))
    assert names == ["Input", "Restored", "Truth"]


def test_frechet_distances_are_of_the_named_features_of_whole_sets(fake):
    """Features of three numbers a picture, read off its 8-bit levels; the truth is at no distance from itself."""
    source, indices = fake.Source(count=24), np.arange(24)
    compiled, held = restoration.Compiled(Method()), {"copy": {"scale": 1.0}, "grey": {"scale": 0.0}}

    def means(images):
        return jnp.mean(images, axis=(1, 2))

    rows = restoration.evaluate(compiled, held, source, indices, embedders={"means": means}, batch_size=7)
    truth = to_float(jnp.asarray(source.images(indices)))
    noisy = compiled.degrade(truth, jnp.asarray(indices))
    for name, images in (("copy", noisy), ("degraded", noisy), ("grey", jnp.zeros_like(truth))):
        a, b = (features.Moments().add(np.asarray(means(to_float(to_uint8(x))))) for x in (truth, images))
        np.testing.assert_allclose(rows[name]["frechet_means"], features.frechet(a, b), rtol=1e-4, atol=1e-7)
    assert rows["grey"]["frechet_means"] > 10 * rows["copy"]["frechet_means"] > 0


def test_one_way_editors_are_shown_the_faces_that_they_can_edit(fake):
    source, indices = fake.Source(), np.arange(24)
    has = source.table.select(["Male"])[:, 0]
    both, one = (SimpleNamespace(towards=towards) for towards in ({}, {"Male": 0}))
    np.testing.assert_array_equal(editing.invertible(both, source, indices), indices)
    np.testing.assert_array_equal(editing.invertible(one, source, indices), indices[has == 1])
    with pytest.raises(UserError, match="all faces have Male=0 already"):
        editing.invertible(one, source, indices[has == 0])
