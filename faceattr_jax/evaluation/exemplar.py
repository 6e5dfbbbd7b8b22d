"""How well a model gives faces the attributes of other faces, by a judge that had no part in its training.

Protocol (printed by `evaluation.report`); what is not said here is as in `evaluation.editing`:

* Every face swaps one attribute at a time with a reference, a face of the same split whose label is the other one,
  dealt by a seed. *Accuracy*: the judge finds the reference's value in the result. *adding* and *removing* are seen
  from the face that receives. Several attributes at once come from a reference each.
* Where the source can draw it, the truth is the face with the attribute **in the reference's own style**: `ratio` is
  sum |result - truth| / sum |input - truth| inside the region of the attribute.
* *Drift* is the mean |result - input| outside the region in 8-bit levels, and `drift_ratio` that over the drift of the
  first editor's plain reconstruction: what an exchange changes elsewhere beyond what decoding does. The same
  denominator serves all editors; one that returns the reference itself is right in all but this.
* *Style correlation*: Spearman's between a reading of the reference and the same reading of the result, over faces
  that receive the attribute, with its 95 % interval. Readings, both inside the region and against the same face
  without the attribute, compare levels: `tone` is the relative change of brightness (how dark a frame is), `extent`
  the share of the pixels that change by more than EXTENT levels (how long bangs are). `shuffled` is the
  correlation with the readings of references dealt anew, `ceiling` that of the truth instead of the result.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import editing, metrics
from faceattr_jax.evaluation.editing import Evaluation
from faceattr_jax.evaluation.editors import Exchanger, Judge, choose_combinations, floats, invert
from faceattr_jax.evaluation.regions import batches, changed_region, region_sums
from faceattr_jax.evaluation.tally import DIRECTIONS, Group, Tally, mean

READINGS = ("tone", "extent")
EXTENT = 24  # levels; noise and blur change less


def opposites(
    labels: np.ndarray, indices: np.ndarray, shown: np.ndarray, name: str, rng: np.random.Generator
) -> np.ndarray:
    """For each face of `shown` one of `indices` whose label is the other, none twice before all were taken.

    labels: of attribute `name` for all faces, (N,). Raises UserError where there is none.
    """
    found = np.empty_like(shown)
    for value in (0, 1):
        receivers = labels[shown] == value
        givers = indices[labels[indices] != value]
        if receivers.any() and len(givers) == 0:
            raise UserError(f"no face of the split has {name}={1 - value}; evaluation needs one to take it from")
        if receivers.any():
            found[receivers] = np.resize(rng.permutation(givers), receivers.sum())
    return found


def dealt(
    source: Any, attributes: Sequence[str], indices: np.ndarray, shown: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Attribute -> `opposites` of `shown`, to take it from."""
    labels = source.table.select(attributes)
    return {name: opposites(labels[:, i], indices, shown, name, rng) for i, name in enumerate(attributes)}


def evaluate_exchangers(
    editors: Mapping[str, Exchanger],
    judge: Judge,
    source: Any,
    attributes: Sequence[str],
    indices: np.ndarray,
    *,
    batch_size: int = 64,
    seed: int = 0,
    combinations: Sequence[Group] | None = None,
    watch: editing.Watch | None = None,
) -> Evaluation:
    """Measure models that swap side by side, on the same faces with the same references.

    editors: name -> model, all of the same attributes; the first one's reconstruction is what drift is measured by.
    judge, source, attributes, indices, batch_size: as `editing.evaluate_editors` takes them; `source.counterfactual`
    draws faces `wearing` styles of others. seed: deals the references. combinations, watch: as `evaluate_editors` takes
    them.

    Returns what `evaluate_editors` does ("floor" is None: nothing is left open), and for each editor "exemplar" with
    "drift_ratio" and "style", attribute -> reading -> "faces", "correlation", "low", "high", "shuffled", "ceiling".
    """
    known = editing.check(editors, judge, source, attributes, indices)
    attributes, indices = tuple(attributes), np.asarray(indices)
    if combinations is None:
        combinations = choose_combinations(attributes)
    groups: list[Group] = [(name,) for name in attributes] + [tuple(c) for c in combinations]
    labels, rng = source.table.select(known), np.random.default_rng(seed)
    references = dealt(source, attributes, indices, indices, rng)
    columns = np.array([judge.attributes.index(name) for name in known])
    size = min(batch_size, len(indices))
    drawn = hasattr(source, "counterfactual")

    tallies = {name: Tally(known, groups) for name in editors}
    # Per attribute and label: error, error of the input, drift, area outside, drift of the reconstruction, faces.
    sums = {name: {a: np.zeros((2, 6)) for a in attributes} for name in editors}
    read: dict[str, dict[str, list[np.ndarray]]] = {name: {a: [] for a in attributes} for name in (*editors, "truth")}

    def judged(images: jax.Array) -> np.ndarray:
        return np.asarray(editing.answers(judge.classify(images), columns))

    for places, count in batches(np.arange(len(indices)), size):
        batch = indices[places]
        pixels, own = source.images(batch), labels[batch]
        images = floats(pixels)
        before = judged(images)
        decoded = {name: editor.reconstruct(images, jnp.asarray(own)) for name, editor in editors.items()}
        for name, tally in tallies.items():
            tally.add_similarity(np.asarray(editing.similarity(pixels, decoded[name]))[:count])
            if watch:
                editing.show(watch, name, batch, count, images, own, decoded[name])
        for group in groups:
            others = to_float(jnp.asarray(np.stack([source.images(references[a][places]) for a in group])))
            mask = jnp.asarray([[name == a for name in known] for a in group])
            target, touched = invert(own, known, group)
            results = {name: editor.swap(images, others, mask) for name, editor in editors.items()}
            for name, result in results.items():
                rounded, change, finite = editing.as_saved(pixels, result)
                if not finite:
                    raise UserError(
                        f"'{name}' returns pixels that are not finite when it swaps {' and '.join(group)}; use a "
                        "checkpoint from before it diverged"
                    )
                after = judged(rounded)
                cells = (own, target, touched, before, after, np.asarray(change))
                tallies[name].add(group, *(x[:count] for x in cells))
                if watch:
                    editing.show(watch, name, batch, count, images, own, rounded, group, target, after, known)
            if drawn and len(group) == 1:
                (a,) = group
                truth, soft = _truth(source, a, batch, references[a][places])
                present = own[:, known.index(a)] > 0.5
                model_drift = np.asarray(region_sums(next(iter(decoded.values())), pixels, truth[None], soft))[:, 2]
                for name, result in (*results.items(), ("truth", truth)):
                    adding = _readings(result, pixels, soft)[:count][~present[:count]]
                    read[name][a].append(np.asarray(adding))
                    if name != "truth":
                        found = np.asarray(region_sums(result, pixels, truth[None], soft), np.float64)
                        rows = np.column_stack([found, model_drift, np.ones(size)])[:count]
                        for value in (0, 1):
                            sums[name][a][value] += rows[present[:count] == value].sum(axis=0)

    regions = {name: {a: _regions(sums[name][a]) for a in attributes} for name in editors} if drawn else {}
    scores = {name: tally.result(regions.get(name)) for name, tally in tallies.items()}
    if drawn:
        style = _styles(source, attributes, labels, known, indices, references, read, size, rng)
        for name, score in scores.items():
            ratios = [cell["drift_ratio"] for cells in regions[name].values() for cell in cells.values()]
            score["exemplar"] = {"drift_ratio": mean(ratios), "style": style[name]}
    return {
        "images": len(indices),
        "strength": 1.0,
        "attributes": list(attributes),
        "editors": scores,
        "notes": editing.notes(scores),
    }


def _truth(source: Any, attribute: str, faces: np.ndarray, givers: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """The faces with the attribute inverted and worn as the givers wear it, and where that may show."""
    every = source.table.attributes
    before = source.table.select(every)[faces]
    after, _ = invert(before, every, (attribute,))
    truth = source.counterfactual(faces, after, wearing={attribute: givers})
    return jnp.asarray(truth), jnp.asarray(changed_region(source, faces, before, after))


@jax.jit
def _readings(images: jax.Array, without: jax.Array, mask: jax.Array) -> jax.Array:
    """(B, 2): tone and extent of what `images` show and the same faces `without` it do not."""
    there, bare = metrics.levels(images), metrics.levels(without)
    tone = jnp.sum(mask[..., None] * (there - bare), (1, 2, 3)) / jnp.sum(mask[..., None] * bare, (1, 2, 3))
    changed = jnp.max(jnp.abs(there - bare), axis=3) > EXTENT
    return jnp.stack([tone, jnp.sum(mask * changed, (1, 2)) / jnp.sum(mask, (1, 2))], axis=1)


def _regions(sums: np.ndarray) -> dict[str, dict[str, Any]]:
    """Direction -> what `regions.region_errors` gives, from sums by label (2, 6)."""

    def over(a: float, b: float) -> float | None:
        return float(a / b) if b else None

    return {
        direction: {
            "ratio": over(error, base),
            "floor": None,
            "drift": over(drift, area),
            "drift_ratio": over(drift, model_drift),
            "faces": int(faces),
        }
        for direction, (error, base, drift, area, model_drift, faces) in zip(DIRECTIONS, sums, strict=True)
    }


def _styles(
    source: Any,
    attributes: Sequence[str],
    labels: np.ndarray,
    known: Sequence[str],
    indices: np.ndarray,
    references: Mapping[str, np.ndarray],
    read: Mapping[str, Mapping[str, Sequence[np.ndarray]]],
    size: int,
    rng: np.random.Generator,
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Editor -> attribute -> reading -> its correlations, from the readings of the results and of the truth."""
    style: dict[str, dict[str, dict[str, dict[str, Any]]]] = {name: {} for name in read}
    for a in attributes:
        givers = references[a][labels[indices, known.index(a)] < 0.5]
        unique, position = np.unique(givers, return_inverse=True)
        theirs = _worn(source, a, unique, size)[position]
        shuffled = rng.permutation(len(givers))
        ceiling = np.concatenate(read["truth"][a])
        for name in read:
            mine = np.concatenate(read[name][a])
            style[name][a] = {}
            for i, reading in enumerate(READINGS):
                correlation, low, high = metrics.spearman(theirs[:, i], mine[:, i])
                style[name][a][reading] = {
                    "faces": len(mine),
                    "correlation": correlation,
                    "low": low,
                    "high": high,
                    "shuffled": metrics.spearman(theirs[shuffled, i], mine[:, i])[0],
                    "ceiling": metrics.spearman(theirs[:, i], ceiling[:, i])[0],
                }
    return style


def _worn(source: Any, attribute: str, faces: np.ndarray, size: int) -> np.ndarray:
    """Readings (F, 2) of faces that have the attribute."""
    every = source.table.attributes
    rows = [np.zeros((0, len(READINGS)))]
    for batch, count in batches(faces, min(size, max(len(faces), 1))):
        has = source.table.select(every)[batch]
        lacks, _ = invert(has, every, (attribute,))
        soft = jnp.asarray(changed_region(source, batch, has, lacks))
        rows.append(np.asarray(_readings(source.images(batch), source.counterfactual(batch, lacks), soft))[:count])
    return np.concatenate(rows)


def summarize(evaluation: Evaluation, judge: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The flat numbers of `evaluation.json` from what `evaluate_exchangers` found for "model", "reference" and others.

    Those of `editing.summarize`, and drift ratios, accuracy of all attributes of a combination at once (mean over
    combinations), and for each attribute and reading ``style_ATTRIBUTE_READING`` with ``_low``, ``_high``,
    ``_shuffled`` and ``_ceiling``.
    """
    summary = editing.summarize(evaluation, judge)
    for name, result in evaluation["editors"].items():
        prefix = "" if name == "model" else f"{name}_"
        together = mean(row["accuracy"] for row in result["multiple"])
        summary[f"{prefix}together_accuracy"] = together
        if "exemplar" in result:
            summary[f"{prefix}region_drift_ratio"] = result["exemplar"]["drift_ratio"]
            summary.setdefault(f"{prefix}region_error_ratio", result["region"]["ratio"])
    if "exemplar" in evaluation["editors"]["model"]:
        for attribute, readings in evaluation["editors"]["model"]["exemplar"]["style"].items():
            for reading, found in readings.items():
                key = f"style_{attribute}_{reading}"
                summary[key] = found["correlation"]
                summary |= {f"{key}_{part}": found[part] for part in ("low", "high", "shuffled", "ceiling")}
    return summary


def swaps_grid(
    editor: Exchanger, source: Any, shown: np.ndarray, references: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, list[str]]:
    """A row per face: input, reconstruction, and for each attribute a reference and the face with its attribute.

    shown: faces (R,). references: attribute -> faces (R,). Returns pictures (R, C, S, S, 3) uint8 and C headings.
    """
    images = to_float(jnp.asarray(source.images(shown)))
    labels = jnp.asarray(source.table.select(editor.attributes)[shown])
    names, columns = ["Input", "Reconstruction"], [images, editor.reconstruct(images, labels)]
    for name, faces in references.items():
        other = to_float(jnp.asarray(source.images(faces)))
        mask = jnp.asarray([[known == name for known in editor.attributes]])
        names += ["Reference", name.replace("_", " ")]
        columns += [other, editor.swap(images, other[None], mask)]
    return np.stack([np.asarray(to_uint8(column)) for column in columns], axis=1), names
