"""How well an embedding knows people it was never trained on: rank-1 identification and verification.

Vectors are (N, D), compared by Euclidean distance; people are (N,) whole numbers. Pure NumPy, in float64.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.data.images import to_float
from faceattr_jax.data.source import Source
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.regions import batches, spread

BATCH = 256


def whole_people(source: Source, indices: np.ndarray, count: int) -> np.ndarray:
    """Of `indices` about `count` pictures, all of each person chosen, the people spread over all of them.

    Only people with two pictures or more; 0 takes all of these. Raises UserError where fewer than two people have
    them, or where identities are unknown.
    """
    numbers = source.table.people(indices)[indices]
    sizes = np.bincount(numbers)
    able = np.flatnonzero(sizes > 1)
    if len(able) < 2:
        raise UserError("recognition is measured on people with two pictures or more, of whom the split has too few")
    wanted = min(len(able), max(2, round(count / sizes[able].mean()))) if count else len(able)
    return indices[np.isin(numbers, spread(able, wanted))]


def embeddings(embed: Callable[[jax.Array], jax.Array], source: Source, indices: np.ndarray) -> np.ndarray:
    """(N, D) float64 of the pictures at `indices`. embed: images (B, S, S, 3) in [-1, 1] -> (B, D)."""
    size = min(BATCH, len(indices))
    parts = [
        np.asarray(embed(to_float(jnp.asarray(source.images(batch)))))[:count]
        for batch, count in batches(indices, size)
    ]
    return np.concatenate(parts).astype(np.float64)


def scores(vectors: np.ndarray, people: np.ndarray) -> dict[str, float]:
    """`rank1`, `verification` (accuracy) and `auc` of the vectors; each 1 at best, the last two 0.5 by chance."""
    distances = np.sqrt(_squared(vectors))
    return {
        "rank1": rank1(distances, people),
        "verification": verification(distances, people),
        "auc": auc(distances, people),
    }


def markdown(rows: dict[str, dict[str, float]], title: str) -> str:
    """Model -> its scores, as a table."""
    names = list(next(iter(rows.values())))
    lines = [f"# {title}", "", f"| | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    lines += [f"| {model} | {' | '.join(f'{row[name]:.3f}' for name in names)} |" for model, row in rows.items()]
    return "\n".join(lines) + "\n"


def rank1(distances: np.ndarray, people: np.ndarray) -> float:
    """Share of pictures whose nearest other picture is of the same person; each must have one."""
    others = distances + np.where(np.eye(len(people), dtype=bool), np.inf, 0)
    return float(np.mean(people[others.argmin(axis=1)] == people))


def verification(distances: np.ndarray, people: np.ndarray) -> float:
    """Accuracy of "same person below a threshold", pairs of one person and of two weighing half each.

    The threshold is the best one for every second person, the accuracy that of the others' pairs, and the other way
    round; the mean of the two.
    """
    half = np.unique(people, return_inverse=True)[1] % 2
    sides = [_pairs(distances[np.ix_(half == side, half == side)], people[half == side]) for side in (0, 1)]
    found = []
    for (same, other), (own_same, own_other) in zip(sides, sides[::-1], strict=True):
        candidates = np.sort(np.concatenate([same, other]))
        accepted, refused = _share_below(same, candidates), 1 - _share_below(other, candidates)
        threshold = candidates[np.argmax(accepted + refused)]
        found.append((_share_below(own_same, threshold) + 1 - _share_below(own_other, threshold)) / 2)
    return float(np.mean(found))


def auc(distances: np.ndarray, people: np.ndarray) -> float:
    """Share of (pair of one person, pair of two) in which the former is nearer; area under ROC."""
    same, other = _pairs(distances, people)
    other.sort()
    nearer = np.searchsorted(other, same, "left") + np.searchsorted(other, same, "right")  # a tie counts half
    return float(1 - nearer.mean() / (2 * len(other)))


def _pairs(distances: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the pairs of one person, and of those of two."""
    rows, columns = np.triu_indices(len(people), 1)
    same = people[rows] == people[columns]
    found = distances[rows, columns]
    return found[same], found[~same]


def _share_below(values: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    """Of `values` those that do not exceed each threshold."""
    return np.searchsorted(np.sort(values), threshold, "right") / len(values)


def _squared(vectors: np.ndarray) -> np.ndarray:
    norms = np.sum(vectors**2, axis=1)
    return np.maximum(norms[:, None] + norms[None] - 2 * vectors @ vectors.T, 0)
