"""`faceattr data check`: what a data set holds, and everything that is wrong with it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from faceattr_jax.data import celeba, crops
from faceattr_jax.data.folder import decoders
from faceattr_jax.data.images import read_image
from faceattr_jax.data.source import SPLITS, Kind, Table, kind, open_source
from faceattr_jax.errors import UserError

KINDS: dict[Kind, str] = {
    "synthetic": "drawn faces",
    "prepared": "prepared array",
    "celeba": "folder in CelebA's layout",
    "csv": "folder with labels.csv",
    "people": "folder for each person",
    "tfds": "TFDS celeb_a",
}


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
      path: what was looked at.
      kind: what it is.
      table: of the pictures whose rows can be used; None where there is none.
      problems: one sentence each, in the order of the data; empty where all is well.
    """

    path: str
    kind: Kind
    table: Table | None
    problems: Sequence[str]

    def format(self) -> str:
        """The report for a person: counts and rates by split, then every problem."""
        lines = [f"{self.path}: {KINDS[self.kind]}"]
        if self.table is not None:
            lines += [*_counts(self.table), ""]
        lines += [f"problem: {problem}" for problem in self.problems]
        lines.append(f"{len(self.problems) or 'no'} problem{'s' * (len(self.problems) != 1)}")
        return "\n".join(lines)


def _counts(table: Table) -> Iterator[str]:
    splits = {name: table.indices(name) for name in (*SPLITS, "all")}
    width = max(map(len, ("pictures", *table.attributes)))

    def row(name: str, cells: Iterable[str]) -> str:
        return f"{name:<{width}}" + "".join(f"{cell:>9}" for cell in cells)

    yield row("", splits)
    yield row("pictures", [f"{len(rows):,}" for rows in splits.values()])
    if table.identity is not None:
        yield row("people", [f"{len(np.unique(table.identity[rows])):,}" for rows in splits.values()])
    if table.attributes:
        yield "attribute, %"
    for i, name in enumerate(table.attributes):
        yield row(name, [f"{100 * table.labels[rows, i].mean():.1f}" if len(rows) else "-" for rows in splits.values()])


def check(path: str) -> Report:
    """Look at everything that `open_source` would open at `path`: lists, and each picture, decoded in full.

    Every problem is reported, not the first: rows that cannot be used, pictures that are missing, damaged or of a
    wrong size, and pictures without a row. Raises UserError where `path` holds nothing known.
    """
    found = kind(path)
    problems = list[str]()
    looks = {"synthetic": _drawn, "prepared": _prepared, "tfds": _tfds}
    try:
        table = looks.get(found, _folder)(path, problems)
    except UserError as error:  # what leaves nothing to go on with
        table = None
        problems.append(str(error))
    return Report(path, found, table, problems)


def _drawn(path: str, problems: list[str]) -> Table:
    return open_source(path, size=64).table


def _prepared(path: str, problems: list[str]) -> Table:
    from faceattr_jax.data.prepare import PreparedSource, read_about

    folder = Path(path).expanduser()
    about = read_about(folder)
    return PreparedSource(folder, size=about["size"], crop=about["crop"]).table


def _folder(path: str, problems: list[str]) -> Table:
    contents = celeba.read(Path(path).expanduser(), problems.append)
    names = contents.table.names
    size = crops.ALIGNED if celeba.ALIGNED[0] in contents.folder.parts else None
    problems += _damaged(names, lambda i: read_image(contents.folder / names[i]), size)
    problems += [f"'{contents.folder / name}' has no row in the list of labels" for name in contents.unlisted]
    return contents.table


def _tfds(path: str, problems: list[str]) -> Table:
    from faceattr_jax.data.tfds_celeba import TfdsSource

    source = TfdsSource(Path(path).expanduser(), size=64, crop="center178", complain=problems.append)
    problems += _damaged(source.table.names, source.picture, crops.ALIGNED)
    return source.table


def _damaged(names: Sequence[str], read: Callable[[int], Image.Image], size: tuple[int, int] | None) -> list[str]:
    """The problems of the pictures `names`: which cannot be read, and which are not of (width, height) `size`."""

    def look(i: int) -> str | None:
        try:
            width, height = read(i).size
        except UserError as error:
            return str(error)
        if size and size != (width, height):
            return f"'{names[i]}' is {width}x{height}, not {size[0]}x{size[1]}"
        return None

    results = decoders().map(look, range(len(names)))
    bar = tqdm(results, "checking", len(names), unit="img", unit_scale=True, delay=1, leave=False)
    return [problem for problem in bar if problem]
