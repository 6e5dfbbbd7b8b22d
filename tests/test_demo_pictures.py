"""Photos on the page, without it: what is kept of them, where an edit is added, and what comes back."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from faceattr_jax import demo_pictures as pictures
from faceattr_jax import photos
from faceattr_jax.data import align, crops
from faceattr_jax.data.images import read_image
from faceattr_jax.errors import UserError
from faceattr_jax.photo import FALLOFF
from faceattr_jax.pretrained.detector import Face
from tests import runs

SIZE = 32
LIGHTER = np.full((SIZE, SIZE, 3), 0.4, np.float32), np.full((SIZE, SIZE, 3), 51, np.float32)
EXIF_ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def editor(faces):
    """Nothing is computed with it here."""
    return runs.fresh(runs.attgan(faces, crop="center178"))


def landmarks_at(x, y, scale=1.0, angle=0.0):
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (align.SHAPE - align.SHAPE.mean(axis=0)) @ turn + (x, y)


SMALL, LARGE = landmarks_at(100, 110, 0.5), landmarks_at(320, 160, 1.1, 0.3)


@pytest.fixture
def seen(monkeypatch):
    """What is seen in every photo: two faces, of which the second is the larger."""
    found = [Face((*points.min(axis=0), *points.max(axis=0)), points, 0.9) for points in (SMALL, LARGE)]
    monkeypatch.setattr(pictures, "_detector", lambda: lambda image: found)
    return found


def photo(width=480, height=300, mode="RGB"):
    return Image.fromarray(np.random.default_rng(0).integers(60, 190, (height, width, 3), dtype=np.uint8)).convert(mode)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def outside(image, places):
    """Pixels whose centres are in none of the cut-out squares."""
    x, y = np.meshgrid(np.arange(image.width) + 0.5, np.arange(image.height) + 0.5)
    inside = np.zeros(x.shape, bool)
    for place in places:
        u, v = np.einsum("ij,jyx->iyx", place, np.stack([x, y, np.ones_like(x)]))
        inside |= (u > 0) & (u < SIZE) & (v > 0) & (v < SIZE)
    return ~inside


def test_a_photo_comes_back_whole(editor, seen):
    image = photo()
    chosen, reason = pictures.dropped(editor, encoded(image), "me")
    assert (reason, chosen.name, chosen.at, len(chosen.faces)) == ("", "me", 0, 2)
    places = [crops.placement(editor.crop, SIZE, points) for points in (LARGE, SMALL)]
    for face, place in zip(chosen.faces, places, strict=True):
        np.testing.assert_array_equal(face, align.cut(image, place, SIZE, crops.preset(editor.crop).resample))
    for at, points in enumerate((LARGE, SMALL)):
        now = dataclasses.replace(chosen, at=at)
        result = decoded(pictures.finished(now, LIGHTER))
        assert (result.size, result.mode, result.format) == (image.size, "RGB", "PNG")
        np.testing.assert_array_equal(now.face, chosen.faces[at])
        change = np.asarray(result).astype(int) - np.asarray(image)
        assert not change[outside(image, [places[at]])].any()
        x, y = points.mean(axis=0).round().astype(int)
        np.testing.assert_array_equal(change[y - 3 : y + 4, x - 3 : x + 4], 51)
        same = pictures.finished(now, (LIGHTER[0], 0 * LIGHTER[1]))
        np.testing.assert_array_equal(np.asarray(decoded(same)), np.asarray(image))


def test_the_copies_show_what_the_photo_gets(editor, seen, monkeypatch):
    monkeypatch.setattr(pictures, "SIDE", 240)
    image = Image.fromarray(np.full((300, 480, 3), 100, np.uint8))
    chosen, _ = pictures.dropped(editor, encoded(image))
    assert chosen.photo.small.size == (240, 150)
    assert chosen.photo.size == (480, 300)
    before, after = pictures.compared(chosen, LIGHTER, whole=True)
    assert before is chosen.photo.small
    final = decoded(pictures.finished(chosen, LIGHTER))
    np.testing.assert_allclose(np.asarray(after).astype(int), np.asarray(final.resize(after.size)), atol=2)
    # Close up it is the face as it was cut, in more pixels: the mask of a square, by its formula.
    before, after = pictures.compared(chosen, LIGHTER, whole=False)
    t = (np.arange(pictures.CLOSE) + 0.5) / pictures.CLOSE
    t = np.minimum(np.minimum(t, 1 - t) / FALLOFF, 1)
    fade = 3 * t**2 - 2 * t**3
    change = np.asarray(after).astype(int) - np.asarray(before)
    np.testing.assert_allclose(change, np.broadcast_to(51 * np.outer(fade, fade)[..., None], change.shape), atol=1)
    # The line of the wipe is to the left of the face, or nearly at the border.
    left, right = (np.nonzero((np.asarray(final) != 100).any(axis=(0, 2)))[0][i] for i in (0, -1))
    line = pictures.beside(chosen, whole=True)
    assert line / 100 * 480 <= left < right
    assert line / 100 * 480 == pytest.approx(left, abs=16)
    assert pictures.beside(pictures.Chosen(chosen.faces), whole=True) == pictures.beside(chosen, whole=False)


def test_files_keep_what_a_png_can_hold(editor, seen):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[0x010F] = 6, "a camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = photo(300, 480)
    data = encoded(turned.convert("RGBA"), exif=exif, icc_profile=profile)
    chosen, _ = pictures.dropped(editor, data)
    assert chosen.photo.size == (480, 300)
    shown = pictures.compared(chosen, LIGHTER, whole=True)
    assert [image.info["icc_profile"] for image in shown] == [profile, profile]
    result = decoded(pictures.finished(chosen, LIGHTER))
    assert (result.size, result.mode, dict(result.getexif())) == ((480, 300), "RGBA", {})
    assert result.info["icc_profile"] == profile
    upright = np.asarray(turned.transpose(Image.Transpose.ROTATE_270))
    away = outside(result, chosen.photo.places[:1])
    np.testing.assert_array_equal(np.asarray(result)[away, :3], upright[away])

    printed = encoded(photo(mode="CMYK"), "TIFF", icc_profile=b"of inks")
    chosen, _ = pictures.dropped(editor, printed)
    assert "icc_profile" not in chosen.photo.small.info
    result = decoded(pictures.finished(chosen, LIGHTER))
    assert (result.mode, result.info.get("icc_profile")) == ("RGB", None)
    away = outside(result, chosen.photo.places[:1])
    np.testing.assert_array_equal(np.asarray(result)[away], np.asarray(read_image(io.BytesIO(printed)))[away])


def test_without_a_face_the_middle_is_taken(editor, monkeypatch):
    monkeypatch.setattr(pictures, "_detector", lambda: lambda image: [])
    image = photo(101, 60)
    chosen, reason = pictures.dropped(editor, encoded(image))
    assert reason == "'the photo': no face is seen well enough."
    np.testing.assert_array_equal(chosen.face, crops.crop(image, "center", SIZE))
    change = np.asarray(decoded(pictures.finished(chosen, LIGHTER))).astype(int) - np.asarray(image)
    columns = np.nonzero(change.any(axis=(0, 2)))[0]
    assert (columns[0], columns[-1]) == (20, 79)
    np.testing.assert_array_equal(change[25:35, 45:55], 51)


def test_an_aligned_picture_is_one_face(editor, monkeypatch):
    monkeypatch.setattr(pictures, "_detector", lambda: pytest.fail("no detector is needed"))
    image = photo(178, 218)
    chosen, reason = pictures.dropped(editor, encoded(image))
    assert not reason
    np.testing.assert_array_equal(chosen.face, crops.crop(image, editor.crop, SIZE))
    assert decoded(pictures.finished(chosen, LIGHTER)).size == (178, 218)


def test_there_is_a_limit_to_faces_and_pixels(editor, monkeypatch):
    found = [Face((0, 0, 20 + i, 20), landmarks_at(60 + i, 60, 0.3), 0.9) for i in range(pictures.FACES + 5)]
    monkeypatch.setattr(pictures, "_detector", lambda: lambda image: found)
    chosen, _ = pictures.dropped(editor, encoded(photo()))
    assert len(chosen.faces) == len(chosen.photo.near) == len(chosen.photo.places) == pictures.FACES
    largest = crops.placement(editor.crop, SIZE, found[-1].landmarks)
    np.testing.assert_array_equal(chosen.photo.places[0], largest)
    kept = [chosen.photo.small, *chosen.photo.near]
    pixels = sum(image.width * image.height for image in kept)
    assert pixels <= pictures.SIDE**2 + pictures.FACES * pictures.CLOSE**2

    for data, message in (
        (b"hello", "'the photo' is not a picture"),
        (encoded(photo(64, 64))[:60], "damaged or cut short"),
        (encoded(photo(8, 64)), "too small"),
        (encoded(photo(64, 64, "F"), "TIFF"), "'the photo' has floating-point pixels"),
    ):
        with pytest.raises(UserError, match=message):
            pictures.dropped(editor, data)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(UserError, match="4,096 pixels; this page takes up to 4,095"):
        pictures.dropped(editor, encoded(photo(64, 64)))


def test_a_photo_is_edited_as_the_command_does_it(seen):
    class Lightens:
        size, crop, attributes = SIZE, "center178", ("Bangs",)

        def edit(self, face, edits, *, strength, source):
            return np.float32(0.8) * face / 127.5 - 0.8 + 0.4 * strength[0]

    class Change:
        editor = Lightens()

        def __call__(self, look):
            return tuple(self.editor.edit(look(self.editor), {}, strength=[s], source=()) for s in (0, 1))

    image = photo()
    chosen, _ = pictures.dropped(Change.editor, encoded(image))
    edit = pictures.changed(Change.editor, chosen.face, [], {"Bangs": 1.0})
    expected = np.asarray(photos.edit_photo(Change(), image, [LARGE]))
    np.testing.assert_array_equal(np.asarray(decoded(pictures.finished(chosen, edit))), expected)
    assert np.abs(expected.astype(int) - np.asarray(image)).max() > 40


def test_drawn_faces_are_other_people_on_every_page(editor):
    first, second = pictures.drawn_faces(editor, 0), pictures.drawn_faces(editor, 1)
    assert first[0].shape == (SIZE, SIZE, 3)
    assert len({image.tobytes() for image in [*first, *second]}) == 2 * pictures.DRAWN


def test_a_drawn_face_is_shown_as_the_model_draws_it(editor):
    face = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    before, after = pictures.compared(pictures.Chosen([face]), LIGHTER, whole=True)
    assert before == pictures.enlarged(face)
    assert np.asarray(after).min() == np.asarray(after).max() == round(127.5 * 1.4)


def test_every_attribute_is_on_the_page_once():
    from faceattr_jax.attributes import CELEBA

    names = (*CELEBA, "Scar")
    found = pictures.groups(names)
    assert sorted(name for group in found.values() for name in group) == sorted(names)
    assert pictures.groups(["Scar"]) == {"Attributes": ["Scar"]}
    known = {name for group in pictures.GROUPS.values() for name in group}
    assert known < set(CELEBA)


def test_small_pictures_are_magnified_to_look_at():
    assert pictures.enlarged(np.zeros((32, 32, 3), np.uint8)).size == (512, 512)
    assert pictures.enlarged(np.zeros((600, 300, 3), np.uint8)).size == (300, 600)
