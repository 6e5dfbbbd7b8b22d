"""Faces in photos: where they are cut, what is added, what stays; with an editor whose edits are known."""

import functools
import io
import sys
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from faceattr_jax import cli, photo, photos
from faceattr_jax.data import align, crops
from faceattr_jax.data.images import read_image
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.photos import Change, edit_files, edit_photo
from faceattr_jax.pretrained.detector import Face, yunet

SIZE = 24
ORIENTATION, MAKE = 0x0112, 0x010F


class Painter:
    """Reconstructs a darker face; Bangs lighten its upper half and Male reddens it. Reads Male off nothing."""

    config = ConfigDict({"image_size": SIZE, "crop": "center178", "method": "painter"})
    attributes = ("Bald", "Bangs", "Male")
    towards = MappingProxyType[str, int]({})

    def __init__(self, *capabilities):
        self.capabilities = frozenset(capabilities or ("edit", "reconstruct", "classify"))

    def own(self, variables, images):
        if "classify" not in self.capabilities:
            raise UserError("cannot read")
        return (self.classify(variables, images) > 0.5).astype(jnp.float32)

    def classify(self, variables, images):
        return jnp.broadcast_to(jnp.array([0.9, 0.1, 0.2]), (len(images), 3))

    def edit(self, variables, images, request):
        change = request.strength * (request.target - request.source)
        top = (jnp.arange(SIZE) < SIZE // 2).astype(jnp.float32)[None, :, None, None]
        red = jnp.array([1.0, 0.0, 0.0])
        bald, bangs, male = jnp.moveaxis(change[:, :, None, None, None], 1, 0)
        return 0.5 * images + 0.2 * bangs * top + 0.3 * male * red - 0.1 * bald

    def reconstruct(self, variables, images, labels=None):
        return 0.5 * images

    def swap(self, variables, images, references, mask):
        return 0.5 * images + jnp.where(mask[:, 1].any(), 0.2 * references[0].mean(), 0.0)


@pytest.fixture(scope="module")
def editor():
    return Editor(Painter(), {})


@pytest.fixture(scope="module")
def change(editor):
    return Change(editor, "Male=1")


def face_at(x: float, y: float, scale: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Landmarks of a mean face, eyes 39 pixels apart times `scale`, in the middle of an upright or turned picture."""
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (align.SHAPE - align.SHAPE.mean(axis=0)) @ turn + (x, y)


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture without fine detail, from 30 to 220."""
    coarse = np.random.default_rng(seed).integers(30, 220, (height // 20 + 2, width // 20 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(60, 190, (height, width, 3), dtype=np.uint8))


def seen_by(*landmarks: np.ndarray):
    """A detector that sees these faces in every picture, and counts how often it looked."""

    def detect(image):
        detect.looked += 1
        return [Face((*points.min(axis=0), *points.max(axis=0)), points, 0.9) for points in landmarks]

    detect.looked = 0
    return lambda: detect


def nobody_looks():
    raise AssertionError("no detector is needed")


def outside(image: Image.Image, landmarks: np.ndarray, crop: str = "center178") -> np.ndarray:
    """(H, W) bool: pixels whose centres are not in the face's crop, by a loop."""
    (a, b, c), (d, e, f) = crops.placement(crop, SIZE, landmarks)
    found = np.ones((image.height, image.width), bool)
    for y in range(image.height):
        for x in range(image.width):
            u, v = a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f
            found[y, x] = not (0 < u < SIZE and 0 < v < SIZE)
    return found


# Geometry.

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


def test_what_is_added_is_what_a_cut_sees():
    picture = smooth(500, 400)
    matrix = crops.placement("center178", SIZE, face_at(250, 200, 1.6, 0.3))
    difference = np.asarray(smooth(SIZE, SIZE, 1)).astype(np.float32) / 4 - 30
    result = picture.copy()
    photo.paste(result, difference, matrix)
    before, after = (align.cut(p, matrix, SIZE, Image.Resampling.BILINEAR).astype(int) for p in (picture, result))
    inside = slice(SIZE // 8 + 1, -SIZE // 8 - 1)
    np.testing.assert_allclose((after - before)[inside, inside], difference[inside, inside], atol=4)
    assert np.abs(after - before)[0, 0].max() <= 3


# Photos.


def test_strength_and_bits(editor):
    """Strength 0 is the photo; at 1 the known difference is added, the model's blur and darkness are not."""
    picture, landmarks = noise(260, 240), face_at(130, 120)
    same = edit_photo(Change(editor, "Male=1", strength=0), picture, [landmarks])
    np.testing.assert_array_equal(same, picture)
    edited = edit_photo(Change(editor, "Male=1"), picture, [landmarks])
    before, after = np.asarray(picture).astype(int), np.asarray(edited).astype(int)
    away = outside(picture, landmarks)
    np.testing.assert_array_equal(after[away], before[away])
    difference = (after - before)[100:140, 110:150]
    np.testing.assert_allclose(difference[..., 0], 0.3 * 127.5, atol=1)
    assert not difference[..., 1:].any()
    # Bangs rule out Bald, which the model reads here.
    bangs = np.asarray(edit_photo(Change(editor, "Bangs=1"), picture, [landmarks])).astype(int) - before
    np.testing.assert_allclose(bangs[50:80, 120:140], (0.2 + 0.1) * 127.5, atol=1)
    np.testing.assert_allclose(bangs[120:150, 120:140], 0.1 * 127.5, atol=1)
    told = np.asarray(edit_photo(Change(editor, "Bangs=1", source="Bald=0"), picture, [landmarks])).astype(int)
    assert not (told - before)[120:150, 120:140].any()


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
def test_modes(mode, suffix, kept, written, change, tmp_path):
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


def test_modes_that_become_others(change, tmp_path):
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
def test_orientation(orientation, change, tmp_path):
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


def test_exif_and_profile(change, tmp_path):
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


def test_faces_are_chosen(change, tmp_path):
    left, right = face_at(100, 110, 0.7), face_at(330, 120, 0.9)
    path = tmp_path / "we.png"
    noise(440, 240).save(path)
    before = np.asarray(read_image(path)).astype(int)

    def edited(face) -> list[bool]:
        out = tmp_path / f"{face}.png"
        edit_files(change, [path], out, face=face, detector=seen_by(right, left))
        difference = np.asarray(read_image(out)) - before
        found = [bool(difference[110:120, x : x + 10].any()) for x in (95, 325)]
        assert not difference[:, 210:225].any()
        return found

    assert edited("largest") == [False, True]
    assert edited("all") == [True, True]
    assert edited(1) == [True, False]
    assert edited(2) == [False, True]
    with pytest.raises(UserError, match=r"we.png': there is no face 3; 2 are seen, and the leftmost is 1"):
        edited(3)
    with pytest.raises(UserError, match=r"we.png': no face is seen well enough"):
        edit_files(change, [path], tmp_path / "none.png", detector=seen_by())
    assert not (tmp_path / "none.png").exists()


def test_forty_faces(change, tmp_path):
    path = tmp_path / "class.png"
    noise(800, 500).save(path)
    faces = [face_at(50 + 100 * (i % 8), 50 + 100 * (i // 8), 0.3, 0.1 * i) for i in range(40)]
    detector = seen_by(*faces)
    edit_files(change, [path], tmp_path, face="all", strip=True, detector=detector)
    difference = np.asarray(read_image(tmp_path / "class.edited.png")).astype(int) - np.asarray(read_image(path))
    middles = np.array([face.mean(axis=0) for face in faces]).round().astype(int)
    assert (difference[middles[:, 1], middles[:, 0], 0] > 30).all()
    assert detector().looked == 1
    with Image.open(tmp_path / "class.strip.png") as sheet:
        assert sheet.height > 40 * 256


def test_landmarks_by_hand(change, tmp_path):
    path = tmp_path / "me.png"
    noise(200, 200).save(path)
    points = face_at(100, 100)
    edit = functools.partial(edit_files, change, [path], tmp_path, detector=nobody_looks)
    assert edit(landmarks=points.ravel().tolist()) == [tmp_path / "me.edited.png"]
    bad = {
        "has 9 numbers instead of 10": points.ravel()[:9],
        "lie outside the picture of 200x200": (points + 150).ravel(),
        "in another order": points[[1, 0, 2, 4, 3]].ravel(),
        "those of no face": np.full(10, 50.0),
    }
    for message, numbers in bad.items():
        with pytest.raises(UserError, match=message):
            edit_files(change, [path], tmp_path / "bad", landmarks=numbers.tolist(), detector=nobody_looks)
    assert not (tmp_path / "bad").exists()


def test_aligned_pictures_give_the_models_size(change, editor, tmp_path):
    """CelebA's always, others where they are said to be faces."""
    for name, size in (("celeba.png", crops.ALIGNED), ("square.png", (50, 40))):
        noise(*size).save(tmp_path / name)
    edit_files(change, [tmp_path / "celeba.png"], tmp_path, detector=nobody_looks, strip=True)
    edit_files(change, [tmp_path / "square.png"], tmp_path, aligned=True, detector=nobody_looks)
    for name, crop in (("celeba", "center178"), ("square", "center")):
        image = crops.crop(read_image(tmp_path / f"{name}.png"), crop, SIZE)
        expected = (np.asarray(editor.edit(image, {"Male": 1})) * 127.5 + 127.5).clip(0, 255)
        with Image.open(tmp_path / f"{name}.edited.png") as result:
            np.testing.assert_allclose(np.asarray(result).astype(float), expected, atol=1)
    # An aligned picture with a face somewhere else.
    edit_files(change, [tmp_path / "celeba.png"], tmp_path / "by_hand", landmarks=face_at(90, 110).ravel().tolist())
    assert read_image(tmp_path / "by_hand" / "celeba.edited.png").size == crops.ALIGNED


def test_a_judge_reads_what_the_model_cannot(tmp_path):
    blind, landmarks = Editor(Painter("edit", "reconstruct"), {}), face_at(130, 120)
    picture = noise(260, 240)

    class Reader(Painter):
        config = ConfigDict({"image_size": 16, "crop": "vaegan148", "method": "reader"})
        attributes = ("Male", "Young", "Bald", "Bangs")

        def classify(self, variables, images):
            assert images.shape == (1, 16, 16, 3)
            return jnp.array([[0.1, 0.9, 0.8, 0.3]])

    judge = Editor(Reader(), {})
    bangs = np.asarray(edit_photo(Change(blind, "Bangs=1", judge=judge), picture, [landmarks])).astype(int) - picture
    np.testing.assert_allclose(bangs[120:150, 120:140], 0.1 * 127.5, atol=1)  # it sees a bald head
    Reader.attributes = ("Male", "Young", "Bald", "Chubby")
    with pytest.raises(UserError, match=r"this judge cannot read all of its attributes.*Bangs is missing"):
        edit_photo(Change(blind, "Bangs=1", judge=Editor(Reader(), {})), picture, [landmarks])
    with pytest.raises(UserError, match="cannot read"):
        edit_photo(Change(blind, "Bangs=1"), picture, [landmarks])


def test_a_reference_lends_its_attributes(tmp_path):
    swapper, landmarks = Editor(Painter("swap", "reconstruct"), {}), face_at(130, 120)
    picture, path = noise(260, 240), tmp_path / "other.png"
    Image.new("RGB", (300, 300), (255, 255, 255)).save(path)
    reference = photos.read_face(swapper, path, seen_by(face_at(150, 150)))
    assert reference.shape == (SIZE, SIZE, 3)
    for names, level in (("Bangs", 0.2), ("Bangs=1,Male", 0.2), ("Male", 0.0)):
        edited = edit_photo(Change(swapper, names, reference=reference), picture, [landmarks])
        difference = np.asarray(edited).astype(int) - picture
        np.testing.assert_allclose(difference[110:130, 120:140], level * 127.5, atol=1)
    for edits, options, idle in (
        ("Bangs=1,Male=0", {}, "Male=0"),
        ("Bangs", {"strength": 2.0, "source": "Male=0"}, "--strength, --source"),
        ("Bangs", {"judge": swapper}, "--judge"),
    ):
        with pytest.raises(UserError, match=f"as that face has them; leave out {idle}"):
            Change(swapper, edits, reference=reference, **options)


def test_command(change, editor, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("faceattr_jax.training.compilation_cache.enable", lambda folder: 0)
    monkeypatch.setattr("faceattr_jax.editor.load", lambda path: editor)
    path, out = tmp_path / "me.jpg", tmp_path / "out.jpg"
    noise(200, 200).save(path)
    landmarks = ",".join(f"{v:.1f}" for v in face_at(100, 100).ravel())
    argv = ["edit", str(path), "--checkpoint=x", "--set=Male=1", f"--landmarks={landmarks}", f"--out={out}", "--strip"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out.split() == [str(out), str(tmp_path / "me.strip.png")]
    with Image.open(out) as image:
        assert (image.format, image.size) == ("JPEG", (200, 200))
    assert cli.main(argv) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert cli.main([*argv[:5], f"--out={tmp_path / 'new.BMP'}"]) == 2
    assert "new.BMP: .BMP files are not written, but .png, .jpg," in capsys.readouterr().err
    noise(200, 200).convert("RGBA").save(tmp_path / "clear.png")
    for pictures, message in (
        ([tmp_path / "clear.png"], "JPEG has no pictures of mode RGBA"),
        ([path, path], "--landmarks are of one picture, and there are 2"),
    ):
        again = [
            "edit",
            *map(str, pictures),
            *argv[2:5],
            f"--out={tmp_path / ('new.jpg' if len(pictures) == 1 else '')}",
        ]
        assert cli.main(again) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new.jpg").exists()


# The detector.


@pytest.fixture(scope="module")
def detect():
    pytest.importorskip("cv2", reason="OpenCV is not installed: pip install -e .[photos]")
    try:
        return yunet()
    except UserError as error:
        pytest.skip(str(error))


def test_without_the_extra(monkeypatch, change, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    noise(200, 200).save(tmp_path / "me.png")
    with pytest.raises(UserError, match=r"needs OpenCV: pip install 'faceattr_jax\[photos\]'.*--landmarks"):
        edit_files(change, [tmp_path / "me.png"], tmp_path)


def test_the_astronaut(detect, change, tmp_path):
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
