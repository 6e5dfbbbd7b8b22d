"""How well a classifier reads attributes: the judge's own quality, to print beside every number that it gives."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.evaluation import metrics, tally
from faceattr_jax.evaluation.editors import Judge, floats
from faceattr_jax.evaluation.regions import batches

Row = dict[str, float | None]


def evaluate_judge(
    judge: Judge, source: Any, indices: np.ndarray, names: Sequence[str] = (), *, batch_size: int = 256
) -> dict[str, Row]:
    """Attribute -> its accuracy, balanced accuracy, share of the commoner class and rate on `indices` of `source`.

    names: of the attributes, all of the judge's if left out. None stands for a balanced accuracy where one of the
    values does not occur. Raises `UserError` for an attribute that the source lacks.
    """
    names = tuple(names or judge.attributes)
    labels, columns = source.table.select(names), np.array([judge.attributes.index(name) for name in names])
    counts = metrics.Confusion(*np.zeros((4, len(names)), np.int64))
    size = min(batch_size, len(indices))
    for batch, count in batches(indices, size):
        predictions = judge.classify(floats(source.images(batch)))[:, columns] > 0.5
        found = metrics.confusion(predictions, jnp.asarray(labels[batch]), jnp.arange(size) < count)
        counts = jax.tree.map(np.add, counts, found)
    measures = {
        "accuracy": metrics.accuracy(counts),
        "balanced_accuracy": metrics.balanced_accuracy(counts),
        "majority": metrics.majority(counts),
        "rate": labels[indices].mean(0),
    }
    return {
        name: {measure: tally.number(np.asarray(values)[i]) for measure, values in measures.items()}
        for i, name in enumerate(names)
    }


def mean(rows: Mapping[str, Row], measure: str) -> float | None:
    """The mean of a measure over the attributes that have it, None where none has."""
    return tally.mean(row[measure] for row in rows.values())
