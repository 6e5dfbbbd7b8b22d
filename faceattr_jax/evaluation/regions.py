"""Edits against the exact truth: a drawn face can be drawn again with other attributes.

For a source with `counterfactual` and `region` (faceattr_jax.data.synthetic), per attribute and direction:

* `ratio`, the region error ratio: sum |edit - truth| / sum |input - truth| inside the region of what the edit
  should change. 1 is what copying scores, 0 a perfect edit.
* What the labels leave free (the frame's colour) makes several truths: the face with its own styles and with
  each of the source's redrawn ones. An edit is compared with the one nearest to it, in numerator and denominator.
* `floor`: the same ratio for the pixelwise median of those truths, the optimum in L1 of an editor that cannot
  know the style and hedges.
* `drift`: mean |edit - input| outside the region, in 8-bit levels.

Regions are soft masks; sums are weighted by them and run over all faces, pixels and channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.evaluation import metrics
from faceattr_jax.evaluation.editors import Editor, floats, invert


def batches(indices: np.ndarray, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """`indices` in batches of one fixed size, with the number of them that count: the last is filled up."""
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        yield np.pad(batch, (0, batch_size - len(batch)), mode="edge"), len(batch)


def spread(indices: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `indices`, evenly spread over them."""
    return indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(int)]


def region_errors(
    editors: Mapping[str, Editor],
    source: Any,
    attributes: Sequence[str],
    indices: np.ndarray,
    *,
    strength: float,
    batch_size: int,
    faces: int,
    styles: int,
) -> dict[str, dict[str, dict[str, dict[str, float | int | None]]]]:
    """Region errors of every editor.

    Args:
      editors: name -> editor, all of the same attributes.
      source: faces with `table`, `images`, `counterfactual` and `region`.
      attributes: those to invert, one at a time.
      indices: (N,) faces.
      strength: of the edits.
      batch_size: faces per call of an editor.
      faces: at most so many per attribute and direction, spread over the indices.
      styles: number of redrawn styles that the source offers.

    Returns:
      editor -> attribute -> "adding" | "removing" -> {"ratio", "floor", "drift", "faces"}; null where no face or
      no pixel would change.
    """
    known = next(iter(editors.values())).attributes
    labels = source.table.select(known)[indices]
    result: dict[str, Any] = {name: {a: {} for a in attributes} for name in editors}
    for attribute in attributes:
        for value, direction in enumerate(("adding", "removing")):
            chosen = spread(indices[labels[:, known.index(attribute)] == value], faces)
            sums = {name: np.zeros(6) for name in editors}
            for batch, count in batches(chosen, batch_size):
                for name, rows in _batch(editors, source, attribute, batch, strength, styles).items():
                    sums[name] += np.sum(rows[:count], axis=0, dtype=np.float64)
            for name, (error, base, blind, blind_base, drift, outside) in sums.items():
                result[name][attribute][direction] = {
                    "ratio": _divide(error, base),
                    "floor": _divide(blind, blind_base),
                    "drift": _divide(drift, outside),
                    "faces": len(chosen),
                }
    return result


def _divide(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator else None


def _batch(
    editors: Mapping[str, Editor], source: Any, attribute: str, batch: np.ndarray, strength: float, styles: int
) -> dict[str, np.ndarray]:
    """Editor -> (B, 6) sums per face, as `region_sums` gives them, of editing one attribute."""
    known = next(iter(editors.values())).attributes
    own = source.table.select(known)[batch]
    target, _ = invert(own, known, (attribute,))
    # The truth is drawn from all labels of the source, of which the editor may know only some.
    every = source.table.attributes
    before = source.table.select(every)[batch]
    after, _ = invert(before, every, (attribute,))
    truths = [source.counterfactual(batch, after, style=style) for style in (None, *range(styles))]
    pixels = source.images(batch)
    images = floats(pixels)
    stack, soft = jnp.asarray(np.stack(truths)), jnp.asarray(changed_region(source, batch, before, after))
    floor = _floor(stack, soft, pixels)
    edits = {name: e.edit(images, jnp.asarray(own), jnp.asarray(target), strength) for name, e in editors.items()}
    sums = {name: region_sums(edit, pixels, stack, soft) for name, edit in edits.items()}
    return {name: np.concatenate([s[:, :2], floor, s[:, 2:]], axis=1) for name, s in sums.items()}


def changed_region(source: Any, batch: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Where labels `after` instead of `before` (B, A), of all the source's attributes, may show: (B, S, S)."""
    mask = np.zeros((len(batch), source.size, source.size), np.float32)
    for column in np.flatnonzero(np.any(before != after, axis=0)):
        rows = np.flatnonzero((before != after)[:, column])
        mask[rows] = np.maximum(mask[rows], source.region(batch[rows], source.table.attributes[column]))
    return mask


@jax.jit
def region_sums(edit: jax.Array, pixels: jax.Array, truths: jax.Array, mask: jax.Array) -> jax.Array:
    """(B, 4): error and input error against the nearest truth, drift and area outside the region."""
    outside = 1 - mask[..., None]
    drift = jnp.sum(outside * jnp.abs(metrics.levels(edit) - metrics.levels(pixels)), axis=(1, 2, 3))
    area = edit.shape[-1] * jnp.sum(outside, axis=(1, 2, 3))
    return jnp.stack([*_nearest(metrics.levels(edit), pixels, truths, mask), drift, area], axis=1)


@jax.jit
def _floor(truths: jax.Array, mask: jax.Array, pixels: jax.Array) -> jax.Array:
    """(B, 2): error and input error of the truths' median against the truth nearest to it."""
    # A sorting network of a few minima and maxima: XLA's own sort along a leading axis is far slower on a CPU.
    rows = [metrics.levels(t) for t in truths]
    for i in range(len(rows)):
        for j in range(i % 2, len(rows) - 1, 2):
            rows[j], rows[j + 1] = jnp.minimum(rows[j], rows[j + 1]), jnp.maximum(rows[j], rows[j + 1])
    return jnp.stack(_nearest(rows[len(rows) // 2], pixels, truths, mask), axis=1)


def _nearest(edit: jax.Array, pixels: jax.Array, truths: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sums over the region of |edit - truth| and |input - truth| for each face's nearest of K truths, (B,) each."""

    def distances(x: jax.Array) -> jax.Array:
        each = [jnp.sum(mask[..., None] * jnp.abs(x - metrics.levels(t)), axis=(1, 2, 3)) for t in truths]
        return jnp.stack(each)

    errors, bases = distances(edit), distances(metrics.levels(pixels))
    nearest = jnp.argmin(errors, axis=0)[None]
    return jnp.min(errors, axis=0), jnp.take_along_axis(bases, nearest, axis=0)[0]
