"""How well an embedding knows people it was never trained on, and how well edits keep them: rank-1 identification
and verification.

Vectors are (N, D), compared by Euclidean distance; people are (N,) whole numbers. Pure NumPy, in float64.

Of edits, as the papers have it:

* Rank-1 (AttGAN): the gallery is the split, its own source image included, the probes are edits of it; `rank1_edits`.
* Verification (DIAT): source and edit are of one person where their distance does not exceed a threshold. DIAT takes
  OpenFace's .99, of squared distances; that of another embedder is fixed on pairs of people who are not among those
  measured: `draw_pairs` and `best_threshold` of one split, `pair_accuracy` of another.
* Accuracy against identity over strength: `identity_curve`.

A gallery's vectors are all held; distances to it are made for a batch of probes at a time.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np

from faceattr_jax.data.source import Source
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation.editors import floats
from faceattr_jax.evaluation.regions import batches, spread

BATCH = 256
FEWEST = 4  # people: `verification` takes its threshold from every second one, and each half makes pairs of two


def whole_people(source: Source, indices: np.ndarray, count: int) -> np.ndarray:
    """Of `indices` about `count` pictures, all of each person chosen, the people spread over all of them.

    Only people with two pictures or more; 0 takes all of these. Raises UserError where fewer than FEWEST people have
    them, or where identities are unknown.
    """
    if len(indices) == 0:
        raise UserError("recognition is measured on people with two pictures or more; the split has no pictures")
    numbers = source.table.people(indices)[indices]
    sizes = np.bincount(numbers)
    able = np.flatnonzero(sizes > 1)
    if len(able) < FEWEST:
        raise UserError(
            f"recognition is measured on {FEWEST} people or more with two pictures or more each; the split has "
            f"{len(able)} of them"
        )
    wanted = min(len(able), max(FEWEST, round(count / sizes[able].mean()))) if count else len(able)
    return indices[np.isin(numbers, spread(able, wanted))]


def embeddings(embed: Callable[[jax.Array], jax.Array], source: Source, indices: np.ndarray) -> np.ndarray:
    """(N, D) float64 of the pictures at `indices`. embed: images (B, S, S, 3) in [-1, 1] -> (B, D)."""
    size = min(BATCH, len(indices))
    parts = [np.asarray(embed(floats(source.images(batch))))[:count] for batch, count in batches(indices, size)]
    return np.concatenate(parts).astype(np.float64)


def scores(vectors: np.ndarray, people: np.ndarray) -> dict[str, float]:
    """`rank1`, `verification` (accuracy) and `auc` of the vectors; each 1 at best, the last two 0.5 by chance."""
    distances = np.sqrt(_squared(vectors))
    return {
        "rank1": rank1(distances, people),
        "verification": verification(distances, people),
        "auc": auc(distances, people),
    }


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
        found.append(pair_accuracy(own_same, own_other, best_threshold(same, other)))
    return float(np.mean(found))


def best_threshold(same: np.ndarray, other: np.ndarray) -> float:
    """The least distance that best tells pairs of one person (P,) from pairs of two (Q,), which weigh half each."""
    candidates = np.sort(np.concatenate([same, other]))
    return float(candidates[np.argmax(_share_below(same, candidates) - _share_below(other, candidates))])


def pair_accuracy(same: np.ndarray, other: np.ndarray, threshold: float) -> float:
    """Share of pairs that "same person up to `threshold`" gets right, those of one person and of two weighing half."""
    return float((_share_below(same, threshold) + 1 - _share_below(other, threshold)) / 2)


def draw_pairs(people: np.ndarray, count: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`count` pairs of pictures of one person, and as many of two, (count, 2) rows of `people` each.

    Every pair is as likely as any other, and none drawn twice. Raises UserError where there are too few.
    """
    rng, order = np.random.default_rng(seed), np.argsort(people, kind="stable")
    ends = np.searchsorted(people[order], people[order], side="right")
    drawn = []
    # In the order of people a picture makes pairs of one person up to that one's end, and of two from there on.
    after = np.arange(1, len(people) + 1)
    for which, starts, stops in (("one person", after, ends), ("two people", ends, np.full_like(ends, len(people)))):
        upto, total = np.cumsum(stops - starts), int(np.sum(stops - starts))
        if total < count:
            raise UserError(f"verification on {count} pairs of {which} needs more pictures, these make {total}")
        number = rng.choice(total, count, replace=False)
        first = np.searchsorted(upto, number, side="right")
        drawn.append(order[np.stack([first, (stops - upto)[first] + number], axis=1)])
    return drawn[0], drawn[1]


def pair_distances(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Distances (P,) of pairs (P, 2) of rows of the vectors (N, D)."""
    return np.linalg.norm(vectors[pairs[:, 0]] - vectors[pairs[:, 1]], axis=1)


def rank1_edits(
    edits: np.ndarray, sources: np.ndarray, gallery: np.ndarray, people: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which edits find their own source first in the gallery, and which a picture of its person; (P,) bool each.

    edits: (P, D). sources: (P,), where in the gallery (N, D) each one's source is. people: of the gallery, (N,).
    """
    half = np.sum(gallery**2, axis=1) / 2
    parts = (edits[start : start + BATCH] for start in range(0, len(edits), BATCH))
    nearest = np.concatenate([np.argmax(part @ gallery.T - half, axis=1) for part in parts])  # |x - y|^2 is least
    return nearest == sources, people[nearest] == people[sources]


def identity_curve(
    strengths: Sequence[float], right: np.ndarray, distances: np.ndarray, threshold: float
) -> list[dict[str, float]]:
    """What strength buys, and what it costs: a row of numbers for each of K strengths.

    right: (K, N), which edits the judge finds as wanted. distances: (K, N), of edits to their sources.
    "accuracy" is the mean of the former, "same_person" the share of the latter up to `threshold`, "distance" their
    mean. All over the same N edits at every strength: rows are comparable.
    """
    if right.shape != distances.shape or len(right) != len(strengths):
        raise ValueError(f"expected (strengths, edits) twice, got {right.shape} and {distances.shape}")
    return [
        {
            "strength": float(strength),
            "accuracy": float(hits.mean()),
            "same_person": float(np.mean(apart <= threshold)),
            "distance": float(apart.mean()),
        }
        for strength, hits, apart in zip(strengths, right, distances, strict=True)
    ]


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


def _share_below(values: np.ndarray, threshold: np.ndarray | float) -> np.ndarray:
    """Of `values` those that do not exceed each threshold."""
    return np.searchsorted(np.sort(values), threshold, "right") / len(values)


def _squared(vectors: np.ndarray) -> np.ndarray:
    norms = np.sum(vectors**2, axis=1)
    return np.maximum(norms[:, None] + norms[None] - 2 * vectors @ vectors.T, 0)
