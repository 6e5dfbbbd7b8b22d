"""What a compiled program moves between devices, read from its HLO."""

import collections
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_INSTRUCTION = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\]")


class Array(NamedTuple):
    """An operand of a collective. bits: of an element."""

    bits: int
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return self.bits * int(np.prod(self.shape)) // 8


class Collective(NamedTuple):
    """One operation of the program; its results on one device, several where XLA has fused some."""

    kind: str
    arrays: tuple[Array, ...]

    @property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.arrays)


def collectives(hlo: str) -> list[Collective]:
    """Every collective in the text of a compiled program (`compiled.as_text()`), in its order."""
    return [Collective(kind, _arrays(result)) for result, kind in _INSTRUCTION.findall(hlo)]


def summary(found: Iterable[Collective]) -> dict[str, dict[str, int]]:
    """Kind -> how many operations there are, and how many bytes each device has of them in all."""
    counts: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"operations": 0, "bytes": 0})
    for collective in found:
        counts[collective.kind]["operations"] += 1
        counts[collective.kind]["bytes"] += collective.bytes
    return dict(counts)


def _arrays(result: str) -> tuple[Array, ...]:
    return tuple(
        Array(int(bits or 8), tuple(int(side) for side in shape.split(",") if side))
        for _, bits, shape in _ARRAY.findall(result)
    )
