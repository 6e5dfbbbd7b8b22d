"""What a protocol is: a paper's way of measuring, and its own numbers (`faceattr evaluate --protocol`).

A protocol is a module of `faceattr_jax.evaluation.protocols` with a `PROTOCOL`: which measures are taken, on which
faces, and what the paper has. `gathering` collects what they look at in one pass over a run's faces, `papers` makes the
tables.
"""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from faceattr_jax.errors import UserError, nearest
from faceattr_jax.evaluation import embedders, labelling
from faceattr_jax.evaluation.opening import Opened
from faceattr_jax.evaluation.readers import Cell
from faceattr_jax.evaluation.tally import DIRECTIONS


@dataclasses.dataclass(frozen=True)
class Row:
    """One number. which: what of, as the paper's own numbers are keyed. images: that it is a mean over, or of a set.

    value: None where it could not be taken, which `note` explains. run: number of the run, -1 of all together.
    """

    which: str
    value: float | None
    images: int
    run: int = 0
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Measure:
    """One table of a protocol.

    title: the name that the numbers have a right to. how: the fine print. take: the rows, from what was found of each
    run; a `UserError` there skips the measure with its sentence. published: method -> which -> the paper's number.
    needs: keys of Found.readers; where one is absent the measure is skipped. chart: "bars" or "boxes" in the report.
    of_edits: rows that are called after an attribute are about edits of it, and the table says what else these do.
    """

    title: str
    how: str
    take: "Callable[[Sequence[Found]], Iterable[Row]]"
    published: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    digits: int = 3
    chart: str = ""
    of_edits: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A training that the paper's table takes."""

    name: str
    config: str
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    role: str = "model"  # or "judge", "recognizer"


@dataclasses.dataclass(frozen=True, eq=False)
class Protocol:
    """How a paper measures.

    paper: its title. split: whose faces. images: how many of it (0: all of it). balanced: half with the attribute
    and half without, where a run has only one. configs: those that runs should have had, of the paper's size.
    fine_print: what the paper says about samples, resize and format, and what was chosen where it is silent. steps:
    trainings for full CelebA. augmentation: step whose classifier a study trains without and with edits, "" for none.
    """

    paper: str
    images: int
    configs: tuple[str, ...]
    fine_print: tuple[str, ...]
    measures: tuple[Measure, ...]
    steps: tuple[Step, ...]
    balanced: bool = False
    split: str = "test"
    augmentation: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What one run's faces told.

    number: of the run. evaluation: of `evaluate_editors` or `evaluate_exchangers`. readers: name -> what was gathered.
    missing: name -> why not. judge: what identifies it. strength: of the edits. reading: how well the judge reads each
    attribute that it shares with the data, on all of the split's faces.
    """

    number: int
    opened: Opened
    evaluation: Mapping[str, Any] | None
    readers: Mapping[str, Any]
    missing: Mapping[str, str]
    judge: Mapping[str, str]
    curve: Sequence[Mapping[str, Any]] = ()
    strength: float = 1.0
    reading: Mapping[str, labelling.Row] = dataclasses.field(default_factory=dict)

    @property
    def model(self) -> Mapping[str, Any]:
        """The rates of the run's own edits."""
        if self.evaluation is None:
            raise UserError(f"{self.opened.model.path} edits nothing")
        return self.evaluation["editors"]["model"]

    @functools.cached_property
    def threshold(self) -> tuple[float, str]:
        """Up to which distance the face network takes two pictures for one person, fixed on other people's; where."""
        return embedders.threshold(self.readers[PERSON].embedder, self.opened.source, self.opened.split)

    @property
    def own_threshold(self) -> tuple[float, str]:
        """The face network's author's, where there is one, else `threshold`."""
        limit = embedders.OWN_THRESHOLDS.get(self.readers[PERSON].embedder.name)
        return self.threshold if limit is None else (limit, f"{limit:g} (its author's)")

    @property
    def cells(self) -> list[Cell]:
        """The attributes and directions of which there are edits."""
        if self.evaluation is None:
            return []
        single = self.model["single"]
        return [(name, d) for name, cells in single.items() for d in DIRECTIONS if cells[d]["faces"]]

    def faces(self, cell: Cell) -> int:
        return self.model["single"][cell[0]][cell[1]]["faces"]


# Names of the readers.
PICTURES, STAND_IN, PERSON, GALLERY, NORMS = "pictures", "stand_in", "person", "gallery", "norms"
FACES, VARIETY, DRAWN, CYCLES, RESTORED = "face_distributions", "variety", "drawn", "cycles", "restored"


def names() -> list[str]:
    """The protocols that there are."""
    package = importlib.import_module("faceattr_jax.evaluation.protocols")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def find(name: str) -> Protocol:
    """The protocol of that name; UserError for another one."""
    known = names()
    if name not in known:
        raise UserError(f"unknown protocol '{name}'{nearest(name, known)}; known are {', '.join(known)}")
    return importlib.import_module(f"faceattr_jax.evaluation.protocols.{name}").PROTOCOL
