import json
import resource

import numpy as np
import pytest

from faceattr_jax.data.prepare import prepare
from faceattr_jax.data.source import open_source
from faceattr_jax.errors import UserError


@pytest.fixture(scope="module")
def prepared(intact_celeba, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "prepared"
    prepare(str(intact_celeba), out, size=32, crop="vaegan148")
    return out


def test_a_prepared_folder_equals_its_source(intact_celeba, prepared):
    source = open_source(str(intact_celeba), size=32, crop="vaegan148")
    again = open_source(str(prepared), size=32, crop="vaegan148")
    assert (again.size, again.crop) == (32, "vaegan148")
    assert again.table.attributes == source.table.attributes
    for name in ("labels", "split", "names", "identity", "landmarks"):
        np.testing.assert_array_equal(getattr(again.table, name), getattr(source.table, name))
        assert np.asarray(getattr(again.table, name)).dtype == np.asarray(getattr(source.table, name)).dtype
    indices = np.array([11, 0, 5, 0])
    images = again.images(indices)
    np.testing.assert_array_equal(images, source.images(indices))
    images[:] = 0  # a caller's copy, not the file
    assert again.images(indices).any()


def test_prepared_json_says_what_was_done(intact_celeba, prepared):
    about = json.loads((prepared / "prepared.json").read_text())
    assert about["source"] == str(intact_celeba)
    assert (about["size"], about["crop"], about["resample"]) == (32, "vaegan148", "bicubic")
    assert about["counts"] == {"train": 8, "valid": 2, "test": 2}
    assert len(about["attributes"]) == 40
    assert np.load(prepared / "images.npy").shape == (12, 32, 32, 3)


def test_unknown_identities_and_landmarks_stay_unknown(celeba, tmp_path):
    (celeba / "identity_CelebA.txt").unlink()
    (celeba / "list_landmarks_align_celeba.txt").unlink()
    prepare(str(celeba), tmp_path / "out", size=16)
    table = open_source(str(tmp_path / "out"), size=16).table
    assert table.identity is None
    assert table.landmarks is None


def test_synthetic_faces_can_be_prepared(tmp_path):
    prepare("synthetic:60:3", tmp_path / "out", size=32)
    source = open_source("synthetic:60:3", size=32)
    again = open_source(str(tmp_path / "out"), size=32, crop=source.crop)
    np.testing.assert_array_equal(again.images(np.arange(5)), source.images(np.arange(5)))


def test_an_identical_folder_is_reused_and_another_refused(celeba, tmp_path):
    out = tmp_path / "out"
    first = prepare(str(celeba), out, size=16)
    assert not first.reused
    assert "8 train, 2 valid, 2 test at 16 px, crop center178; written" in first.format()
    before = (out / "images.npy").stat().st_mtime_ns
    again = prepare(str(celeba), out, size=16)
    assert again.reused
    assert "left as it is" in again.format()
    for size, crop in ((32, "center178"), (16, "attgan170")):
        with pytest.raises(UserError, match="exists and holds something else"):
            prepare(str(celeba), out, size=size, crop=crop)
    labels = celeba / "list_attr_celeba.txt"
    labels.write_text(labels.read_text().replace(" -1", "  1", 1))
    with pytest.raises(UserError, match="exists and holds something else"):
        prepare(str(celeba), out, size=16)
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="exists and holds something else"):
        prepare(str(celeba), tmp_path / "other", size=16)
    assert (out / "images.npy").stat().st_mtime_ns == before


def test_nothing_is_left_where_a_picture_is_damaged(celeba, tmp_path):
    (celeba / "img_align_celeba" / "000010.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"000010.jpg' is not a picture"):
        prepare(str(celeba), tmp_path / "out" / "deep", size=16)
    assert not list((tmp_path / "out").iterdir())


def test_what_a_killed_run_left_is_no_hindrance(celeba, tmp_path):
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "images.npy").write_bytes(b"half")
    prepare(str(celeba), tmp_path / "out", size=16)
    assert not partial.exists()
    assert len(open_source(str(tmp_path / "out"), size=16).table) == 12


def test_a_full_disk_is_one_sentence(celeba, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file may not outgrow 20,000 bytes: writing fails as it does where the disk is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"out' cannot be written \(File too large\)"):
            prepare(str(celeba), tmp_path / "out", size=64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["celeba"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda out: (out / "prepared.json").write_text("{"), "prepared.json' is damaged"),
        (lambda out: (out / "prepared.json").write_text('{"version": 1}'), "prepared.json' is damaged"),
        (lambda out: (out / "images.npy").unlink(), "is damaged"),
        (lambda out: (out / "images.npy").write_bytes((out / "images.npy").read_bytes()[:-1]), "is damaged"),
        (lambda out: (out / "table.npz").write_bytes((out / "table.npz").read_bytes()[:500]), "is damaged"),
        (lambda out: np.save(out / "images.npy", np.zeros((11, 16, 16, 3), np.uint8)), "does not fit its table"),
        (lambda out: np.save(out / "images.npy", np.zeros((12, 16, 16, 3))), "does not fit its table"),
    ],
)
def test_a_damaged_folder_is_refused(celeba, tmp_path, damage, says):
    prepare(str(celeba), tmp_path / "out", size=16)
    damage(tmp_path / "out")
    with pytest.raises(UserError, match=says):
        open_source(str(tmp_path / "out"), size=16)


def test_another_size_crop_or_version_is_refused(prepared):
    with pytest.raises(UserError, match="prepared at 32 pixels with crop 'vaegan148', not at 64 with 'vaegan148'"):
        open_source(str(prepared), size=64, crop="vaegan148")
    with pytest.raises(UserError, match="not at 32 with 'center178'"):
        open_source(str(prepared), size=32)
    about = json.loads((prepared / "prepared.json").read_text())
    (prepared / "prepared.json").write_text(json.dumps(about | {"version": 99}))
    try:
        with pytest.raises(UserError, match="of version 99, not 1"):
            open_source(str(prepared), size=32, crop="vaegan148")
    finally:
        (prepared / "prepared.json").write_text(json.dumps(about))
