import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from faceattr_jax.data import images
from faceattr_jax.errors import UserError


def read(image: Image.Image, form: str = "PNG", **options) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, form, **options)
    file.seek(0)
    result = images.read_image(file, "x")
    assert result.mode == "RGB"
    return np.asarray(result)


def test_rgb_is_read_as_it_is(picture):
    np.testing.assert_array_equal(read(picture(0)), np.asarray(picture(0)))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_modes_are_converted(picture, mode):
    converted = picture(0).convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    np.testing.assert_array_equal(read(converted, form), np.asarray(converted.convert("RGB")))


def test_cmyk_jpeg_keeps_its_colours(picture):
    difference = read(picture(0).convert("CMYK"), "JPEG", quality=95).astype(int) - np.asarray(picture(0))
    assert np.abs(difference).mean() < 4


def test_transparent_pixels_lie_over_white():
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:10, :, 3] = 255
    rgba[10:15, :, 3] = 51  # a fifth
    result = read(Image.fromarray(rgba))
    assert result[0, 0].tolist() == [200, 0, 0]
    np.testing.assert_allclose(result[12, 0], [0.2 * 200 + 0.8 * 255, 204, 204], atol=1)
    assert result[19, 0].tolist() == [255, 255, 255]
    assert read(Image.fromarray(rgba[..., [0, 3]]))[12, 0].tolist() == [244, 244, 244]  # gray with alpha


def test_sixteen_bit_gray_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 400).astype(np.uint16).reshape(20, 20)
    np.testing.assert_allclose(read(Image.fromarray(ramp))[..., 1], ramp / 257, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(picture, orientation):
    upright = picture(0)
    # The inverse of what the tag asks a viewer for.
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(turn[orientation]) if orientation in turn else upright
    np.testing.assert_array_equal(read(stored, exif=exif.tobytes()), np.asarray(upright))


@pytest.fixture(scope="session")
def bad_files(tmp_path_factory, picture):
    folder = tmp_path_factory.mktemp("bad")
    picture(0).save(folder / "truncated.jpg")
    jpeg = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "head.jpg").write_bytes(jpeg[:20])
    picture(0).save(folder / "damaged.png")
    png = (folder / "damaged.png").read_bytes()
    (folder / "damaged.png").write_bytes(png[:1000] + bytes(100) + png[1100:])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("not a picture")
    (folder / "folder.jpg").mkdir()
    picture(0, 10, 10).save(folder / "small.jpg")
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    Image.new("1", (9_500, 9_500)).save(folder / "large.png")
    return folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("absent.jpg", "there is no picture"),
        ("truncated.jpg", "damaged or cut short"),
        ("head.jpg", "not a picture|damaged or cut short"),
        ("damaged.png", "damaged or cut short"),
        ("empty.jpg", "not a picture"),
        ("text.jpg", "not a picture"),
        ("folder.jpg", r"cannot be read \(Is a directory\)"),
        ("small.jpg", "10x10, too small to show a face; a picture has at least 16 pixels per side"),
        ("huge.png", r"too large to decode \(more than 89,478,485 pixels\)"),
        ("large.png", "too large to decode"),
    ],
)
def test_bad_files_are_named(bad_files, name, says):
    with pytest.raises(UserError, match=says) as error:
        images.read_image(bad_files / name)
    assert name in str(error.value)


def test_the_limit_itself_is_decoded(monkeypatch, picture):
    monkeypatch.setattr(images, "MAX_PIXELS", 178 * 218)
    assert read(picture(0)).shape == (218, 178, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 178 * 218 - 1)
    with pytest.raises(UserError, match="178x218, more than 38,803 pixels"):
        read(picture(0))


def test_value_ranges_round_trip():
    levels = np.arange(256, dtype=np.uint8)
    floats = images.to_float(levels)
    assert floats.dtype == np.float32
    assert (floats[0], floats[255]) == (-1, 1)
    np.testing.assert_array_equal(images.to_uint8(floats), levels)
    np.testing.assert_array_equal(images.to_uint8(np.float32([-1.5, -1, 0, 1, 3])), [0, 0, 128, 255, 255])


def test_value_ranges_under_jit(strict_promotion):
    levels = jnp.arange(256, dtype=jnp.uint8)
    floats = jax.jit(images.to_float)(levels)
    assert floats.dtype == jnp.float32
    np.testing.assert_allclose(floats, images.to_float(np.asarray(levels)), atol=1e-6)
    back = jax.jit(images.to_uint8)(floats)
    assert back.dtype == jnp.uint8
    np.testing.assert_array_equal(back, levels)
