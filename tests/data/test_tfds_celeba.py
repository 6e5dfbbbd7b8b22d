import importlib.util
import json
import shutil
import struct
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from faceattr_jax.attributes import CELEBA
from faceattr_jax.data.check import check
from faceattr_jax.data.folder import LANDMARKS
from faceattr_jax.data.source import open_source
from faceattr_jax.data.tfds_celeba import TfRecords, download_tfds, write_tfds
from faceattr_jax.errors import UserError

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data_dir(intact_celeba, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    assert write_tfds(intact_celeba, folder) == folder / "celeb_a" / "2.1.0"
    return folder


def order(table):
    """Rows by their landmarks: TFDS shuffles, and keeps no file names."""
    return np.lexsort(table.landmarks.reshape(-1, 10).T)


def test_plain_tfds_reads_what_was_written(intact_celeba, data_dir):
    builder = tfds.builder("celeb_a", data_dir=data_dir)
    assert [builder.info.splits[split].num_examples for split in SPLITS] == [8, 2, 2]
    source = open_source(str(intact_celeba), size=178)
    wanted = {tuple(points.reshape(-1).astype(int)): i for i, points in enumerate(source.table.landmarks)}
    for number, split in enumerate(SPLITS):
        for example in builder.as_data_source(split):
            i = wanted.pop(tuple(example["landmarks"][name] for name in LANDMARKS))
            assert source.table.split[i] == number
            assert [example["attributes"][name] for name in CELEBA] == source.table.labels[i].tolist()
            assert example["identity"]["Identity_No"] == source.table.identity[i]
            np.testing.assert_array_equal(example["image"][20:198], source.images(np.array([i]))[0])
    assert not wanted


def assert_equals_the_folder(source, folder):
    other = open_source(str(folder), size=source.size, crop=source.crop)
    ours, theirs = order(source.table), order(other.table)
    assert source.table.attributes == CELEBA
    for name in ("labels", "split", "identity", "landmarks"):
        mine, reference = getattr(source.table, name), getattr(other.table, name)
        assert mine.dtype == reference.dtype
        np.testing.assert_array_equal(mine[ours], reference[theirs])
    np.testing.assert_array_equal(source.images(ours), other.images(theirs))


def test_the_source_equals_the_folder(intact_celeba, data_dir):
    source = open_source(str(data_dir), size=48, crop="attgan170")
    assert_equals_the_folder(source, intact_celeba)
    assert source.table.names[0] == "train/000000"
    assert source.table.names[-1] == "test/000001"
    # In TFDS's own order.
    first = tfds.builder("celeb_a", data_dir=data_dir).as_data_source("validation")[1]
    assert source.table.identity[9] == first["identity"]["Identity_No"]


def test_reading_takes_no_tensorflow(data_dir):
    open_source(str(data_dir), size=16).images(np.arange(3))
    assert importlib.util.find_spec("tensorflow") or "tensorflow" not in sys.modules


def framed(records):
    """The bytes of a tfrecord file, with checksums of zero."""
    return b"".join(struct.pack("<QI", len(record), 0) + record + bytes(4) for record in records)


def as_tfrecord(data_dir, folder):
    """The same data set as tfrecord files, each split in two shards."""
    version = folder / "celeb_a" / "2.1.0"
    shutil.copytree(data_dir / "celeb_a" / "2.1.0", version, ignore=shutil.ignore_patterns("*array_record*"))
    info = json.loads((version / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    builder = tfds.builder("celeb_a", data_dir=data_dir)
    for split in info["splits"]:
        raw = builder.as_data_source(split["name"], deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        shards = [[raw[0]], [raw[i] for i in range(1, len(raw))]]
        split["shardLengths"] = [str(len(shard)) for shard in shards]
        for i, shard in enumerate(shards):
            (version / f"celeb_a-{split['name']}.tfrecord-{i:05d}-of-00002").write_bytes(framed(shard))
    (version / "dataset_info.json").write_text(json.dumps(info))
    return folder


def test_tfrecord_files_are_read_without_tensorflow(intact_celeba, data_dir, tmp_path):
    source = open_source(str(as_tfrecord(data_dir, tmp_path)), size=48)
    assert_equals_the_folder(source, intact_celeba)
    np.testing.assert_array_equal(source.table.landmarks, open_source(str(data_dir), size=48).table.landmarks)


def test_tfrecord_files_that_tensorflow_wrote(intact_celeba, tmp_path):
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install faceattr_jax[tf]")
    write_tfds(intact_celeba, tmp_path, "tfrecord")
    assert_equals_the_folder(open_source(str(tmp_path), size=48), intact_celeba)
    examples = tfds.load("celeb_a", data_dir=tmp_path, split="test", download=False).as_numpy_iterator()
    assert {example["identity"]["Identity_No"] for example in examples} == {103}


def test_a_tfrecord_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "x.tfrecord"
    whole = framed([b"hello"] * 3)
    path.write_bytes(whole)
    assert [TfRecords([path])[i] for i in range(3)] == [b"hello"] * 3
    for length in (1, 11, 12, 20, 22, 62):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="ends within a record"):
            TfRecords([path])
    path.write_bytes(b"")
    assert len(TfRecords([path])) == 0


def test_an_existing_set_is_not_overwritten(intact_celeba, data_dir):
    with pytest.raises(UserError, match=r"2.1.0' is there already"):
        write_tfds(intact_celeba, data_dir)


def test_a_version_without_identities_is_read(data_dir, tmp_path):
    folder = as_tfrecord(data_dir, tmp_path)
    for path in (folder / "celeb_a" / "2.1.0").glob("*.tfrecord-*"):
        records = TfRecords([path])
        examples = [tf_example_pb2.Example.FromString(records[i]) for i in range(len(records))]
        for example in examples:
            del example.features.feature["identity/Identity_No"]
        path.write_bytes(framed(example.SerializeToString() for example in examples))
    (folder / "celeb_a" / "2.1.0").rename(folder / "celeb_a" / "2.0.1")
    table = open_source(str(folder), size=16).table
    assert table.identity is None
    assert len(table) == 12


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "identity_CelebA.txt").unlink(), r"identities \(identity_CelebA.txt\), which"),
        (lambda folder: (folder / "list_landmarks_align_celeba.txt").unlink(), "landmarks .* lacks"),
        (
            lambda folder: (folder / "list_eval_partition.txt").write_text(
                (folder / "list_eval_partition.txt").read_text().replace(" 1\n", " 0\n")
            ),
            "celeb_a has pictures in every split; .* has none for validation",
        ),
        (
            lambda folder: (folder / "list_attr_celeba.txt").write_text(
                (folder / "list_attr_celeba.txt").read_text().replace("Bald", "Hairless")
            ),
            "exactly CelebA's 40 attributes",
        ),
        (
            lambda folder: (folder / "img_align_celeba" / "000034.jpg").write_bytes(b"no picture"),
            "000034.jpg' is not a picture",
        ),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(celeba, tmp_path, damage, says):
    damage(celeba)
    with pytest.raises(UserError, match=says):
        write_tfds(celeba, tmp_path / "tfds")
    # Nothing under the name that readers look for.
    assert not list(tmp_path.glob("tfds/celeb_a/2.*"))


def test_pictures_of_another_kind_are_refused(celeba, picture, tmp_path):
    picture(0, 100, 100).save(celeba / "img_align_celeba" / "000001.jpg")
    with pytest.raises(UserError, match=r"000001.jpg' is JPEG RGB of 100x100; celeb_a holds RGB JPEGs of 178x218"):
        write_tfds(celeba, tmp_path / "tfds")


def test_file_formats(celeba, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="known are array_record, tfrecord"):
        write_tfds(celeba, tmp_path, "riegeli")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs TensorFlow"):
        write_tfds(celeba, tmp_path, "tfrecord")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda version: shutil.rmtree(version), "has no complete celeb_a"),
        (lambda version: (version / "dataset_info.json").write_text("{"), "is damaged"),
        (lambda version: next(version.glob("*-test.array_record-*")).unlink(), "is missing"),
        (
            lambda version: (version / "dataset_info.json").write_text(
                (version / "dataset_info.json").read_text().replace("array_record", "riegeli")
            ),
            "holds riegeli files; array_record and tfrecord can be read",
        ),
        (
            lambda version: (version / "dataset_info.json").write_text(
                (version / "dataset_info.json").read_text().replace('"validation"', '"dev"')
            ),
            "lacks the split 'validation'",
        ),
    ],
)
def test_a_damaged_set_is_refused(data_dir, tmp_path, damage, says):
    shutil.copytree(data_dir / "celeb_a", tmp_path / "celeb_a")
    damage(tmp_path / "celeb_a" / "2.1.0")
    with pytest.raises(UserError, match=says):
        open_source(str(tmp_path), size=16)


def test_check_decodes_every_record(data_dir, tmp_path):
    assert not check(str(data_dir)).problems
    folder = as_tfrecord(data_dir, tmp_path)
    test, train = (next((folder / "celeb_a" / "2.1.0").glob(f"*-{split}*-00001-*")) for split in ("test", "train"))
    data = test.read_bytes()
    test.write_bytes(data.replace(b"\xff\xd8\xff", b"???", 1))  # no JPEG, in a record that is whole
    data = bytearray(train.read_bytes())
    data[12:40] = b"\xff" * 28  # no record
    train.write_bytes(data)
    report = check(str(folder))
    assert len(report.problems) == 2
    assert report.problems[0].startswith("'train/000001': the record is damaged")
    assert report.problems[1] == "'test/000001' is not a picture that can be read; give a JPEG or PNG file"
    assert len(report.table) == 11
    with pytest.raises(UserError, match="'train/000001': the record is damaged"):
        open_source(str(folder), size=16)


def test_a_failed_checksum_of_array_record_is_a_damaged_record(data_dir, tmp_path):
    shutil.copytree(data_dir / "celeb_a", tmp_path / "celeb_a")
    path = next((tmp_path / "celeb_a" / "2.1.0").glob("*-train.array_record-*"))
    data = bytearray(path.read_bytes())
    place = data.index(b"\xff\xd8\xff") + 500
    data[place : place + 8] = bytes(8)
    path.write_bytes(data)
    report = check(str(tmp_path))
    assert len(report.problems) == 1
    assert "the record is damaged" in report.problems[0]
    assert len(report.table) == 11


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    builder = type(tfds.builder("celeb_a", data_dir=tmp_path))

    def refuse(self, **options):
        raise ConnectionError("quota exceeded\nfor this file")

    monkeypatch.setattr(builder, "download_and_prepare", refuse)
    with pytest.raises(UserError, match=r"\(quota exceeded\); fetch CelebA's files by hand") as error:
        download_tfds(tmp_path)
    assert "\n" not in str(error.value)


def test_a_set_that_is_there_is_not_downloaded(data_dir):
    assert download_tfds(data_dir) == data_dir / "celeb_a" / "2.1.0"
