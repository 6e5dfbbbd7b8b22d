"""Counts of judged edits, added up face by face, and the rates that they make."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

DIRECTIONS = ("adding", "removing")
Group = tuple[str, ...]

# Columns of a tally: sums over faces.
_FACES, _ALL_RIGHT, _RIGHT, _CHANGED, _WRONG, _PAIRS, _L1 = range(7)


class Tally:
    """Sums over the faces seen so far, for one editor: per group of attributes and per value of their labels.

    Faces are added one after another, so that the sums are the same bits whatever the batch size.
    """

    def __init__(self, known: Sequence[str], groups: Sequence[Group]) -> None:
        self.columns = {group: [list(known).index(name) for name in group] for group in groups}
        self.sums = {group: np.zeros((2 ** len(group), 7)) for group in groups}
        self.similarity, self.faces = np.zeros(3), 0

    def add_similarity(self, rows: np.ndarray) -> None:
        """PSNR, SSIM and L1 (B, 3) of reconstructions."""
        for row in rows.astype(np.float64):
            self.similarity += row
        self.faces += len(rows)

    def add(
        self,
        group: Group,
        own: np.ndarray,
        target: np.ndarray,
        touched: np.ndarray,
        before: np.ndarray,
        after: np.ndarray,
        change: np.ndarray,
    ) -> None:
        """Labels, targets, touched attributes, judged values before and after (all (B, n)) and change (B,)."""
        columns = self.columns[group]
        right = (after == target)[:, columns]
        rows = [
            np.ones(len(own)),
            right.all(axis=1),
            right.sum(axis=1),
            ((after != before) & ~touched).sum(axis=1),
            ((after != own) & ~touched).sum(axis=1),
            (~touched).sum(axis=1),
            change,
        ]
        code = own[:, columns].astype(int) @ (1 << np.arange(len(group)))
        np.add.at(self.sums[group], code, np.stack(rows, axis=1).astype(np.float64))

    def result(self, regions: Mapping[str, Any] | None) -> dict[str, Any]:
        """What `evaluate_editors` says of one editor."""
        singles = {group[0]: sums for group, sums in self.sums.items() if len(group) == 1}
        single = {
            name: {
                direction: _rates(sums[value]) | ({"region": regions[name][direction]} if regions else {})
                for value, direction in enumerate(DIRECTIONS)
            }
            for name, sums in singles.items()
        }
        multiple = [
            {"attributes": list(group), "mean_accuracy": _divide(row[_RIGHT], len(group) * row[_FACES])} | _rates(row)
            for group, row in ((group, sums.sum(axis=0)) for group, sums in self.sums.items() if len(group) > 1)
        ]
        cells = {(name, d): single[name][d] for name in single for d in DIRECTIONS}
        accuracies = {key: cell["accuracy"] for key, cell in cells.items() if cell["accuracy"] is not None}
        whole = _rates(np.sum([sums.sum(axis=0) for sums in singles.values()], axis=0))
        psnr, ssim, l1 = (number(value / self.faces) for value in self.similarity)
        return {
            "accuracy": mean(accuracies.values()),
            **{d: mean(value for (_, way), value in accuracies.items() if way == d) for d in DIRECTIONS},
            "by_image": mean(_rates(sums.sum(axis=0))["accuracy"] for sums in singles.values()),
            "worst": list(min(accuracies.items(), key=lambda item: item[1])[0]),
            "untouched_change": whole["untouched_change"],
            "untouched_error": whole["untouched_error"],
            "change": whole["change"],
            "region": _mean_region(cells.values()) if regions else None,
            "reconstruction": {"psnr": psnr, "ssim": ssim, "l1": l1},
            "single": single,
            "multiple": multiple,
        }


def _rates(row: np.ndarray) -> dict[str, Any]:
    return {
        "faces": int(row[_FACES]),
        "accuracy": _divide(row[_ALL_RIGHT], row[_FACES]),
        "untouched_change": _divide(row[_CHANGED], row[_PAIRS]),
        "untouched_error": _divide(row[_WRONG], row[_PAIRS]),
        "change": _divide(row[_L1], row[_FACES]),
    }


def _mean_region(cells: Iterable[dict[str, Any]]) -> dict[str, float | None]:
    regions = [cell["region"] for cell in cells]
    return {key: mean(region[key] for region in regions) for key in ("ratio", "floor", "drift")}


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of those that were measured."""
    measured = [value for value in values if value is not None]
    return math.fsum(measured) / len(measured) if measured else None


def _divide(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator else None


def number(value: float) -> float | None:
    """None for infinite and undefined numbers, which JSON does not have."""
    return float(value) if np.isfinite(value) else None
