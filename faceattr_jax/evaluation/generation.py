"""How good the faces are that a model draws from its prior, by a judge and embedders that had no part in its training.

Protocol (printed by `evaluation.report`):

* Every face of the split lends its labels to one new face, z drawn from the prior by a seed; faces are rounded to 8
  bits before anything looks at them. *data* stands for the faces themselves.
* *Accuracy*: the judge, at probability .5, finds the attributes that were asked for; mean over attributes. *Balanced*
  weighs both values of an attribute alike, so that leaving rare ones out does not pay.
* *Frechet distance* of the new faces to those of the split, in the features of an embedder that is named with it. For
  *data* it is that of as many other real faces: what a perfect model would be left with.
* *Pixel variance*: sum of squared deviations from the mean face of the same labels, inside the face region, as a share
  of the data's; with the same labels, both are over the same number of degrees of freedom. 0 where z is ignored.
* *R2 of z*: from the pixels of `probes` new faces, reduced to SIDE px (`metrics.held_out_r2`). It shows that z is not
  ignored, nothing more: fresh parameters score high, too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.data import crops
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import editing, features, metrics
from faceattr_jax.evaluation.editors import Generator, Judge, floats, split
from faceattr_jax.evaluation.regions import batches
from faceattr_jax.evaluation.tally import mean, number

Embedder = Callable[[jax.Array], jax.Array]
Batches = Iterable[tuple[np.ndarray, np.ndarray, int]]  # pictures uint8, their places among the faces, how many count

SIDE = 16


def evaluate_generators(
    generators: Mapping[str, Generator],
    judge: Judge,
    embedders: Mapping[str, Embedder],
    source: Any,
    indices: np.ndarray,
    *,
    others: np.ndarray | None = None,
    batch_size: int = 64,
    probes: int = 2000,
    seed: int = 0,
    watch: Callable[[str, jax.Array, np.ndarray, int], None] | None = None,
) -> dict[str, Any]:
    """Measure models that draw new faces side by side, on the same labels and from the same seed.

    Args:
      generators: name -> model, all of the same attributes.
      judge: knows all of these.
      embedders: name -> images (B, S, S, 3) in [-1, 1] to features (B, D).
      source: faces and labels.
      indices: (N,) faces, which lend their labels and are the data.
      others: real faces, for the Frechet distance that is left between real ones; None leaves it out.
      batch_size: faces per call; the last batch is filled up.
      probes: faces that z is regressed from.
      seed: of z.
      watch: is shown every batch of every generator: its name, new faces (B, S, S, 3) in [-1, 1], their places among
        the N, and how many of them count.

    Returns:
      {"images", "probes", "region_share", "same_labels", "dimensions", "generators"}: how many faces, the region's
      share of the picture, how many faces share their labels with others, embedder -> features, and "data" and every
      model -> "accuracy", "balanced_accuracy", "attributes" (name -> both, and "rate"), "frechet" (embedder ->
      distance), "variance_ratio", "latent_r2"; None stands for what could not be measured.
    """
    known = editing.check(generators, judge, source, next(iter(generators.values())).attributes, indices)
    labels = source.table.select(known)[indices]
    size = min(batch_size, len(indices))
    region = crops.face_region(source.crop, source.size)
    columns = np.array([judge.attributes.index(name) for name in known])
    _, kind, counts = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    kind = kind.reshape(-1)  # NumPy 2.0 alone gives it a second axis

    def look(name: str, faces: Batches) -> tuple[dict[str, Any], float, dict[str, features.Moments]]:
        """Accuracies, sum of squared deviations, moments of the features."""
        seen = metrics.Confusion(*np.zeros((4, len(known)), np.int64))
        deviations = Deviations(kind, counts)
        read = {name: features.Moments() for name in embedders}
        for pixels, places, count in faces:
            images = floats(pixels)
            answers = editing.answers(judge.classify(images), columns)
            found = metrics.confusion(answers, jnp.asarray(labels[places]), jnp.arange(size) < count)
            seen = jax.tree.map(np.add, seen, found)
            deviations.add(pixels[:count, region], places[:count])
            for embedder, moments in read.items():
                moments.add(np.asarray(embedders[embedder](images))[:count])
            if watch and name != "data":
                watch(name, images, places, count)
        return _accuracies(known, seen, labels), deviations.total, read

    def real(faces: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        for places, count in batches(np.arange(len(faces)), size):
            yield source.images(faces[places]), places, count

    accuracies, spread, ours = look("data", real(indices))
    left: dict[str, float | None] = dict.fromkeys(embedders)
    if others is not None and min(len(others), len(indices)) > 1:
        for name, embed in embedders.items():
            rest = features.Moments()
            for pixels, _, count in real(others):
                rest.add(np.asarray(embed(floats(pixels)))[:count])
            left[name] = features.frechet(ours[name], rest)
    rows = {"data": {**accuracies, "frechet": left, "variance_ratio": 1.0 if spread else None, "latent_r2": None}}
    key = jax.random.key(seed)
    for model, generator in generators.items():
        accuracies, deviation, theirs = look(model, _drawn(model, generator, labels, jax.random.fold_in(key, 0), size))
        rows[model] = {
            **accuracies,
            "frechet": {
                name: features.frechet(ours[name], theirs[name]) if len(indices) > 1 else None for name in embedders
            },
            "variance_ratio": deviation / spread if spread else None,
            "latent_r2": number(_latent_r2(generator, labels, jax.random.fold_in(key, 1), probes, batch_size)),
        }
    return {
        "images": len(indices),
        "probes": probes,
        "region_share": float(region.mean()),
        "same_labels": int(counts[counts > 1].sum()),
        "dimensions": {name: len(moments.mean) for name, moments in ours.items()},
        "generators": rows,
    }


class Deviations:
    """Sum of squared deviations of pictures from the mean of their kind, exact: 8-bit levels, added as integers.

    kind: of each face, 0 to K - 1, (N,). counts: faces of each kind, (K,).
    """

    def __init__(self, kind: np.ndarray, counts: np.ndarray) -> None:
        self.kind, self.counts = kind, counts
        self.sums: dict[int, np.ndarray] = {}
        self.squares = 0

    def add(self, levels: np.ndarray, places: np.ndarray) -> None:
        """levels: uint8 (B, ...) of the faces at `places` (B,). One of a kind is its mean, and left out."""
        for row, kind in zip(levels.astype(np.int64), self.kind[places], strict=True):
            if self.counts[kind] > 1:
                self.sums[kind] = self.sums.get(kind, 0) + row
                self.squares += int(np.sum(row**2))

    @property
    def total(self) -> float:
        """Once all faces were added."""
        return self.squares - float(sum(np.sum(total**2) / self.counts[kind] for kind, total in self.sums.items()))


def _drawn(
    name: str, generator: Generator, labels: np.ndarray, key: jax.Array, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    for places, count in batches(np.arange(len(labels)), size):
        faces = generator.generate(split(_keys(key, places)), jnp.asarray(labels[places]))
        if not jnp.all(jnp.isfinite(faces)):
            raise UserError(f"'{name}' draws pixels that are not finite; use a checkpoint from before it diverged")
        yield np.asarray(to_uint8(faces)), places, count


def _latent_r2(generator: Generator, labels: np.ndarray, key: jax.Array, probes: int, size: int) -> float:
    pixels, latents = [], []
    for places, count in batches(np.arange(probes), min(size, probes)):
        keys = split(_keys(key, places))
        faces = generator.generate(keys, jnp.asarray(labels[places % len(labels)]))
        pixels.append(np.asarray(_reduced(faces))[:count])
        latents.append(np.asarray(generator.draw_latents(keys))[:count])
    return metrics.held_out_r2(np.concatenate(pixels), np.concatenate(latents))


@jax.jit
def _keys(key: jax.Array, places: jax.Array) -> jax.Array:
    """A key for each of the faces at `places` (B,)."""
    return jax.vmap(lambda place: jax.random.fold_in(key, place))(places)


@jax.jit
def _reduced(faces: jax.Array) -> jax.Array:
    """(B, 3 min(S, SIDE)^2)."""
    side = min(faces.shape[1], SIDE)
    small = jax.image.resize(to_float(to_uint8(faces)), (len(faces), side, side, 3), "linear")
    return small.reshape(len(faces), -1)


def _accuracies(known: tuple[str, ...], seen: metrics.Confusion, labels: np.ndarray) -> dict[str, Any]:
    measures = {
        "accuracy": np.asarray(metrics.accuracy(seen)),
        "balanced_accuracy": np.asarray(metrics.balanced_accuracy(seen)),
        "rate": labels.mean(axis=0),
    }
    each = {name: {m: number(values[i]) for m, values in measures.items()} for i, name in enumerate(known)}
    return {m: mean(row[m] for row in each.values()) for m in ("accuracy", "balanced_accuracy")} | {"attributes": each}


def summarize(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Flat numbers of what `evaluate_generators` found, those of other rows than "model" with the row's name before.

    A Frechet distance is called after its embedder, ``frechet_EMBEDDER``.
    """
    summary: dict[str, Any] = {}
    for name, row in generation["generators"].items():
        prefix = "" if name == "model" else f"{name}_"
        summary |= {
            f"{prefix}generated_accuracy": row["accuracy"],
            f"{prefix}generated_balanced_accuracy": row["balanced_accuracy"],
            **{f"{prefix}frechet_{embedder}": distance for embedder, distance in row["frechet"].items()},
            f"{prefix}generated_variance_ratio": row["variance_ratio"],
            f"{prefix}latent_r2": row["latent_r2"],
        }
    return summary


def faces_grid(
    generator: Generator, labels: np.ndarray, *, rows: int = 8, columns: int = 8, seed: int = 0
) -> tuple[np.ndarray, list[str]]:
    """A row for each of the commonest combinations of `labels` (N, n), the same z down each column.

    Returns pictures (R, C, S, S, 3) uint8 and R names: the attributes that the row has.
    """
    kinds, counts = np.unique(labels, axis=0, return_counts=True)
    kinds = kinds[np.argsort(-counts, kind="stable")[:rows]]
    keys = _keys(jax.random.key(seed), np.arange(columns))
    pictures = [to_uint8(generator.generate(keys, jnp.asarray(np.tile(kind, (columns, 1))))) for kind in kinds]
    names = [
        " ".join(name for name, value in zip(generator.attributes, kind, strict=True) if value) or "none"
        for kind in kinds
    ]
    return np.stack([np.asarray(row) for row in pictures]), names
