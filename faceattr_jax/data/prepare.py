"""Decode and crop once: a folder with all pictures of a source as one uint8 array, ready to train from.

`images.npy` is (N, size, size, 3) uint8, `table.npz` the labels and what else is known, and `prepared.json` says
where they come from and how they were made.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from faceattr_jax.data import crops
from faceattr_jax.data.pipeline import chunks
from faceattr_jax.data.source import SPLITS, Source, Table, open_source
from faceattr_jax.errors import UserError

VERSION = 1


class PreparedSource:
    """A Source read from what `prepare` wrote; pixels stay on disk, mapped into memory.

    Raises UserError where the folder is damaged or was prepared with another size or crop than the one asked for.
    """

    def __init__(self, folder: Path, *, size: int, crop: str) -> None:
        crops.preset(crop)
        about = read_about(folder)
        if (about["size"], about["crop"]) != (size, crop):
            raise UserError(
                f"'{folder}' was prepared at {about['size']} pixels with crop '{about['crop']}', "
                f"not at {size} with '{crop}'; prepare it again elsewhere, or set the size and crop to match"
            )
        self.size = size
        self.crop = crop
        try:
            self.table = _table(folder / "table.npz", about["attributes"])
            self._pixels = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UserError(f"'{folder}' is damaged ({error}); prepare it again") from None
        if self._pixels.shape != (len(self.table), size, size, 3) or self._pixels.dtype != np.uint8:
            raise UserError(f"'{folder / 'images.npy'}' does not fit its table; prepare it again")

    def images(self, indices: np.ndarray) -> np.ndarray:
        """(B, size, size, 3) uint8 at `indices` (B,)."""
        return self._pixels[indices]


def read_about(folder: Path) -> dict[str, Any]:
    """What `prepared.json` says; UserError where it is damaged or of another version of the format."""
    path = folder / "prepared.json"
    try:
        about = json.loads(path.read_text())
        version, _ = about["version"], (about["size"], about["crop"], about["attributes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is damaged ({error!r}); prepare it again") from None
    if version != VERSION:
        raise UserError(f"'{path}' is of version {version}, not {VERSION}; prepare it again")
    return about


def _table(path: Path, attributes: list[str]) -> Table:
    # Opened here, because np.load leaves a damaged file open.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        return Table(
            attributes=tuple(attributes),
            labels=arrays["labels"],
            split=arrays["split"],
            names=arrays["names"].tolist(),
            identity=arrays.get("identity"),
            landmarks=arrays.get("landmarks"),
        )


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did: the folder, what `prepared.json` says, and whether it was there before."""

    folder: Path
    about: Mapping[str, Any]
    reused: bool

    def format(self) -> str:
        """One line for a person."""
        counts = ", ".join(f"{count:,} {split}" for split, count in self.about["counts"].items())
        done = "is there already and is left as it is" if self.reused else "written"
        return f"{self.folder}: {counts} at {self.about['size']} px, crop {self.about['crop']}; {done}"


def prepare(path: str, out: str | Path, *, size: int, crop: str = "center178") -> Prepared:
    """Write the faces at `path` (anything `open_source` opens), cropped and resized, to the new folder `out`.

    The folder appears under its name when it is complete, never before. An existing one is reused where it holds
    the same: source, crop, size and labels.

    Raises UserError where a picture cannot be read, where `out` holds something else, and where the disk is full.
    """
    origin = path if path.startswith("synthetic") else str(Path(path).expanduser().resolve())
    return write(open_source(path, size=size, crop=crop), origin, Path(out))


def write(source: Source, origin: str, out: Path) -> Prepared:
    """`prepare` of a source that is open; origin: what `prepared.json` says that it is."""
    about = _describe(origin, source)
    if out.exists():
        if (out / "prepared.json").exists() and read_about(out) == about and _same(out, source):
            return Prepared(out, about, reused=True)
        raise UserError(f"'{out}' exists and holds something else; remove it, or prepare to another folder")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write(partial, source, about)
        partial.rename(out)
    except OSError as error:
        raise UserError(f"'{out}' cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Prepared(out, about, reused=False)


def _describe(origin: str, source: Source) -> dict[str, Any]:
    table = source.table
    preset = crops.PRESETS.get(source.crop)
    return {
        "version": VERSION,
        "source": origin,
        "size": source.size,
        "crop": source.crop,
        "resample": preset.resample.name.lower() if preset else None,
        "pictures": len(table),
        "counts": {split: len(table.indices(split)) for split in SPLITS},
        "attributes": list(table.attributes),
        "identity": table.identity is not None,
        "landmarks": table.landmarks is not None,
    }


def _arrays(table: Table) -> dict[str, np.ndarray]:
    arrays = {
        "labels": table.labels,
        "split": table.split,
        "names": np.array(table.names, np.str_),
        "identity": table.identity,
        "landmarks": table.landmarks,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def _same(out: Path, source: Source) -> bool:
    """Whether the prepared folder `out` has the source's table, and all of its pictures."""
    there = _arrays(PreparedSource(out, size=source.size, crop=source.crop).table)
    wanted = _arrays(source.table)
    return there.keys() == wanted.keys() and all(np.array_equal(there[name], wanted[name]) for name in wanted)


def _write(folder: Path, source: Source, about: Mapping[str, Any]) -> None:
    (folder / "prepared.json").write_text(json.dumps(about, indent=2) + "\n")
    np.savez_compressed(folder / "table.npz", **_arrays(source.table))  # type: ignore[arg-type]
    shape = (len(source.table), source.size, source.size, 3)
    # Written in sequence: a full disk is then an error, where a memory map would end the process.
    with open(folder / "images.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
        )
        for images in chunks(source, np.arange(len(source.table)), f"preparing {source.size} px"):
            file.write(images.data)
