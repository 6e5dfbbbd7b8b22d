"""Photos from files through an editor and back to files: which face, which attributes, which command."""

import functools
import io
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from faceattr_jax import cli, photos
from faceattr_jax.data import crops
from faceattr_jax.data.images import read_image
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.photos import Change, edit_files, edit_photo
from tests.painter import SIZE, Painter, change, editor, face_at, noise, outside, seen_by, smooth


def nobody_looks():
    raise AssertionError("no detector is needed")


def test_strength_and_bits():
    """Strength 0 is the photo; at 1 the known difference is added, and the model's blur is not."""
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


def test_faces_are_chosen(tmp_path):
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


def test_forty_faces(tmp_path):
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


def test_landmarks_by_hand(tmp_path):
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


def test_aligned_pictures_give_the_models_size(tmp_path):
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


def test_heic(tmp_path):
    """A phone's photo gives a PNG of its size, upright as its file says, whatever its EXIF repeats of that."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install -e .[heic]")
    path, exif = tmp_path / "me.heic", Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Phone"
    stored = smooth(240, 260)
    picture = stored.transpose(Image.Transpose.ROTATE_270)
    heif.from_pillow(stored).save(path, quality=95, exif=exif.tobytes())
    assert np.abs(np.asarray(read_image(path)).astype(int) - picture).mean() < 3
    landmarks = face_at(130, 120)
    (target,) = edit_files(change, [path], tmp_path, landmarks=landmarks.ravel(), keep_exif=True)
    with Image.open(target) as after:
        assert (after.format, after.size) == ("PNG", picture.size)
        assert dict(after.getexif()) == {0x010F: "Phone"}
    away = outside(picture, landmarks)
    np.testing.assert_array_equal(np.asarray(read_image(target))[away], np.asarray(read_image(path))[away])
    with pytest.raises(UserError, match=r"\.heic files are not written"):
        edit_files(change, [path], tmp_path / "out.heic", landmarks=landmarks.ravel())


def test_heic_without_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "me.heic"
    path.write_bytes(b"\0\0\0\x1cftypheic" + bytes(100))
    for file in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(
            UserError, match=r"HEIC picture, which needs pillow-heif: pip install 'faceattr_jax\[heic\]'"
        ):
            read_image(file, None if file is path else "the photo")


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


def test_command(monkeypatch, tmp_path, capsys):
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
    (tmp_path / "half.jpg").write_bytes(path.read_bytes()[:3000])
    for pictures, message in (
        ([tmp_path / "half.jpg"], "half.jpg' cannot be decoded"),
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
