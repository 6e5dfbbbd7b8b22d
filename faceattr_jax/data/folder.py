"""Pictures in a folder, the lists that describe them, and decoding on all cores.

A folder of pictures with one `labels.csv`, and one with a folder for each person, are read here; CelebA's layout, with
its several lists, in `celeba.py`.
"""

import csv
import functools
import hashlib
import itertools
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from faceattr_jax.data import crops
from faceattr_jax.data.images import read_image
from faceattr_jax.data.source import SPLITS, Table
from faceattr_jax.errors import UserError

PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Endings of picture files."""

LANDMARKS = tuple(
    f"{point}_{axis}" for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)
"""Columns of the landmarks, under CelebA's names."""

LABEL_VALUES = {"1": True, "-1": False, "0": False}
SPLIT_VALUES = {str(value): value for value in range(len(SPLITS))}

Complain = Callable[[str], None]
"""What to do with a problem of the data: `refuse` it, or note it down, and go on without the row it concerns."""


def refuse(problem: str) -> None:
    """Raise the problem as a UserError."""
    raise UserError(problem)


@functools.cache
def decoders() -> ThreadPoolExecutor:
    """Threads that decode pictures, one per core (Pillow lets go of the interpreter lock)."""
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")


def decoded(decode: Callable[[int], np.ndarray], indices: np.ndarray, size: int) -> np.ndarray:
    """(B, size, size, 3) uint8: the results of `decode` at `indices` (B,), on all cores."""
    images = np.empty((len(indices), size, size, 3), np.uint8)
    for i, image in enumerate(decoders().map(decode, np.asarray(indices).tolist())):
        images[i] = image
    return images


@dataclass(frozen=True, eq=False)
class FolderSource:
    """A Source of picture files, decoded when they are asked for.

    `images` raises UserError, naming the file, for a picture that is missing, damaged, or not of the size that the
    crop is meant for.
    """

    folder: Path
    table: Table
    size: int
    crop: str

    def __post_init__(self) -> None:
        if crops.by_landmarks(self.crop) and self.table.landmarks is None:
            raise UserError(
                f"crop '{self.crop}' goes by landmarks, and the lists beside '{self.folder}' have none; add "
                "list_landmarks_align_celeba.txt, for unaligned pictures list_landmarks_celeba.txt, or choose another"
            )

    def images(self, indices: np.ndarray) -> np.ndarray:
        return decoded(self.image, indices, self.size)

    def image(self, index: int) -> np.ndarray:
        """The (size, size, 3) uint8 picture at one index."""
        path = self.folder / self.table.names[index]
        image = read_image(path)
        landmarks = self.table.landmarks
        try:
            return crops.crop(image, self.crop, self.size, None if landmarks is None else landmarks[index])
        except UserError as error:
            raise UserError(f"'{path}': {error}") from None


def pictures(folder: Path) -> set[str]:
    """Names, relative to `folder` and with forward slashes, of the picture files below it."""
    return {
        os.path.relpath(os.path.join(base, file), folder).replace(os.sep, "/")
        for base, _, files in os.walk(folder)
        for file in files
        if os.path.splitext(file)[1].lower() in PICTURES
    }


@dataclass(frozen=True, eq=False)
class Listing:
    """A list file.

    Attributes:
      path: the file.
      columns: names of the columns after the first.
      rows: picture (the first column) -> the line's number and the values of `columns`.
      broken: pictures of lines with another number of values.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[int, list[str]]]
    broken: Set[str]


def listing(path: Path, columns: Iterable[str], lines: Iterable[tuple[int, list[str]]], complain: Complain) -> Listing:
    """Collect the numbered `lines` (picture, values) of a list; complains of a wrong length and of a repeated row.

    Raises UserError where there are no columns or rows, or where two columns have one name.
    """
    columns = tuple(columns)
    if not columns:
        raise UserError(f"'{path}' has no column of values")
    for column in columns:
        if columns.count(column) > 1:
            raise UserError(f"'{path}' has two columns '{column}'; keep one")
    rows = dict[str, tuple[int, list[str]]]()
    broken = set[str]()
    for line, (name, *values) in lines:
        if len(values) != len(columns):
            broken.add(name)
            complain(
                f"'{path}', line {line}: '{name}' has {len(values)} values where the list has {len(columns)} columns"
            )
        elif name in rows:
            complain(f"'{path}', line {line}: '{name}' is listed before, in line {rows[name][0]}")
        else:
            rows[name] = line, values
    if not rows and not broken:
        raise UserError(f"'{path}' lists no pictures")
    return Listing(path, columns, rows, broken)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, ended by LF or CRLF, the last one or not; UserError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"'{path}' is not a text file") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror})") from None


def read_csv(path: Path, complain: Complain) -> Listing:
    """Read a list with a header line whose first column is `file` or `image_id`; UserError for another."""
    reader = csv.reader(read_lines(path))
    lines = ((reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row))
    _, (first, *columns) = next(lines, (0, [""]))
    if first not in ("file", "image_id"):
        raise UserError(f"'{path}' starts with the column '{first}'; the first column is 'file' or 'image_id'")
    return listing(path, columns, lines, complain)


class Field(NamedTuple):
    """Some columns of a listing, and how to read a value of them."""

    listing: Listing
    columns: tuple[str, ...]
    read: Callable[[str], Any]  # raises KeyError, ValueError or OverflowError
    expected: str


class Contents(NamedTuple):
    """What a folder holds.

    Attributes:
      folder: where the pictures are.
      table: of the pictures without a problem.
      unlisted: pictures that are there and in no row, in order.
    """

    folder: Path
    table: Table
    unlisted: list[str]


def read_contents(folder: Path, listed: Listing, fields: Mapping[str, Field], complain: Complain) -> Contents:
    """Bring together the pictures of `folder`, the list of them, and fields named like those of a Table.

    Without a field "split" a picture's split is dealt by a hash of the person, or where that is unknown of the
    name: 8 of 10 to train, one to valid, one to test. It stays the same when other pictures come or go.

    Complains of a picture that is absent, or that a field's list leaves out or has no good value for; raises
    UserError where none is left.
    """
    present = pictures(folder)
    names = list[str]()
    kept: dict[str, list[list[Any]]] = {key: [] for key in fields}
    places = {key: [field.listing.columns.index(column) for column in field.columns] for key, field in fields.items()}
    for name, (line, _) in listed.rows.items():
        problems = list[str]()
        if name not in present:
            problems.append(f"'{listed.path}', line {line}: there is no picture '{folder / name}'")
        row = dict[str, list[Any]]()
        for key, field in fields.items():
            if name not in field.listing.rows:
                if name not in field.listing.broken:
                    problems.append(f"'{field.listing.path}' has no row for '{name}'")
                continue
            at, values = field.listing.rows[name]
            row[key] = parsed = []
            for value in (values[place] for place in places[key]):
                try:
                    parsed.append(field.read(value))
                except (KeyError, ValueError, OverflowError):
                    where = f"'{field.listing.path}', line {at}"
                    problems.append(f"{where}: '{name}' has the value '{value}'; {field.expected}")
                    break
        for problem in problems:
            complain(problem)
        if not problems and len(row) == len(fields):
            names.append(name)
            for key, parsed in row.items():
                kept[key].append(parsed)
    if not names:
        raise UserError(f"'{listed.path}' has no row that can be used")
    unlisted = sorted(present - listed.rows.keys() - listed.broken)
    return Contents(folder, _table(names, fields["labels"].columns, kept), unlisted)


def by_person(folder: Path) -> bool:
    """Whether `folder` looks like CASIA-WebFace: several folders with pictures in them, and no picture beside these."""

    def has_picture(place: str | Path) -> bool:
        with os.scandir(place) as entries:
            return any(os.path.splitext(entry.name)[1].lower() in PICTURES and entry.is_file() for entry in entries)

    with os.scandir(folder) as entries:
        people = (entry for entry in entries if entry.is_dir() and has_picture(entry.path))
        return not has_picture(folder) and len(list(itertools.islice(people, 2))) == 2


def read_people(folder: Path, complain: Complain = refuse) -> Contents:
    """Read a folder of PERSON/IMAGE, which has identities and no attributes.

    A person's number is a hash of the folder's name, so that it, and with it the split (`read_contents`), stays the
    same when other people come or go. Whole people are dealt, because a recogniser is measured on people that it has
    never seen, and so should be an editor.

    Complains of a picture that is in no person's folder; raises UserError where there is no other.
    """
    names = sorted(pictures(folder))
    kept = [name for name in names if name.count("/") == 1]
    for name in names:
        if name.count("/") != 1:
            complain(f"'{folder / name}' is in no person's folder; a picture's place is PERSON/IMAGE")
    if not kept:
        raise UserError(f"'{folder}' has no picture at PERSON/IMAGE")
    identity = [[_number(name.partition("/")[0])] for name in kept]
    return Contents(folder, _table(kept, (), {"labels": [[] for _ in kept], "identity": identity}), [])


def read_pictures(folder: Path) -> Contents:
    """Every picture below a folder, whatever its lists say, without attributes; UserError where there is none.

    With identities where all of them are PERSON/IMAGE, and more than one PERSON.
    """
    names = sorted(pictures(folder))
    if not names:
        raise UserError(f"there is no picture in '{folder}' ({', '.join(sorted(PICTURES))})")
    if by_person(folder) and all(name.count("/") == 1 for name in names):
        return read_people(folder)
    return Contents(folder, _table(names, (), {"labels": [[] for _ in names]}), [])


def _number(person: str) -> int:
    """56 bits: of a million people two share a number with a chance of one in 100,000."""
    return int.from_bytes(hashlib.blake2b(person.encode(), digest_size=7).digest())


def _table(names: list[str], attributes: tuple[str, ...], values: Mapping[str, list[list[Any]]]) -> Table:
    identity = np.array(values["identity"], np.int64)[:, 0] if "identity" in values else None
    if "split" in values:
        split = np.array(values["split"], np.int8)[:, 0]
    else:
        tenths = [zlib.crc32(str(key).encode()) % 10 for key in (names if identity is None else identity.tolist())]
        split = np.array([{0: 1, 1: 2}.get(tenth, 0) for tenth in tenths], np.int8)
    return Table(
        attributes=attributes,
        labels=np.array(values["labels"], bool),
        split=split,
        names=names,
        identity=identity,
        landmarks=np.array(values["landmarks"], np.float32).reshape(-1, 5, 2) if "landmarks" in values else None,
    )


def read_folder(folder: Path, complain: Complain = refuse) -> Contents:
    """Read a folder of pictures with a `labels.csv`.

    The first column, `file` or `image_id`, names a picture relative to the folder. `split` (train, valid, test, or
    0, 1, 2), `identity` and the ten LANDMARKS are read where they are there; every other column is an attribute,
    with values 1 and 0, or 1 and -1.

    Complains of every row that cannot be used; raises UserError where the file as a whole cannot.
    """
    path = folder / "labels.csv"
    listed = read_csv(path, complain)
    attributes = tuple(column for column in listed.columns if column not in ("split", "identity", *LANDMARKS))
    if not attributes:
        raise UserError(f"'{path}' has no column for an attribute")
    fields = {"labels": Field(listed, attributes, LABEL_VALUES.__getitem__, "a label is 1 or 0")}
    if "split" in listed.columns:
        values = SPLIT_VALUES | {name: value for value, name in enumerate(SPLITS)}
        fields["split"] = Field(listed, ("split",), values.__getitem__, f"a split is {', '.join(SPLITS)}")
    if "identity" in listed.columns:
        fields["identity"] = Field(listed, ("identity",), np.int64, "an identity is a whole number")
    if set(LANDMARKS) <= set(listed.columns):
        fields["landmarks"] = Field(listed, LANDMARKS, float, "landmarks are pixels")
    return read_contents(folder, listed, fields, complain)
