"""TFDS's `celeb_a`: writing it from a local folder, reading it, and letting TFDS download it.

No TensorFlow is needed, except to write tfrecord files: records are read as bytes, by position, and parsed as the
`tf.train.Example` they are, in tens of microseconds where TFDS's own decoding takes over half a millisecond.
"""

import importlib.util
import io
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from PIL import Image

from faceattr_jax import attributes
from faceattr_jax.data import celeba, crops
from faceattr_jax.data.folder import LANDMARKS, Complain, Contents, decoded, refuse
from faceattr_jax.data.images import read_image
from faceattr_jax.data.source import Table
from faceattr_jax.errors import UserError

SPLITS = ("train", "validation", "test")
"""TFDS's names of the splits, in the order of faceattr_jax.data.source.SPLITS."""

Format = Literal["array_record", "tfrecord"]


class Records(Protocol):
    """Serialised examples by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> bytes: ...


class TfRecords:
    """The records of tfrecord files, found once by their lengths and then read where they lie.

    Checksums are not verified: a damaged picture shows when it is decoded. Raises UserError for a file that ends
    within a record.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._places = list[tuple[np.ndarray, int, int]]()
        for file in files:
            data = np.memmap(file, mode="r") if file.stat().st_size else np.empty(0, np.uint8)
            start = 0
            # Each record: its length (8 bytes), the length's checksum (4), the record, its checksum (4).
            while start + 12 <= len(data):
                (length,) = struct.unpack("<Q", data[start : start + 8].tobytes())
                self._places.append((data, start + 12, start + 12 + length))
                start += length + 16
            if start != len(data):
                raise UserError(f"'{file}' is cut short; it ends within a record")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> bytes:
        data, start, end = self._places[position]
        return data[start:end].tobytes()


class TfdsSource:
    """A Source of TFDS's `celeb_a` in `data_dir`, written as array_record or tfrecord; pictures in its own order.

    The labels are gathered in one pass when it is opened; pictures are decoded when they are asked for. A picture's
    name is its split and position: TFDS does not keep file names.

    Complains of damaged records, and leaves them out; raises UserError where there is no complete `celeb_a`, or one
    in another file format.
    """

    def __init__(self, data_dir: Path, *, size: int, crop: str, complain: Complain = refuse) -> None:
        crops.preset(crop)
        self.size = size
        self.crop = crop
        self._places = list[tuple[Records, int]]()
        names, rows = list[str](), list[tuple[list[int], int, list[int], list[int]]]()
        for split, (name, records) in enumerate(_records(data_dir).items()):
            for i in range(len(records)):
                try:
                    features = _features(records, i)
                except UserError as error:
                    complain(f"'{name}/{i:06d}': {error}")
                    continue
                self._places.append((records, i))
                names.append(f"{name}/{i:06d}")
                rows.append(
                    (
                        [features[f"attributes/{name}"].int64_list.value[0] for name in attributes.CELEBA],
                        split,
                        # Version 2.0 of celeb_a has no identities.
                        features["identity/Identity_No"].int64_list.value[:1],
                        [features[f"landmarks/{point}"].int64_list.value[0] for point in LANDMARKS],
                    )
                )
        if not rows:
            raise UserError(f"'{data_dir}' has no record that can be read; write or download celeb_a again")
        labels, splits, identity, landmarks = zip(*rows, strict=True)
        self.table = Table(
            attributes=attributes.CELEBA,
            labels=np.array(labels, bool),
            split=np.array(splits, np.int8),
            names=names,
            identity=np.array(identity, np.int64)[:, 0] if all(identity) else None,
            landmarks=np.array(landmarks, np.float32).reshape(-1, 5, 2),
        )

    def images(self, indices: np.ndarray) -> np.ndarray:
        """(B, size, size, 3) uint8 at `indices` (B,); UserError for a picture that cannot be decoded."""
        return decoded(self._decode, indices, self.size)

    def picture(self, index: int) -> Image.Image:
        """The picture at `index`, decoded and not cropped."""
        records, i = self._places[index]
        jpeg = _features(records, i)["image"].bytes_list.value[0]
        return read_image(io.BytesIO(jpeg), self.table.names[index])

    def _decode(self, index: int) -> np.ndarray:
        landmarks = self.table.landmarks
        assert landmarks is not None  # every record has them
        return crops.crop(self.picture(index), self.crop, self.size, landmarks[index])


def _features(records: Records, position: int) -> Mapping[str, Any]:
    """The features of a record by their names; UserError where it is damaged."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        features = tf_example_pb2.Example.FromString(records[position]).features.feature
    except (DecodeError, RuntimeError) as error:  # the latter by array_record, whose checksum failed
        raise UserError(f"the record is damaged ({error}); write or download celeb_a again") from None
    if "image" not in features:
        raise UserError("the record is damaged (it has no image); write or download celeb_a again")
    return features


def _records(data_dir: Path) -> dict[str, Records]:
    """The records of every split in the newest version of `celeb_a` under `data_dir`."""
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    versions = [path.parent for path in (data_dir / "celeb_a").glob("*.*.*/dataset_info.json")]
    if not versions:
        raise UserError(
            f"'{data_dir}' has no complete celeb_a; `faceattr data tfds` writes one from a folder in CelebA's layout"
        )
    newest = max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    try:
        builder = tfds.builder_from_directory(newest)
    except (ValueError, ParseError) as error:
        raise UserError(f"'{newest}' is damaged ({error}); write or download it again") from None
    if missing := set(SPLITS) - set(builder.info.splits):
        raise UserError(f"'{newest}' lacks the split '{min(missing)}'; write or download it again")
    file_format = builder.info.file_format.value
    if file_format not in get_args(Format):
        raise UserError(f"'{newest}' holds {file_format} files; {' and '.join(get_args(Format))} can be read")
    found = dict[str, Records]()
    for split in SPLITS:
        files = [Path(file) for file in builder.info.splits[split].filepaths]
        for file in files:
            if not file.is_file():
                raise UserError(f"'{file}' is missing; write or download celeb_a again")
        if file_format == "tfrecord":
            found[split] = TfRecords(files)
        else:
            raw = tfds.decode.DeserializeMethod.RAW_BYTES
            found[split] = builder.as_data_source(split, deserialize_method=raw)
        count = builder.info.splits[split].num_examples
        if len(found[split]) != count:
            raise UserError(
                f"'{newest}' has {len(found[split])} {split} pictures where its dataset_info.json counts {count}; "
                "write or download it again"
            )
    return found


def write_tfds(folder: str | Path, data_dir: str | Path, file_format: Format = "array_record") -> Path:
    """Write a standard `celeb_a` from local pictures; `tfds.builder("celeb_a", data_dir=data_dir)` then reads it.

    Args:
      folder: pictures in CelebA's layout, with identities and landmarks, or a folder with a `labels.csv` that has all
        of CelebA's columns. The pictures, aligned JPEGs of 178 x 218, go in as they are, byte for byte.
      data_dir: where TFDS keeps data sets; `celeb_a` below it appears when it is complete.
      file_format: "array_record", or "tfrecord", which needs TensorFlow.

    Returns:
      The folder of the data set.

    Raises UserError where something is missing or damaged, or where a `celeb_a` is there already.
    """
    import tensorflow_datasets as tfds

    _check_format(file_format)
    contents = celeba.read(Path(folder).expanduser())
    table = contents.table
    if set(table.attributes) != set(attributes.CELEBA):
        lacking = set(attributes.CELEBA) ^ set(table.attributes)
        raise UserError(f"celeb_a holds exactly CelebA's 40 attributes; those of '{folder}' differ in {min(lacking)}")
    if table.identity is None or table.landmarks is None:
        what = "identities (identity_CelebA.txt)" if table.identity is None else f"landmarks ({celeba.ALIGNED[1]}.txt)"
        raise UserError(f"celeb_a holds {what}, which '{folder}' lacks")
    for split, name in enumerate(SPLITS):
        if not (table.split == split).any():
            raise UserError(f"celeb_a has pictures in every split; '{folder}' has none for {name}")
    base = tfds.builder_cls("celeb_a")

    class Builder(base, skip_registration=True):  # type: ignore[call-arg,valid-type,misc]
        name = "celeb_a"
        pkg_dir_path = base.pkg_dir_path

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
            return {name: _examples(contents, split) for split, name in enumerate(SPLITS)}

    builder = Builder(data_dir=str(data_dir))
    written = Path(builder.data_dir)
    if written.exists():
        raise UserError(f"'{written}' is there already; remove it, or give another data_dir")
    with tempfile.TemporaryDirectory() as downloads:  # TFDS wants one, though nothing is downloaded
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_dir=downloads, download_config=config, file_format=file_format)
    return written


def download_tfds(data_dir: str | Path, file_format: Format = "array_record") -> Path:
    """Let TFDS download CelebA and write `celeb_a` under `data_dir`; one that is there already is left as it is.

    Returns the folder of the data set. Raises UserError where the download fails, as it often does: CelebA's host
    counts downloads and refuses more than it likes.
    """
    import tensorflow_datasets as tfds

    _check_format(file_format)
    builder = tfds.builder("celeb_a", data_dir=str(data_dir))
    try:
        builder.download_and_prepare(file_format=file_format)
    # The reasons are many (no network, a quota page in place of an archive, a checksum), the remedy is one.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"TFDS could not download celeb_a ({reason}); fetch CelebA's files by hand, "
            "then write it with `faceattr data tfds --from FOLDER`"
        ) from error
    return Path(builder.data_dir)


def _check_format(file_format: str) -> None:
    if file_format not in get_args(Format):
        raise UserError(f"unknown file format '{file_format}'; known are {', '.join(get_args(Format))}")
    if file_format == "tfrecord" and not importlib.util.find_spec("tensorflow"):
        raise UserError("writing tfrecord files needs TensorFlow; install faceattr_jax[tf], or write array_record")


def _examples(contents: Contents, split: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pictures of a split as TFDS's builder yields them: a key, and the features."""
    table = contents.table
    identity, landmarks = np.asarray(table.identity).tolist(), np.asarray(table.landmarks).reshape(-1, 10)
    for i in np.flatnonzero(table.split == split).tolist():
        yield (
            table.names[i],
            {
                "image": io.BytesIO(_aligned_jpeg(contents.folder / table.names[i])),
                "landmarks": dict(zip(LANDMARKS, np.rint(landmarks[i]).astype(int).tolist(), strict=True)),
                "attributes": dict(zip(table.attributes, table.labels[i].tolist(), strict=True)),
                "identity": {"Identity_No": identity[i]},
            },
        )


def _aligned_jpeg(path: Path) -> bytes:
    """The file's bytes, after a look that they decode to what `celeb_a` declares."""
    read_image(path)
    with Image.open(path) as image:
        if (image.format, image.mode, image.size) != ("JPEG", "RGB", crops.ALIGNED):
            raise UserError(
                f"'{path}' is {image.format} {image.mode} of {image.width}x{image.height}; "
                "celeb_a holds RGB JPEGs of 178x218"
            )
    return path.read_bytes()
