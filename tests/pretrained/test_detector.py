"""Faces found in pictures, by YuNet's own eyes."""

import sys

import numpy as np
import pytest
from PIL import Image

from faceattr_jax import cli
from faceattr_jax.data import align
from faceattr_jax.data.images import read_image
from faceattr_jax.errors import UserError
from faceattr_jax.photos import edit_files
from faceattr_jax.pretrained.detector import TURNS, yunet
from tests.painter import change, editor, noise


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


def test_small_faces_get_a_finer_look(detect):
    """Of eyes 5 pixels apart, where a picture is reduced to 640, nothing is seen; beside a larger face, too."""
    data = pytest.importorskip("skimage.data")
    astronaut = Image.fromarray(data.astronaut()).crop((150, 20, 310, 220))
    canvas = Image.new("RGB", (1280, 900), (90, 120, 90))
    tiny = astronaut.resize((40, 50), Image.Resampling.BILINEAR)
    canvas.paste(tiny, (900, 300))
    (alone,) = detect(canvas)
    np.testing.assert_allclose(alone.landmarks.mean(axis=0), (900 + 75 / 4, 300 + 103 / 4), atol=2)
    canvas.paste(astronaut.resize((80, 100), Image.Resampling.BILINEAR), (200, 300))
    both = sorted(face.landmarks.mean(axis=0)[0] for face in detect(canvas))
    np.testing.assert_allclose(both, (200 + 75 / 2, 900 + 75 / 4), atol=2)


@pytest.mark.parametrize("turn", TURNS)
def test_a_photo_lies_on_its_side(detect, turn):
    """The landmarks, and the order of them, turn with the picture."""
    data = pytest.importorskip("skimage.data")
    astronaut = Image.fromarray(data.astronaut()).crop((100, 0, 360, 240))
    (upright,) = detect(astronaut)
    (face,) = detect(astronaut.transpose(turn))
    marks = np.zeros((240, 260), np.int32)
    for number, (x, y) in enumerate(upright.landmarks.round().astype(int), 1):
        marks[y, x] = number
    turned = np.asarray(Image.fromarray(marks).transpose(turn))
    there = [np.argwhere(turned == number)[0][::-1] for number in range(1, 6)]
    np.testing.assert_allclose(face.landmarks, there, atol=2)
    left, top, right, bottom = face.box
    assert left < face.landmarks[:, 0].min() < face.landmarks[:, 0].max() < right
    assert top < face.landmarks[:, 1].min() < face.landmarks[:, 1].max() < bottom


def test_no_face_is_seen_where_there_is_none(detect):
    """A motorcycle's headlight, gravel and a cat are taken for faces at first sight, in one position or another."""
    data = pytest.importorskip("skimage.data")
    for picture in (data.stereo_motorcycle()[0], data.gravel(), data.chelsea()):
        assert detect(Image.fromarray(picture).convert("RGB")) == []


def test_the_command_without_a_face(detect, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("faceattr_jax.training.compilation_cache.enable", lambda folder: 0)
    monkeypatch.setattr("faceattr_jax.editor.load", lambda path: editor)
    noise(200, 200).save(tmp_path / "nobody.png")
    argv = ["edit", str(tmp_path / "nobody.png"), "--checkpoint=x", "--set=Male=1", f"--out={tmp_path / 'out'}"]
    assert cli.main(argv) == 2
    assert "nobody.png': no face is seen well enough; --landmarks says where one is" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
