"""Alignment of faces by five landmarks, as ELEGANT cuts them out of CelebA's unaligned pictures.

Points are x and y in pixels, y downwards, with whole numbers at the pixels' centres, as CelebA's lists have them; the
five are left eye, right eye, nose, left and right corner of the mouth, left as seen in the picture.
"""

import numpy as np
from PIL import Image

EYE_DISTANCE = 70 / 256
"""Distance of the mean face's eyes, in sides of the picture: ELEGANT's 70 of 256 pixels."""

SHAPE = np.array([(69.1, 111.3), (107.9, 111.3), (87.4, 135.3), (70.8, 151.9), (106.0, 151.9)])
"""Mean landmarks of 400 of CelebA's aligned pictures."""


def mean_face(size: int) -> np.ndarray:
    """Where the five landmarks belong in an aligned picture of `size` pixels: float64 (5, 2).

    The eyes are EYE_DISTANCE apart; the middle of the five points, whose place the paper does not give, is that of the
    picture.
    """
    scale = EYE_DISTANCE * size / (SHAPE[1, 0] - SHAPE[0, 0])
    return (SHAPE - SHAPE.mean(axis=0)) * scale + (size - 1) / 2


def similarity(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The turn, uniform scale and shift that brings `points` (K, 2) nearest to `target` (K, 2) by least squares.

    Returns the matrix (2, 3) that maps (x, y, 1); it never mirrors. Raises ValueError where all points are one.
    """
    # As complex numbers a similarity is z -> factor * z + shift.
    z, w = (np.asarray(p, np.float64) @ (1, 1j) for p in (points, target))
    centred = z - z.mean()
    spread = np.vdot(centred, centred).real
    if spread == 0:
        raise ValueError("points that all coincide have no size and no direction")
    factor = np.vdot(centred, w) / spread
    shift = w.mean() - factor * z.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def align(image: Image.Image, landmarks: np.ndarray, size: int = 256) -> np.ndarray:
    """The face with these landmarks (5, 2), turned, scaled and moved onto the mean face; black where there is none.

    Returns (size, size, 3) uint8 of an RGB picture of any size. Raises ValueError where all landmarks coincide.
    """
    target = mean_face(size) + 0.5  # from here on with whole numbers at the pixels' edges, as Pillow counts
    points = np.asarray(landmarks, np.float64) + 0.5
    matrix = similarity(points, target)
    scale = np.hypot(matrix[0, 0], matrix[1, 0])
    if scale < 1:
        # Pillow's affine transform reads single pixels: what it would skip is averaged before.
        reduced = [max(1, round(side * scale)) for side in image.size]
        points = points * reduced / np.array(image.size)
        image = image.resize((reduced[0], reduced[1]), Image.Resampling.BICUBIC)
    # Pillow asks where in the picture each pixel of the result comes from.
    backwards = np.linalg.inv(np.vstack([similarity(points, target), (0.0, 0.0, 1.0)]))[:2]
    coefficients = tuple(backwards.ravel().tolist())
    return np.asarray(image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC))
