"""Faces in a picture, with five landmarks each.

A detector is a function, so any other one may stand in for `yunet`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from faceattr_jax.data import align
from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import weights

SIDE = 640
"""The longest side (pixels) to which a picture is reduced before faces are looked for."""

CLOSE = 256
"""Side of the upright close-up in which each of them is looked at again."""

SCORE = 0.7
"""What is surer than this is a face."""


class Face(NamedTuple):
    """Where a face is: in pixels, whole numbers at their centres, as everywhere with landmarks.

    box: left, top, right, bottom. landmarks: float64 (5, 2) of x, y, in the order of `faceattr_jax.data.align`.
    score: from 0 to 1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float


Detector = Callable[[Image.Image], list[Face]]
"""The faces in an RGB picture, in no order."""


def yunet(path: str = "") -> Detector:
    """OpenCV's YuNet; `path` is its file or folder, by default where `weights.find` finds it.

    Raises UserError, naming the extra to install, where OpenCV or the weights are not there.
    """
    try:
        import cv2
    except ImportError:
        raise UserError(
            "finding faces needs OpenCV: pip install 'faceattr_jax[photos]', or say where the face is with --landmarks, "
            "or with --aligned that the picture is one"
        ) from None
    file, _ = weights.find(weights.YUNET, path)
    network: Any = cv2.FaceDetectorYN.create(str(file), "", (SIDE, SIDE), SCORE)

    def look(image: Image.Image) -> np.ndarray:
        """(n, 15): left, top, width, height, x and y of five landmarks, score."""
        network.setInputSize(image.size)
        _, rows = network.detect(np.ascontiguousarray(np.asarray(image)[..., ::-1]))
        return np.zeros((0, 15)) if rows is None else rows.astype(np.float64)

    def detect(image: Image.Image) -> list[Face]:
        scale = min(1.0, SIDE / max(image.size))
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        faces = []
        for row in look(image.resize(small, Image.Resampling.BILINEAR, reducing_gap=3.0)):
            left, top, width, height = row[:4] / scale
            landmarks = _closer(image, (row[4:14].reshape(5, 2) + 0.5) / scale - 0.5, look)
            faces.append(Face((left, top, left + width, top + height), landmarks, float(row[14])))
        return faces

    return detect


def _closer(image: Image.Image, landmarks: np.ndarray, look: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """The landmarks (5, 2) as they are seen in a close-up, where every face is upright and of one size.

    What the detector says of a face depends on its size and slant; this does not.
    """
    mean = align.mean_face(CLOSE) + 0.5
    matrix = align.similarity(landmarks + 0.5, mean)
    rows = look(Image.fromarray(align.cut(image, matrix, CLOSE, Image.Resampling.BILINEAR)))
    if not len(rows):
        return landmarks
    seen = rows[:, 4:14].reshape(-1, 5, 2) + 0.5
    away = np.abs(seen - mean).mean(axis=(1, 2))
    nearest = seen[away.argmin()]
    if away.min() > align.EYE_DISTANCE * CLOSE / 4:  # another face
        return landmarks
    return np.column_stack([nearest, np.ones(5)]) @ align.inverse(matrix).T - 0.5
