"""Alignment against scikit-image, plain least squares, and pictures with marks on them."""

import numpy as np
import pytest
from PIL import Image

from faceattr_jax.data import align

UNALIGNED = np.array([(165.0, 184.0), (244.0, 176.0), (196.0, 249.0), (194.0, 271.0), (266.0, 260.0)])


def test_mean_face():
    """Eyes 70 px apart and level, the points' middle in the picture's, at any size."""
    face = align.mean_face(256)
    assert face.shape == (5, 2)
    np.testing.assert_allclose(face[1] - face[0], [70.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(face.mean(axis=0), [127.5, 127.5])
    np.testing.assert_allclose(align.mean_face(128) + 0.5, (face + 0.5) / 2)


def test_similarity_is_scikit_images():
    transform = pytest.importorskip("skimage.transform")
    rng = np.random.default_rng(0)
    for _ in range(20):
        points, target = rng.uniform(0, 300, (2, 5, 2))
        expected = transform.SimilarityTransform.from_estimate(points, target).params[:2]
        np.testing.assert_allclose(align.similarity(points, target), expected, rtol=1e-9, atol=1e-9)


def test_similarity_is_the_least_squares_solution():
    """u = a x - b y + s and v = b x + a y + t, written out for NumPy."""
    points, target = UNALIGNED, align.mean_face(256)
    rows = [row for x, y in points for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, s, t = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)[0]
    np.testing.assert_allclose(align.similarity(points, target), [[a, -b, s], [b, a, t]], rtol=1e-9)


def test_similarity_of_moved_points_is_the_movement():
    angle, scale, shift = 0.4, 1.7, np.array([10.0, -4.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    found = align.similarity(UNALIGNED, UNALIGNED @ (scale * turn).T + shift)
    np.testing.assert_allclose(found, np.column_stack([scale * turn, shift]), rtol=1e-9)
    with pytest.raises(ValueError, match="coincide"):
        align.similarity(np.ones((5, 2)), UNALIGNED)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_marks_at_the_landmarks_come_to_the_mean_face(factor, angle):
    """Smooth marks, so that a centroid tells where each came to, whether the picture grows or shrinks."""
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    face = align.mean_face(64)
    centre = np.array([60.0, 70.0]) * factor
    landmarks = (face - face.mean(axis=0)) @ turn.T + centre
    height, width = round(140 * factor), round(120 * factor)
    y, x = np.mgrid[:height, :width]
    for point, place in zip(landmarks, face, strict=True):
        mark = np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * (2.5 * factor) ** 2))
        picture = Image.fromarray(np.repeat((255 * mark).astype(np.uint8)[..., None], 3, axis=2))
        result = align.align(picture, landmarks, 64)
        assert result.shape == (64, 64, 3)
        assert result.dtype == np.uint8
        weights = result[..., 0].astype(float)
        rows, columns = np.mgrid[:64, :64]
        found = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
        np.testing.assert_allclose(found, place, atol=0.1)


def test_an_aligned_picture_stays_and_what_is_outside_is_black():
    rng = np.random.default_rng(0)
    picture = rng.integers(1, 256, (64, 64, 3), dtype=np.uint8)
    face = align.mean_face(64)
    # Pillow cuts off, where rounding would bring all but nothing back.
    np.testing.assert_allclose(align.align(Image.fromarray(picture), face, 64), picture.astype(int), atol=1)
    # Twenty pixels to the right of where the face should be.
    shifted = align.align(Image.fromarray(picture), face + np.array([20.0, 0.0]), 64)
    np.testing.assert_allclose(shifted[:, :44], picture[:, 20:].astype(int), atol=1)
    assert not shifted[:, 45:].any()
