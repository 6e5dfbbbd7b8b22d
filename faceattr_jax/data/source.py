"""A source of faces: a table of labels first, pixels by index second.

Samplers work on the table alone, so that no image is decoded to choose it. `open_source` finds out what a path
holds.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from faceattr_jax import attributes as attribute_names
from faceattr_jax.errors import UserError, nearest

SPLITS = ("train", "valid", "test")
"""Names of the values 0, 1 and 2 of `Table.split`."""


@dataclass(frozen=True, eq=False)
class Table:
    """What is known of every picture of a source, in the source's order.

    Attributes:
      attributes: names of the A attributes.
      labels: (N, A) bool.
      split: (N,) int8, an index into SPLITS.
      names: N file names, or other names of the pictures.
      identity: (N,) int64, the person's number, or None where unknown.
      landmarks: (N, 5, 2) float32 x and y of left eye, right eye, nose, left and right mouth corner (left as seen
        in the picture) in pixels of the picture before it is cropped, or None where unknown.
    """

    attributes: tuple[str, ...]
    labels: np.ndarray
    split: np.ndarray
    names: Sequence[str]
    identity: np.ndarray | None = None
    landmarks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, attributes: Iterable[str]) -> np.ndarray:
        """(N, n) float32 labels, 0 or 1, of `attributes` in their order; UserError for an unknown one."""
        attributes = tuple(attributes)
        attribute_names.check_names(attributes, self.attributes)
        return self.labels[:, [self.attributes.index(name) for name in attributes]].astype(np.float32)

    def people(self, indices: np.ndarray) -> np.ndarray:
        """(N,) int32 number of each picture's person, counted from 0 over the people at `indices`; -1 for others.

        Raises UserError where identities are not known.
        """
        if self.identity is None:
            raise UserError("the data do not say who is on a picture; CelebA's identity_CelebA.txt does")
        known = np.unique(self.identity[indices])
        place = np.searchsorted(known, self.identity).clip(max=len(known) - 1)
        return np.where(known[place] == self.identity, place, -1).astype(np.int32)

    def indices(self, split: str) -> np.ndarray:
        """(M,) int64 ascending indices of "train", "valid", "test" or "all"; UserError for another split."""
        if split == "all":
            return np.arange(len(self))
        if split not in SPLITS:
            known = (*SPLITS, "all")
            raise UserError(f"unknown split '{split}'{nearest(split, known)}; known are {', '.join(known)}")
        return np.flatnonzero(self.split == SPLITS.index(split))


class Source(Protocol):
    """Faces of one crop and size."""

    @property
    def table(self) -> Table: ...

    @property
    def size(self) -> int: ...

    @property
    def crop(self) -> str:
        """The preset (faceattr_jax.data.crops) that the images were cut with."""
        ...

    def images(self, indices: np.ndarray) -> np.ndarray:
        """(B, size, size, 3) uint8 at `indices` (B,) of the table."""
        ...


Kind = Literal["synthetic", "prepared", "celeba", "csv", "people", "tfds"]

LAYOUTS = (
    "CelebA's own layout (list_attr_celeba.txt, list_eval_partition.txt, img_align_celeba/ or img_celeba/), "
    "labels.csv beside pictures, a folder of pictures for each person, a TFDS data_dir (celeb_a/), or the output of "
    "`faceattr data prepare`"
)


def kind(path: str) -> Kind:
    """What `path` is, by its content; UserError where it is nothing that `open_source` can open."""
    if path.partition(":")[0] == "synthetic":
        return "synthetic"
    folder = Path(path).expanduser()
    if not folder.exists():
        raise UserError(f"there is no folder '{path}'; give a folder of faces, or 'synthetic'")
    if not folder.is_dir():
        raise UserError(f"'{path}' is a file; give the folder that holds the data")
    if not any(folder.iterdir()):
        raise UserError(f"the folder '{path}' is empty; it should hold {LAYOUTS}")
    from faceattr_jax.data import celeba
    from faceattr_jax.data.folder import by_person

    if (folder / "prepared.json").exists():
        return "prepared"
    if celeba.find(folder, celeba.LABELS):
        return "celeba"
    if (folder / "labels.csv").exists():
        return "csv"
    if (folder / "celeb_a").is_dir():
        return "tfds"
    if by_person(folder):
        return "people"
    raise UserError(f"nothing in the folder '{path}' is known; it should hold {LAYOUTS}")


def open_source(path: str, *, size: int, crop: str = "center178") -> Source:
    """Open the faces at `path`, cropped with preset `crop` and resized to `size`.

    Args:
      path: "synthetic:COUNT:SEED:SHIFT" for drawn faces (which are drawn whole: `crop` is not looked at), of which the
        last ones may be left out (SHIFT: see `synthetic.SyntheticSource`), or a folder in one of the LAYOUTS.
      size: side of the images in pixels.
      crop: a preset of faceattr_jax.data.crops. One that goes by landmarks takes CelebA's unaligned pictures where
        they are there.

    Raises UserError where the path is missing, empty or of no known layout, where its lists are damaged or name
    pictures that are absent, and where a prepared folder was prepared with another size or crop.
    """
    # Imported where they are needed: drawing faces takes no Pillow, and only TFDS takes TFDS.
    match kind(path):
        case "synthetic":
            from faceattr_jax.data.synthetic import SyntheticSource

            return SyntheticSource(**_synthetic(path), size=size)
        case "prepared":
            from faceattr_jax.data.prepare import PreparedSource

            return PreparedSource(Path(path).expanduser(), size=size, crop=crop)
        case "tfds":
            from faceattr_jax.data.tfds_celeba import TfdsSource

            return TfdsSource(Path(path).expanduser(), size=size, crop=crop)
        case "celeba" | "csv" | "people":
            from faceattr_jax.data import celeba, crops
            from faceattr_jax.data.folder import FolderSource

            contents = celeba.read(Path(path).expanduser(), unaligned=crops.by_landmarks(crop))
            return FolderSource(contents.folder, contents.table, size, crop)


def _synthetic(path: str) -> dict[str, int]:
    """The arguments in "synthetic:COUNT:SEED:SHIFT"."""
    match = re.fullmatch(r"synthetic(?::([1-9]\d*)(?::(\d+)(?::(\d+))?)?)?", path)
    if not match:
        raise UserError(
            f"'{path}' is no set of drawn faces; write synthetic:COUNT:SEED:SHIFT, of which the last ones may be left "
            "out, such as synthetic:12000:0"
        )
    return {name: int(value) for name, value in zip(("count", "seed", "shift"), match.groups(), strict=True) if value}
