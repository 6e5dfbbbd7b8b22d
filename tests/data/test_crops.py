import numpy as np
import pytest
from PIL import Image

from faceattr_jax.data import crops, synthetic
from faceattr_jax.errors import UserError

# (top, left, side), papers.md section 0
SQUARES = {
    "center178": (20, 0, 178),
    "attgan170": (26, 3, 170),
    "attgan170c": (24, 4, 170),
    "vaegan148": (40, 15, 148),
}


@pytest.mark.parametrize(("name", "square"), SQUARES.items())
def test_the_square_is_the_papers(picture, name, square):
    image = picture(0)
    top, left, side = square
    expected = np.asarray(image)[top : top + side, left : left + side]
    np.testing.assert_array_equal(crops.crop(image, name, side), expected)


@pytest.mark.parametrize("name", [*SQUARES, "center"])
def test_reducing_averages(name):
    # Stripes a pixel wide: without antialiasing a reduced picture would keep, or alias, their full contrast.
    stripes = np.zeros((218, 178, 3), np.uint8)
    stripes[:, ::2] = 255
    result = crops.crop(Image.fromarray(stripes), name, 32)
    assert result.shape == (32, 32, 3)
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result[:, 2:-2], 127.5, atol=25)


def test_nothing_outside_the_square_is_seen():
    inside = np.zeros((218, 178, 3), np.uint8)
    outside = inside.copy()
    top, left, side = SQUARES["vaegan148"]
    outside[: top - 0] = 255
    outside[top + side :] = 255
    outside[:, :left] = 255
    outside[:, left + side :] = 255
    for pixels in (inside, outside):
        assert not crops.crop(Image.fromarray(pixels), "vaegan148", 64).any()


def test_center_takes_the_largest_square(picture):
    wide = picture(0, 90, 60)
    np.testing.assert_array_equal(crops.crop(wide, "center", 60), np.asarray(wide)[:, 15:75])
    tall = picture(0, 60, 91)
    np.testing.assert_array_equal(crops.crop(tall, "center", 60), np.asarray(tall)[15:75])


def test_none_keeps_a_square_picture(picture):
    square = picture(0, 64, 64)
    np.testing.assert_array_equal(crops.crop(square, "none", 64), np.asarray(square))


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("center187", (178, 218), r"unknown crop 'center187' \(did you mean 'center178'\?\)"),
        ("attgan170", (100, 100), "178x218, not 100x100; crop 'center' takes"),
        ("center178", (356, 436), "not 356x436"),
        ("none", (178, 218), "square pictures, not 178x218"),
    ],
)
def test_refuses(picture, name, size, says):
    with pytest.raises(UserError, match=says):
        crops.crop(picture(0, *size), name, 64)


def test_the_face_region_holds_the_face_and_not_the_corners():
    points = (synthetic.SyntheticSource(60, size=64).table.landmarks - (0, 20) + 0.5) * 64 / 178 - 0.5
    region = crops.face_region("center178", 64)
    x, y = np.round(points).astype(int).transpose(2, 0, 1)
    assert region[y, x].all()
    assert not region[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert 0.15 < region.mean() < 0.3
    # A tighter crop shows the face larger; a crop by landmarks has it in the middle; of another nothing is known.
    assert crops.face_region("vaegan148", 64).mean() == pytest.approx(region.mean() * (178 / 148) ** 2, rel=0.02)
    rows, columns = np.nonzero(crops.face_region("landmarks5", 64))
    np.testing.assert_allclose([rows.mean(), columns.mean()], 31.5, atol=0.5)
    assert crops.face_region("none", 16).all()
