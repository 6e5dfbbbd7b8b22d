"""Crops: named presets that turn a picture into a square of training size.

A model works with the crop that it was trained with and badly with any other, so the preset's name is kept in
the checkpoint and applied again wherever the model meets a picture.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from faceattr_jax.data.align import EYE_DISTANCE, SHAPE, align, similarity
from faceattr_jax.errors import UserError, nearest

ALIGNED = (178, 218)
"""Width and height of an aligned CelebA picture, which the presets with a fixed square are for."""

_LARGEST = (20, 0, 178)
"""The largest square of an aligned CelebA picture: `placement` puts faces there for presets that have no place."""

HALF_WIDTH, HALF_HEIGHT = 1.1, 1.3
"""Half-axes of the ellipse that holds a face, around the mean of its five landmarks, in distances of the eyes."""


@dataclass(frozen=True)
class Preset:
    """Which square of the picture to keep, and how to resize it.

    Attributes:
      square: (top, left, side) in an aligned CelebA picture; "centre": the largest centred square of any
        picture; "whole": the picture itself, which must be square; "landmarks": what five landmarks of the face,
        brought to the mean face, leave of any picture (`faceattr_jax.data.align`).
      resample: Pillow's filter; all of them antialias when they reduce.
    """

    square: tuple[int, int, int] | Literal["centre", "whole", "landmarks"]
    resample: Image.Resampling


PRESETS: dict[str, Preset] = {
    # StarGAN's, and the choice for papers that only say "the central part" (papers.md, section 0)
    "center178": Preset((20, 0, 178), Image.Resampling.BILINEAR),
    # AttGAN's own code at 128 pixels and above
    "attgan170": Preset((26, 3, 170), Image.Resampling.BICUBIC),
    # AttGAN-PyTorch (elvisyjlin): the same size, two pixels higher
    "attgan170c": Preset((24, 4, 170), Image.Resampling.BILINEAR),
    # VAE/GAN's, which AttGAN takes at 64 pixels
    "vaegan148": Preset((40, 15, 148), Image.Resampling.BICUBIC),
    # ELEGANT's, out of CelebA's unaligned pictures
    "landmarks5": Preset("landmarks", Image.Resampling.BICUBIC),
    # pictures that are not aligned CelebA, and pictures that were cropped before
    "center": Preset("centre", Image.Resampling.BILINEAR),
    "none": Preset("whole", Image.Resampling.BILINEAR),
}


def preset(name: str) -> Preset:
    """The preset called `name`; UserError, with the nearest name, where there is none."""
    if name not in PRESETS:
        raise UserError(f"unknown crop '{name}'{nearest(name, PRESETS)}; known are {', '.join(PRESETS)}")
    return PRESETS[name]


def by_landmarks(name: str) -> bool:
    """Whether the preset called `name` goes by the landmarks of the face; UserError for an unknown one."""
    return preset(name).square == "landmarks"


def kept(name: str) -> tuple[float, float, float] | None:
    """The square (top, left, side) of aligned CelebA pictures that a preset keeps, None where it is not for these."""
    square = preset(name).square
    if square == "landmarks":  # that of the mean face
        side = (SHAPE[1, 0] - SHAPE[0, 0]) / EYE_DISTANCE
        left, top = SHAPE.mean(axis=0) + 0.5 - side / 2
        return float(top), float(left), float(side)
    return None if isinstance(square, str) else square


def mean_landmarks(name: str, size: int) -> np.ndarray | None:
    """Where the five landmarks of the mean face are in pictures of preset `name`, (5, 2); None where nobody knows."""
    square = kept(name)
    return None if square is None else _mean_landmarks(square, size)


def _mean_landmarks(square: tuple[float, float, float], size: int) -> np.ndarray:
    top, left, side = square
    return (SHAPE + 0.5 - (left, top)) * size / side - 0.5


def face_region(name: str, size: int) -> np.ndarray:
    """Where the mean face is in pictures of preset `name`, (size, size) bool; the whole picture where nobody knows."""
    points = mean_landmarks(name, size)
    return np.ones((size, size), bool) if points is None else _ellipse(points, size)


def placed_region(name: str, size: int) -> np.ndarray:
    """Where `placement` puts the mean face, (size, size) bool."""
    return _ellipse(_mean_landmarks(kept(name) or _LARGEST, size), size)


def _ellipse(points: np.ndarray, size: int) -> np.ndarray:
    x, y = points.mean(axis=0)
    eyes = points[1, 0] - points[0, 0]
    row, column = np.mgrid[:size, :size]
    return ((column - x) / (HALF_WIDTH * eyes)) ** 2 + ((row - y) / (HALF_HEIGHT * eyes)) ** 2 <= 1


def placement(name: str, size: int, landmarks: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) that brings a picture's face with `landmarks` (5, 2) to where preset `name` has faces.

    It maps (x, y, 1), counted from the pixels' edges, to the crop of `size` pixels (`align.warp`). Presets for pictures
    that are not CelebA's show faces anywhere: here as CelebA's largest square does. Raises UserError where all
    landmarks coincide.
    """
    target = _mean_landmarks(kept(name) or _LARGEST, size)
    try:
        return similarity(np.asarray(landmarks, np.float64) + 0.5, target + 0.5)
    except ValueError as error:
        raise UserError(f"landmarks of a face are five places in the picture: {error}.") from None


def crop(image: Image.Image, name: str, size: int, landmarks: np.ndarray | None = None) -> np.ndarray:
    """Cut the square of preset `name` out of an RGB picture and resize it.

    landmarks: (5, 2) as in `faceattr_jax.data.source.Table`, for a preset that goes by them; without any, an aligned
    CelebA picture has the mean ones.

    Returns:
      (size, size, 3) uint8.

    Raises UserError where the preset is unknown or not meant for a picture of this width and height, and where it
    needs landmarks that are not given, or that are all in one place.
    """
    chosen = preset(name)
    width, height = image.size
    if chosen.square == "landmarks":
        if landmarks is None and image.size != ALIGNED:
            raise UserError(f"crop '{name}' goes by five landmarks of the face, which are not known of this picture")
        try:
            return align(image, SHAPE if landmarks is None else landmarks, size)
        except ValueError as error:
            raise UserError(f"crop '{name}' needs five landmarks of the face: {error}") from None
    if isinstance(chosen.square, tuple):
        if image.size != ALIGNED:
            raise UserError(
                f"crop '{name}' is for aligned CelebA pictures of 178x218, not {width}x{height}; "
                "crop 'center' takes the largest centred square of any picture"
            )
        top, left, side = chosen.square
    else:
        if chosen.square == "whole" and width != height:
            raise UserError(
                f"crop '{name}' is for square pictures, not {width}x{height}; "
                "crop 'center' takes the largest centred square of any picture"
            )
        side = min(width, height)
        top, left = (height - side) // 2, (width - side) // 2
    # Cropped before it is resized: the filter then sees nothing outside the square.
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), chosen.resample))
