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

SIDES = (640, 1280)
"""The longest sides (pixels) to which a picture is reduced before faces are looked for. The second is tried where the
first shows none, or one so small that there may be smaller ones."""

SMALL = 12
"""A face is small whose eyes are fewer pixels apart in the reduced picture: of those below 8 many are overlooked."""

TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
"""Quarter turns, in which a picture is looked at where it shows no face as it is: faces that slant by more than half a
right angle are not seen."""

CLOSE = 160
"""Side of the upright close-ups in which each of them is looked at again."""

APPROACH = ((32, 0, 0),)
LOOKS = ((26, -5, 3), (30, 4, -6), (34, -2, -3), (38, 6, 5))
"""What close-ups show: the distance of the eyes, and how far off the middle the face is, to the right and down, in
pixels. Each is looked at mirrored, too."""

OVERSHOOT = 1.5
"""How far an approach goes, in steps that the close-ups tell."""

CANDIDATE, SCORE = 0.4, 0.8
"""What is surer than the first is looked at in close-ups; it is a face if half of the last ones are surer than the
second. Of texture they show no face again. Beside a face one that was surer at first sight will do, such as half a one
at the border; alone it may be a face that lies on its side."""


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
            "finding faces needs OpenCV: pip install 'faceattr_jax[photos]', or say with --landmarks where the face "
            "is, or with --aligned that the picture is one"
        ) from None
    file, _ = weights.find(weights.YUNET, path)
    network: Any = cv2.FaceDetectorYN.create(str(file), "", (CLOSE, CLOSE), SCORE)

    def look(image: Image.Image, score: float) -> np.ndarray:
        """(n, 15): left, top, width, height, x and y of five landmarks, score."""
        network.setInputSize(image.size)
        network.setScoreThreshold(score)
        _, rows = network.detect(np.ascontiguousarray(np.asarray(image)[..., ::-1]))
        return np.zeros((0, 15)) if rows is None else rows.astype(np.float64)

    def detect(image: Image.Image) -> list[Face]:
        faces = _upright(image, look)
        for count, turn in enumerate(TURNS, 1):
            if not faces:
                faces = [_turned(face, count, image.size) for face in _upright(image.transpose(turn), look)]
        return faces

    return detect


Look = Callable[[Image.Image, float], np.ndarray]


def _upright(image: Image.Image, look: Look) -> list[Face]:
    faces: list[Face] = []
    shown = False

    def known(points: np.ndarray) -> bool:
        return any(np.linalg.norm(points - f.landmarks, axis=1).mean() < _eyes(f.landmarks) / 2 for f in faces)

    for side in SIDES:
        scale = min(1.0, side / max(image.size))
        small = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        for row in look(image.resize(small, Image.Resampling.BILINEAR, reducing_gap=3.0), CANDIDATE):
            points = (row[4:14].reshape(5, 2) + 0.5) / scale - 0.5
            if known(points):
                continue
            landmarks, sure = _closer(image, points, look)
            shown |= sure
            if (sure or row[14] > SCORE) and not known(landmarks):
                left, top, width, height = (row[:4] / scale).tolist()
                faces.append(Face((left, top, left + width, top + height), landmarks, float(row[14])))
        if scale == 1.0 or (faces and min(_eyes(face.landmarks) for face in faces) * scale >= SMALL):
            break
    return faces if shown else []


def _turned(face: Face, count: int, size: tuple[int, int]) -> Face:
    """What a picture of this size, turned to the left by `count` right angles, shows, where the picture has it."""
    middle = (np.array(size) - 1) / 2
    turned = middle[::-1] if count % 2 else middle

    def back(points: np.ndarray) -> np.ndarray:
        place = (points - turned) @ (1, 1j) * 1j**count
        return np.stack([place.real, place.imag], axis=-1) + middle

    corners = back(np.reshape(face.box, (2, 2)))
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return Face((left, top, right, bottom), back(face.landmarks), face.score)


def _eyes(landmarks: np.ndarray) -> float:
    return float(np.linalg.norm(landmarks[1] - landmarks[0]))


def _closer(image: Image.Image, landmarks: np.ndarray, look: Look) -> tuple[np.ndarray, bool]:
    """The landmarks (5, 2) as close-ups show them, in which every face is upright and of about one size, and whether
    half of the last ones do.

    What a small detector says of a face depends on its slant, its size and the pixel where it begins: by up to a third
    of the eyes' distance where it looks once. Of a slant it reports about half, hence APPROACH. The mean over many
    looks, from where that leads, hardly depends on them.
    """
    for looks, step in ((APPROACH, OVERSHOOT),) * 3 + ((LOOKS, 1.0),):
        seen = [_seen(image, landmarks, look, *where, mirror) for where in looks for mirror in (False, True)]
        found = [points for points in seen if points is not None]
        if not found:
            return landmarks, False
        landmarks = landmarks + step * (np.mean(found, axis=0) - landmarks)
    return landmarks, 2 * len(found) >= len(seen)


def _seen(
    image: Image.Image,
    landmarks: np.ndarray,
    look: Look,
    eyes: float,
    right: float,
    down: float,
    mirror: bool,
) -> np.ndarray | None:
    """The landmarks in one close-up, None where this face is not seen in it; its place there is as in LOOKS."""
    mean = align.mean_face(CLOSE) + 0.5 - CLOSE / 2
    mean = mean * eyes / (align.EYE_DISTANCE * CLOSE) + CLOSE / 2 + (right, down)
    matrix = align.similarity(landmarks + 0.5, mean)
    if mirror:
        matrix = np.array([[-1, 0, CLOSE], [0, 1, 0]]) @ np.vstack([matrix, (0, 0, 1)])
    rows = look(Image.fromarray(align.cut(image, matrix, CLOSE, Image.Resampling.BILINEAR)), SCORE)
    points = rows[:, 4:14].reshape(-1, 5, 2) + 0.5
    back = np.concatenate([points, np.ones((len(rows), 5, 1))], axis=-1) @ align.inverse(matrix).T - 0.5
    if mirror:
        back = back[:, [1, 0, 2, 4, 3]]
    away = np.linalg.norm(back - landmarks, axis=-1).mean(axis=-1)
    if not len(rows) or away.min() > _eyes(landmarks) / 2:  # another face
        return None
    return back[away.argmin()]
