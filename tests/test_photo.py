"""Pixels: where a face is cut, what is added to a photo, and what of its file stays."""

import io

import numpy as np
import pytest
from PIL import Image

from faceattr_jax import photo
from faceattr_jax.data import align, crops
from faceattr_jax.data.images import read_image
from faceattr_jax.errors import UserError
from faceattr_jax.photos import edit_files, edit_photo
from tests.painter import SIZE, change, face_at, noise, outside, smooth

ORIENTATION, MAKE = 0x0112, 0x010F

PLACES = {
    "as CelebA": (face_at(90, 110), "center178"),
    "large": (face_at(150, 150, 1.5), "vaegan148"),
    "small and slanting": (face_at(60, 70, 0.3, 0.7), "attgan170"),
    "upside down at a corner": (face_at(10, 290, 0.8, 3.0), "vaegan148"),
    "of unaligned pictures": (face_at(150, 150, 0.9, -0.4), "landmarks5"),
}


def test_an_aligned_picture_is_cut_as_in_training():
    """Where the landmarks are the mean ones the similarity is none, and the crop the preset's own."""
    picture = smooth(178, 218)
    for name in ("center178", "attgan170", "attgan170c", "vaegan148", "landmarks5"):
        found = align.cut(picture, crops.placement(name, 64, align.SHAPE), 64, crops.preset(name).resample)
        expected = crops.crop(picture, name, 64).astype(int)
        difference = np.abs(found - expected)[4:-4, 4:-4]  # where the frame of landmarks5 is partly black
        assert difference.max() <= 4, name
        assert difference.mean() < 1, name
    np.testing.assert_allclose(crops.mean_landmarks("landmarks5", 64), align.mean_face(64))
    square = crops.placement("none", 64, align.SHAPE)  # faces of unknown place: CelebA's square
    np.testing.assert_allclose(square, crops.placement("center178", 64, align.SHAPE))


@pytest.mark.parametrize("place", PLACES)
def test_a_face_is_cut_as_a_loop_cuts_it(place):
    """Each pixel is the mean of the picture over it; what is off the picture is the nearest of it."""
    landmarks, name = PLACES[place]
    picture = smooth(300, 300)
    values = np.asarray(picture).astype(float)
    matrix = crops.placement(name, SIZE, landmarks)
    found = align.cut(picture, matrix, SIZE, Image.Resampling.BILINEAR)
    back = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))
    expected = np.zeros((SIZE, SIZE, 3))
    parts = (np.arange(8) + 0.5) / 8
    for row in range(SIZE):
        for column in range(SIZE):
            for dy in parts:
                x, y, _ = back @ np.stack([column + parts, np.full(8, row + dy), np.ones(8)])
                x, y = (np.clip(v, 0, 299).astype(int) for v in (x, y))
                expected[row, column] += values[y, x].mean(axis=0) / 8
    assert np.abs(found - expected).mean() < 2.5
    assert np.abs(found - expected).max() < 14


def test_detail_finer_than_the_model_is_averaged_not_sampled():
    stripes = np.zeros((1200, 1200, 3), np.uint8)
    stripes[:, ::2] = 200
    found = align.cut(
        Image.fromarray(stripes),
        crops.placement("center178", SIZE, face_at(600, 600, 5)),
        SIZE,
        Image.Resampling.BILINEAR,
    )
    np.testing.assert_allclose(found, 100, atol=2)


@pytest.mark.parametrize("place", PLACES)
def test_a_difference_is_added_as_a_loop_adds_it(place):
    """Linear in the crop's x and y, so that interpolation is exact; and bit-identical pixels outside."""
    landmarks, name = PLACES[place]
    picture = noise(300, 300)
    ramp = np.linspace(-30, 30, SIZE, dtype=np.float32)
    difference = np.stack([*np.broadcast_arrays(ramp[None], ramp[:, None]), np.full((SIZE, SIZE), 20)], axis=-1)
    (a, b, c), (d, e, f) = matrix = crops.placement(name, SIZE, landmarks)
    result = picture.copy()
    photo.paste(result, difference, matrix)
    before, after = (np.asarray(p).astype(int) for p in (picture, result))
    for y in range(300):
        for x in range(300):
            u, v = a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f
            if not (0 < u < SIZE and 0 < v < SIZE):
                assert (after[y, x] == before[y, x]).all()
                continue
            weight = 1.0
            for place_ in (u / SIZE, v / SIZE):
                t = min(1.0, min(place_, 1 - place_) / photo.FALLOFF)
                weight *= 3 * t**2 - 2 * t**3
            step = 60 / (SIZE - 1)
            wanted = weight * np.array([(u - 0.5) * step - 30, (v - 0.5) * step - 30, 20])
            assert np.abs(after[y, x] - before[y, x] - wanted).max() < 0.5 + 1.5 * weight


def test_how_much_of_the_reconstruction_goes_with_an_edit(monkeypatch):
    """Nothing without an edit, almost all that it lacks under a strong one: of the face by all of it, of the
    surroundings where they change."""
    rng = np.random.default_rng(0)
    seen = rng.uniform(-0.5, 0.5, (SIZE, SIZE, 3)).astype(np.float32)
    plain = 0.5 * seen
    assert not photo.difference(seen, plain, plain, "center178").any()
    flat = np.full_like(seen, 0.2)
    for edit, share in ((0.1, 32 / 33), (0.3, 288 / 289), (0.1 / 32**0.5, 1 / 2)):  # 32 e² / (32 e² + 0.1²)
        found = photo.difference(flat, flat - 0.1, flat - 0.1 + edit, "center178")
        np.testing.assert_allclose(found, 127.5 * (edit - share * 0.1), atol=1e-3)
    # By a loop: the means over a pixel's surroundings, weighed by a bell, and over the face.
    monkeypatch.setattr(photo, "_seen_again", lambda difference: difference)
    edited = plain + rng.uniform(-0.4, 0.4, plain.shape).astype(np.float32)
    edited[:, SIZE // 2 :] = plain[:, SIZE // 2 :]
    found = photo.difference(seen, plain, edited, "none")  # such faces are placed as in center178
    powers = np.stack([((edited - plain) ** 2).mean(axis=-1), ((seen - plain) ** 2).mean(axis=-1)], axis=-1)
    region = crops.face_region("center178", SIZE)

    def bell(values, y, x):
        total = weights = 0.0
        for dy in range(-3, 4):
            for dx in range(-3, 4):
                weight = np.exp(-(dy**2 + dx**2) / 2)
                total = total + weight * values[np.clip(y + dy, 0, SIZE - 1), np.clip(x + dx, 0, SIZE - 1)]
                weights += weight
        return total / weights

    face = np.array([[bell(region, y, x) for x in range(SIZE)] for y in range(SIZE)])
    inside = np.tensordot(face, powers, axes=2)
    for y, x in ((0, 0), (12, 3), (5, 9), (12, 12), (14, 15), (14, 17), (2, 20), (23, 23)):
        shares = [32 * strong / (32 * strong + weak) for strong, weak in (bell(powers, y, x), inside)]
        wanted = (edited - plain)[y, x] - max(shares[0], face[y, x] * shares[1]) * (seen - plain)[y, x]
        np.testing.assert_allclose(found[y, x], 127.5 * wanted, atol=1e-3)
    assert not found[:2, SIZE // 2 + 4 :].any()


def test_what_is_added_is_what_a_cut_sees():
    size = 64  # of the model that comes with the package: the fade is four of its pixels wide
    picture = smooth(500, 500)  # the crop's corners are all in it: beyond a border a cut sees what is inside
    matrix = crops.placement("center178", size, face_at(250, 250, 1.6, 0.3))
    difference = np.asarray(smooth(size, size, 1)).astype(np.float32) / 4 - 30
    result = picture.copy()
    photo.paste(result, difference, matrix)
    before, after = (align.cut(p, matrix, size, Image.Resampling.BILINEAR).astype(int) for p in (picture, result))
    inside = slice(size // 8 + 1, -size // 8 - 1)
    np.testing.assert_allclose((after - before)[inside, inside], difference[inside, inside], atol=4)
    assert np.abs(after - before)[0, 0].max() <= 3


def test_fine_contrasts_survive_being_enlarged_and_cut_again():
    """A line one pixel wide: what a cut sees of it is nearer to what was drawn than enlarging alone leaves."""
    flat = np.zeros((SIZE, SIZE, 3), np.float32)
    edited = flat.copy()
    edited[SIZE // 2, 6:18] = 0.4
    picture = Image.new("RGB", (400, 400), (100, 100, 100))
    matrix = crops.placement("center178", SIZE, face_at(200, 200, 1.9))

    def lost(difference):
        result = picture.copy()
        photo.paste(result, difference, matrix)
        after = align.cut(result, matrix, SIZE, Image.Resampling.BICUBIC).astype(float) - 100
        return np.abs(after - 127.5 * edited).max()

    assert lost(photo.difference(flat, flat, edited, "center178")) < 0.5 * lost(127.5 * edited)


def converted(mode: str, width: int = 260, height: int = 240) -> Image.Image:
    picture = noise(width, height)
    if mode in ("RGBA", "LA"):
        picture = picture.convert(mode)
        picture.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)))
    elif mode.startswith("I"):
        values = np.random.default_rng(1).integers(20000, 40000, (height, width))
        kind = {"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode]
        picture = Image.frombytes(mode, (width, height), values.astype(kind).tobytes())
    return picture.convert(mode) if picture.mode != mode else picture


@pytest.mark.parametrize(
    ("mode", "suffix", "kept", "written"),
    [
        ("RGB", ".png", "RGB", ".png"),
        ("RGB", ".webp", "RGB", ".png"),
        ("L", ".jpg", "L", ".png"),
        ("LA", ".png", "LA", ".png"),
        ("RGBA", ".png", "RGBA", ".png"),
        ("RGBA", ".webp", "RGBA", ".png"),
        ("I;16", ".png", "I;16", ".png"),
        ("I;16B", ".tif", "I;16", ".png"),
        ("I", ".tiff", "I;16", ".png"),
        ("CMYK", ".jpg", "CMYK", ".tif"),
        ("P", ".png", "RGB", ".png"),
        ("1", ".png", "L", ".png"),
    ],
)
def test_modes(mode, suffix, kept, written, tmp_path):
    """Mode, size and transparency stay, and all that is away from the face stays bit by bit."""
    path = tmp_path / f"me{suffix}"
    converted(mode).save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    landmarks = face_at(130, 120)
    (target,) = edit_files(change, [path], tmp_path, landmarks=landmarks.ravel())
    assert target.name == f"me.edited{written}"
    with Image.open(path) as before, Image.open(target) as after:
        assert (after.mode, after.size) == (kept, before.size)
        as_kept = before.mode == kept or kept == "I;16"
        old = np.asarray(before if as_kept else before.convert(kept))
        new = np.asarray(after)
    away = outside(Image.fromarray(np.zeros(old.shape[:2], np.uint8)), landmarks)
    np.testing.assert_array_equal(new[away], old[away])
    assert (new != old)[110:130, 120:140].any()
    if kept in ("RGBA", "LA"):
        np.testing.assert_array_equal(new[..., -1], old[..., -1])
    difference = np.asarray(read_image(target)).astype(int) - np.asarray(read_image(path))
    middle = difference[110:130, 120:140]
    if kept == "RGB" or kept == "CMYK":
        np.testing.assert_allclose(middle[..., 0], 0.3 * 127.5, atol=2)
        np.testing.assert_allclose(middle[..., 1:], 0, atol=2)
    elif kept in ("L", "I;16") and mode != "1":
        np.testing.assert_allclose(middle, 0.299 * 0.3 * 127.5, atol=1)


def test_modes_that_become_others(tmp_path):
    values = np.asarray(converted("I;16"))
    grey = Image.fromarray(values)
    grey.save(tmp_path / "grey.png", transparency=30000)
    with Image.open(tmp_path / "grey.png") as image:
        assert image.has_transparency_data
    np.testing.assert_array_equal(photo.Photo.read(tmp_path / "grey.png").image, values)
    wide = Image.fromarray(np.array([[-5, 70000] * 8] * 16, np.int32))
    np.testing.assert_array_equal(photo._editable(wide), [[0, 65535] * 8] * 16)
    Image.fromarray(np.zeros((40, 40), np.float32)).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=r"deep.tif' has floating-point pixels; give it with 8 or 16 bits"):
        photo.Photo.read(tmp_path / "deep.tif")


def test_cmyk_may_get_lighter_than_its_black():
    ink = np.array([[[10, 20, 30, 255], [0, 0, 0, 200], [140, 150, 160, 70]]], np.uint8)
    picture = Image.frombytes("CMYK", (3, 1), ink.tobytes())
    change = np.full((1, 3, 3), 40.0, np.float32)
    after = photo._added(picture, change)
    wanted = np.asarray(picture.convert("RGB")).astype(int) + 40
    np.testing.assert_allclose(np.asarray(after.convert("RGB")), wanted, atol=2)
    assert np.asarray(after)[0, 2, 3] == 70
    np.testing.assert_array_equal(photo._added(picture, 0.01 * change), picture)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation, tmp_path):
    """The same upright photo, stored in eight ways, is edited in the same way and stored as it was."""
    upright = noise(200, 240)
    turned = upright if orientation == 1 else upright.transpose(photo._BACK[orientation])
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKE] = orientation, "Camera"
    path = tmp_path / "me.png"
    turned.save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)
    landmarks = face_at(100, 120)
    (target,) = edit_files(change, [path], tmp_path, landmarks=landmarks.ravel())
    expected = edit_photo(change, upright, [landmarks])
    np.testing.assert_array_equal(read_image(target), expected)
    with Image.open(target) as after:
        assert after.size == turned.size
        assert dict(after.getexif()) == ({} if orientation == 1 else {ORIENTATION: orientation})


def test_exif_and_profile(tmp_path):
    """EXIF stays only when asked to, never with a thumbnail; the colour profile always does."""
    exif, profile = Image.Exif(), b"a profile of colours"
    exif[MAKE], exif[ORIENTATION] = "Camera", 6
    exif[700], exif[34377] = b"XMP with a preview", b"Photoshop's preview"
    exif.get_ifd(0x8825)[1] = "N"  # the place
    exif.get_ifd(0x8769).update({0x927C: b"a maker's preview", 0x920A: 50.0})
    thumbnail = io.BytesIO()
    noise(16, 16).save(thumbnail, "JPEG")
    # IFD0, which links to IFD1, which holds a thumbnail of so many bytes behind it.
    raw = b"Exif\0\0II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x1a\0\0\0"
    raw += b"\x02\0" + b"\x01\x02\x04\0\x01\0\0\0\x38\0\0\0" + b"\x02\x02\x04\0\x01\0\0\0"
    raw += len(thumbnail.getvalue()).to_bytes(4, "little") + b"\0\0\0\0" + thumbnail.getvalue()
    noise(240, 200).save(tmp_path / "thumb.jpg", exif=raw)
    noise(240, 200).save(tmp_path / "me.jpg", exif=exif, icc_profile=profile, comment=b"secret")
    landmarks = face_at(100, 120).ravel()
    for name, keep, tags in (("me", False, {ORIENTATION}), ("me", True, {ORIENTATION, MAKE, 0x8825, 0x8769})):
        out = tmp_path / str(keep)
        (target,) = edit_files(change, [tmp_path / f"{name}.jpg"], out, landmarks=landmarks, keep_exif=keep)
        with Image.open(target) as after:
            assert set(after.getexif()) == tags
            assert dict(after.getexif().get_ifd(0x8769)) == ({0x920A: 50.0} if keep else {})
            assert after.info["icc_profile"] == profile
    assert b"secret" in (tmp_path / "me.jpg").read_bytes()
    assert b"preview" in (tmp_path / "me.jpg").read_bytes()
    target = tmp_path / "plain.jpg"
    edit_files(change, [tmp_path / "me.jpg"], target, landmarks=landmarks, keep_exif=True)
    assert b"secret" not in target.read_bytes()
    assert b"preview" not in target.read_bytes()
    assert thumbnail.getvalue() in (tmp_path / "thumb.jpg").read_bytes()
    target = tmp_path / "kept.jpg"
    edit_files(change, [tmp_path / "thumb.jpg"], target, landmarks=landmarks, keep_exif=True)
    with Image.open(target) as after:
        assert after.getexif()[ORIENTATION] == 6
    assert thumbnail.getvalue() not in target.read_bytes()
