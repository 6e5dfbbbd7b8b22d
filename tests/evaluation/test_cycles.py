"""Cyclic PSNR of editors whose error is known."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.evaluation.cycles import cyclic_psnr
from faceattr_jax.evaluation.editors import CopyingEditor

NAMES = ("Male", "Smiling")


def source(males):
    labels = np.stack([males, np.zeros_like(males)], axis=1).astype(np.float32)
    pixels = np.full((len(males), 8, 8, 3), 100, np.uint8)
    table = SimpleNamespace(select=lambda names: labels)
    return SimpleNamespace(table=table, images=lambda indices: pixels[indices])


class Shift:
    """Adds levels for what goes on, takes back fewer for what goes off."""

    attributes = NAMES

    def edit(self, images, own, target, strength):
        there = jnp.sum(target - own, axis=1)[:, None, None, None]
        return images + jnp.where(there > 0, 10.4, -5.8) / 127.5


def test_the_first_edit_goes_through_eight_bits():
    """110.4 is saved as 110, and 94.2 as 94: 104 comes back, where 104.6 would have made 105."""
    found = cyclic_psnr(Shift(), source(np.array([0, 1, 0, 0, 1])), NAMES, np.arange(5), batch_size=2)
    assert found["Male"]["adding"] == pytest.approx(20 * np.log10(255 / 4), abs=1e-3)
    assert found["Male"]["removing"] == pytest.approx(20 * np.log10(255 / 4), abs=1e-3)
    assert found["Smiling"]["removing"] is None


def test_faces_that_come_back_unchanged_have_none():
    found = cyclic_psnr(CopyingEditor(NAMES), source(np.array([0, 1])), ("Male",), np.arange(2))
    assert found == {"Male": {"adding": None, "removing": None}}
