"""Faces found in pictures, by YuNet's own eyes."""

import sys

import numpy as np
import pytest
from PIL import Image

from faceattr_jax.data import align
from faceattr_jax.data.images import read_image
from faceattr_jax.errors import UserError
from faceattr_jax.photos import edit_files
from faceattr_jax.pretrained.detector import yunet
from tests.painter import change, noise


@pytest.fixture(scope="module")
def detect():
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install -e .[photos]")
    try:
        return yunet()
    except UserError as error:
        pytest.skip(str(error))


def test_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    noise(200, 200).save(tmp_path / "me.png")
    with pytest.raises(UserError, match=r"needs OpenCV: pip install 'faceattr_jax\[photos\]'.*--landmarks"):
        edit_files(change, [tmp_path / "me.png"], tmp_path)


def test_the_astronaut(detect, tmp_path):
    """Her eyes, nose and mouth are found within 6 pixels of where a person sees them, turned and enlarged, too."""
    data = pytest.importorskip("skimage.data")
    astronaut = Image.fromarray(data.astronaut())
    by_eye = np.array([(204, 101), (246, 103), (224, 127), (204, 140), (244, 141)])
    (face,) = detect(astronaut)
    assert face.score > 0.8
    np.testing.assert_allclose(face.landmarks, by_eye, atol=6)
    left, top, right, bottom = face.box
    assert left < face.landmarks[:, 0].min() < face.landmarks[:, 0].max() < right
    assert top < face.landmarks[:, 1].min() < face.landmarks[:, 1].max() < bottom
    turn = np.array([[1.94, -0.5, 300.0], [0.5, 1.94, 100.0]])
    (turned,) = detect(align.warp(astronaut, turn, (1500, 1400)))
    there = np.column_stack([face.landmarks + 0.5, np.ones(5)]) @ turn.T - 0.5
    assert np.linalg.norm(turned.landmarks - there, axis=1).mean() < 0.06 * 43 * 2
    assert detect(noise(640, 480)) == []
    astronaut.save(tmp_path / "astronaut.png")
    (target,) = edit_files(change, [tmp_path / "astronaut.png"], tmp_path, detector=lambda: detect)
    difference = np.asarray(read_image(target)).astype(int) - data.astronaut()
    brighter = np.minimum(data.astronaut()[120:140, 220:235, 0].astype(int) + 30, 255)
    assert (np.asarray(read_image(target))[120:140, 220:235, 0] >= brighter).all()
    assert not difference[300:].any()
