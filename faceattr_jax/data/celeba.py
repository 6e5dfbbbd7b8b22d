"""CelebA as it is handed out: `img_align_celeba/`, or the unaligned `img_celeba/`, and the list files beside it.

The lists may lie in the folder itself or in the `Anno` and `Eval` of the official archive (the pictures in `Img`),
and may be the `.csv` files of Kaggle's copy.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from faceattr_jax.data.folder import (
    LABEL_VALUES,
    LANDMARKS,
    SPLIT_VALUES,
    Complain,
    Contents,
    Field,
    Listing,
    listing,
    read_contents,
    read_csv,
    read_folder,
    read_lines,
    read_people,
    refuse,
)
from faceattr_jax.errors import UserError

LABELS = "list_attr_celeba"
PARTITION = "list_eval_partition"
IDENTITY = "identity_CelebA"
ALIGNED = ("img_align_celeba", "list_landmarks_align_celeba")
UNALIGNED = ("img_celeba", "list_landmarks_celeba")
"""The folder of the pictures, and the list of their landmarks."""


def find(folder: Path, stem: str) -> Path | None:
    """The list file called `stem` in a folder of CelebA's layout."""
    places = (folder / part / f"{stem}{suffix}" for part in ("", "Anno", "Eval") for suffix in (".txt", ".csv"))
    return next((place for place in places if place.is_file()), None)


def read(folder: Path, complain: Complain = refuse, *, unaligned: bool = False) -> Contents:
    """Read a folder of pictures: CelebA's layout where its list of labels is there, else `labels.csv`, else people."""
    if find(folder, LABELS):
        return read_celeba(folder, complain, unaligned)
    return read_folder(folder, complain) if (folder / "labels.csv").exists() else read_people(folder, complain)


def read_celeba(folder: Path, complain: Complain = refuse, unaligned: bool = False) -> Contents:
    """Read a folder in CelebA's layout; where it has aligned pictures and unaligned ones, the aligned or `unaligned`.

    The labels and the partition are needed; identities and landmarks are read where their lists are there.
    Complains of every row that cannot be used; raises UserError where a list as a whole cannot.
    """
    labels = _read(folder, LABELS, complain)
    partition = _read(folder, PARTITION, complain, column="partition")
    fields = {
        "labels": Field(labels, labels.columns, LABEL_VALUES.__getitem__, "a label is 1 or -1"),
        "split": Field(
            partition,
            partition.columns[:1],
            SPLIT_VALUES.__getitem__,
            "a partition is 0 (train), 1 (valid) or 2 (test)",
        ),
    }
    if find(folder, IDENTITY):
        identity = _read(folder, IDENTITY, complain, column="identity")
        fields["identity"] = Field(identity, identity.columns[:1], np.int64, "an identity is a whole number")
    pictures, landmarks = _pictures(folder, (UNALIGNED, ALIGNED) if unaligned else (ALIGNED, UNALIGNED))
    if find(folder, landmarks):
        points = _read(folder, landmarks, complain)
        if points.columns != LANDMARKS:
            raise UserError(f"'{points.path}' should have the columns {' '.join(LANDMARKS)}")
        fields["landmarks"] = Field(points, LANDMARKS, float, "landmarks are pixels")
    return read_contents(pictures, labels, fields, complain)


def _pictures(folder: Path, kinds: Iterable[tuple[str, str]]) -> tuple[Path, str]:
    """The folder of the first kind of pictures that is there, and the name of their list of landmarks."""
    for name, landmarks in kinds:
        for place in (folder / name, folder / "Img" / name):
            if place.is_dir():
                # Kaggle's copy has the folder twice.
                return place / name if (place / name).is_dir() else place, landmarks
    raise UserError(f"'{folder}' has lists but no pictures; there should be a folder '{ALIGNED[0]}' beside them")


def _read(folder: Path, stem: str, complain: Complain, column: str | None = None) -> Listing:
    """Read one list; `column` names the only column of a text list that has no header."""
    path = find(folder, stem)
    if path is None:
        raise UserError(f"'{folder}' has no list '{stem}.txt', which CelebA comes with")
    if path.suffix == ".csv":
        return read_csv(path, complain)
    lines = [(number, line.split()) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if column is not None:
        return listing(path, [column], lines, complain)
    if len(lines) < 2:
        raise UserError(f"'{path}' lists no pictures")
    (_, count), (_, columns), *rows = lines
    if len(count) != 1 or not count[0].isdecimal():
        raise UserError(f"'{path}', line 1 starts with '{count[0]}'; it should be the number of rows alone")
    if int(count[0]) != len(rows):
        complain(f"'{path}', line 1 says {count[0]} rows, but {len(rows)} follow")
    return listing(path, columns, rows, complain)
