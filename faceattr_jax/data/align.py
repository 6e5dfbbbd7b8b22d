"""Alignment of faces by five landmarks, as ELEGANT cuts them out of CelebA's unaligned pictures.

Points are x and y in pixels, y downwards, with whole numbers at the pixels' centres, as CelebA's lists have them; the
five are left eye, right eye, nose, left and right corner of the mouth, left as seen in the picture.
"""

import math

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
    matrix = similarity(np.asarray(landmarks, np.float64) + 0.5, mean_face(size) + 0.5)
    return np.asarray(warp(image, matrix, (size, size)))


def warp(
    image: Image.Image,
    matrix: np.ndarray,
    size: tuple[int, int],
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """What a similarity (2, 3) brings of a picture to one of width and height `size`; black where that is nothing.

    It maps (x, y, 1) counted from the pixels' edges, half a pixel more than landmarks. resample: Pillow's filter where
    the picture is reduced, which antialiases.
    """
    # Pillow's affine transform reads single pixels: it makes the picture at its own scale, to be reduced after it.
    fine = max(1, math.ceil(1 / math.hypot(*matrix[:, 0]) - 1e-6))
    backwards = inverse(matrix) @ np.diag([1 / fine, 1 / fine, 1.0])
    full = (fine * size[0], fine * size[1])
    whole = image.transform(full, Image.Transform.AFFINE, tuple(backwards.ravel()), Image.Resampling.BICUBIC)
    return whole if fine == 1 else whole.resize(size, resample)


def cut(image: Image.Image, matrix: np.ndarray, size: int, resample: Image.Resampling) -> np.ndarray:
    """`warp` to a square of `size` pixels of an RGB picture of any size, whose borders go on beyond it: uint8.

    It looks at the square's surroundings alone, at the fewest pixels that show what the square can.
    """
    scale = math.hypot(*matrix[:, 0])
    reduced = max(1, int(0.5 / scale))
    left, top, right, bottom = bounds(matrix, size, margin=2 * reduced)
    # Where the square is off the picture what is left of it is the picture's nearest pixel.
    x0, x1 = (min(max(0, x), image.width - 1) for x in (left, right - 1))
    y0, y1 = (min(max(0, y), image.height - 1) for y in (top, bottom - 1))
    near = np.asarray(image.reduce(reduced, (x0, y0, x1 + 1, y1 + 1)))
    before = [math.ceil((start - wanted) / reduced) for start, wanted in ((y0, top), (x0, left))]
    after = [math.ceil((wanted - end) / reduced) for end, wanted in ((y1 + 1, bottom), (x1 + 1, right))]
    pads = [(max(0, first), max(0, last)) for first, last in zip(before, after, strict=True)]
    padded = Image.fromarray(np.pad(near, (*pads, (0, 0)), mode="edge"))
    origin = np.array([[reduced, 0, x0 - reduced * pads[1][0]], [0, reduced, y0 - reduced * pads[0][0]], [0, 0, 1.0]])
    return np.asarray(warp(padded, matrix @ origin, (size, size), resample))


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The (2, 3) that undoes an affine (2, 3)."""
    return np.linalg.inv(np.vstack([matrix, (0.0, 0.0, 1.0)]))[:2]


def bounds(matrix: np.ndarray, size: int, margin: int = 0) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels that `matrix` brings into a square of `size` pixels, and a margin."""
    corners = inverse(matrix) @ np.array([(0, size, 0, size), (0, 0, size, size), (1, 1, 1, 1)], np.float64)
    left, top = np.floor(corners.min(axis=1)).astype(int) - margin
    right, bottom = np.ceil(corners.max(axis=1)).astype(int) + margin
    return int(left), int(top), int(right), int(bottom)
