"""Masks against the regions of faces whose every pixel is known."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.evaluation import masks


def test_iou_by_hand():
    a, b = np.zeros((2, 2, 4, 4), bool)
    a[0, :2], b[0, 1:3] = True, True  # 4 of 12
    assert masks.iou(a, b) == pytest.approx((4 / 12 + 1) / 2)
    assert masks.iou(b[:1], b) == pytest.approx(0.5)


def test_a_mask_that_knows_the_region_beats_the_best_constant_one():
    """Every face has a bright square in one of three places: twice as often on the left as in each of the others."""
    places = np.array([0, 0, 1, 2])

    def region(indices, attribute):
        found = np.zeros((len(indices), 8, 12), np.float32)
        for row, place in zip(found, places[indices], strict=True):
            row[2:4, 4 * place : 4 * place + 4] = 0.8
        return found

    def images(indices):
        return np.repeat((region(indices, "")[..., None] * 255).astype(np.uint8), 3, axis=-1)

    source = SimpleNamespace(region=region, images=images)
    exact = masks.scores(lambda x: (x[..., :1] > 0) * 1.0, source, ["Eyeglasses"], np.arange(4), batch_size=3)
    assert exact["mask_iou"] == 1
    assert exact["constant_mask_iou"] == pytest.approx(0.5)  # the left place: two faces of four
    assert exact["mask_share"] == exact["region_share"] == pytest.approx(8 / 96)
    closed = masks.scores(lambda x: jnp.zeros_like(x[..., :1]), source, ["Eyeglasses"], np.arange(4))
    assert closed["mask_iou"] == closed["mask_share"] == 0
    grey = masks.pictures(lambda x: (x[..., :1] > 0) * 1.0, images(np.arange(2)))
    assert grey.shape == (2, 8, 12, 3)
    assert (grey[0, 2:4, :4] == 255).all()
    assert grey.sum() == 2 * 8 * 3 * 255
