"""How well an editor edits, by a judge that had no part in its training.

Protocol (AttGAN section 4.2 and figure 6, STGAN's tables; printed by `evaluation.report`):

* Every face is inverted on one attribute at a time: *adding* where its label is 0, *removing* where it is 1.
  Attributes that the request rules out go to 0 with it (`attributes.CONFLICTS`).
* Edits are rounded to 8 bits, as a PNG holds them, before anything looks at them.
* *Accuracy*: the judge's answer at probability .5 equals the target. Means over attributes and directions weigh
  every attribute-direction alike; `attribute_accuracy_by_image` weighs images alike within an attribute, as AttGAN
  and STGAN do. DIAT's is that of one attribute and direction, "single" -> attribute -> direction.
* *Untouched change*: over all single edits, the share of (image, untouched attribute) pairs whose judged value
  differs from the one judged on the input. *Untouched error*: from the input's label (STGAN's "Err"; a copying
  editor scores the judge's error).
* Several attributes at once (AttGAN figure 5): all of them right, and the mean over them.
* *Reconstruction*: the face decoded with its own labels; mean PSNR and SSIM over images.
* Region errors where the source can draw the truth: `evaluation.regions`.

Images stream through in batches of one shape; only counts are kept.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax import attributes as attribute_names
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import metrics
from faceattr_jax.evaluation.editors import Editor, Judge, choose_combinations, floats, invert
from faceattr_jax.evaluation.regions import batches, region_errors
from faceattr_jax.evaluation.tally import DIRECTIONS, Group, Tally, mean

Evaluation = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """One batch of one editor's results, for whom else they are of interest; the first `count` of B are faces.

    group: the attributes that were inverted, () of reconstructions. faces: of the source, (B,). images: the inputs,
    edits: the results, rounded to 8 bits, (B, S, S, 3) in [-1, 1]. own, target: 0/1 (B, n). right: whether the judge
    finds all of the group as wanted, (B,) bool.
    """

    editor: str
    group: Group
    faces: np.ndarray
    count: int
    images: jax.Array
    edits: jax.Array
    own: np.ndarray
    target: np.ndarray
    right: np.ndarray


Watch = Callable[[Seen], None]
STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)  # of a curve


def evaluate_editors(
    editors: Mapping[str, Editor],
    judge: Judge,
    source: Any,
    attributes: Sequence[str],
    indices: np.ndarray,
    *,
    strength: float = 1.0,
    batch_size: int = 64,
    combinations: Sequence[Group] | None = None,
    region_faces: int = 64,
    styles: int | None = None,
    watch: Watch | None = None,
) -> Evaluation:
    """Measure editors side by side on the same faces.

    Args:
      editors: name -> editor, all of the same attributes; what becomes of those that are not inverted counts as
        untouched (`editors.Widened` asks with more than a model knows). `summarize` knows "model", "copy" and
        "untrained".
      judge: knows every attribute of the editors.
      source: faces and labels (faceattr_jax.data.source); with `counterfactual` and `region`, region errors too.
      attributes: those to invert, of the editors'.
      indices: (N,) faces to use.
      strength: of the edits.
      batch_size: faces per call; the last batch is filled up, so that nothing compiles twice.
      combinations: attributes to invert at once; None chooses some (`choose_combinations`), () leaves it out.
      region_faces: faces per attribute and direction for the region errors, 0 leaves them out.
      styles: redrawn styles to compare with; None takes all `source.styles`.
      watch: is shown every batch of every editor's reconstructions and edits.

    Returns:
      A JSON-able tree: {"images", "strength", "attributes", "editors": {name: {...}}, "notes"};
      None stands for what could not be measured, and a note says why.

    Raises UserError for an attribute that the editor, judge or source does not know, for no faces at all, and
    for an editor that returns pixels that are not finite.
    """
    known = check(editors, judge, source, attributes, indices)
    attributes, indices = tuple(attributes), np.asarray(indices)
    if combinations is None:
        combinations = choose_combinations(attributes)
    groups: list[Group] = [(a,) for a in attributes] + [tuple(c) for c in combinations]
    labels = source.table.select(known)
    columns = np.array([judge.attributes.index(name) for name in known])
    size = min(batch_size, len(indices))

    tallies = {name: Tally(known, groups) for name in editors}
    for batch, count in batches(indices, size):
        pixels, own = source.images(batch), labels[batch]
        images = floats(pixels)
        inverted = {group: invert(own, known, group) for group in groups}
        before, edits, decoded = _edit_and_judge(
            editors,
            lambda x: answers(judge.classify(x), columns),
            pixels,
            images,
            own,
            inverted,
            strength,
            keep=watch is not None,
        )
        for name, tally in tallies.items():
            tally.add_similarity(np.asarray(similarity(pixels, decoded[name]))[:count])
            for group, (after, change, _) in edits[name].items():
                target, touched = inverted[group]
                tally.add(group, *(x[:count] for x in (own, target, touched, before, after, change)))
            if watch:
                show(watch, name, batch, count, images, own, decoded[name])
                for group, (after, _, result) in edits[name].items():
                    target = inverted[group][0]
                    show(watch, name, batch, count, images, own, result, group, target, after, known)

    regions = {}
    if region_faces and hasattr(source, "counterfactual"):
        limits = {"batch_size": size, "faces": region_faces}
        limits["styles"] = source.styles if styles is None else styles
        regions = region_errors(editors, source, attributes, indices, strength=strength, **limits)
    results = {name: tally.result(regions.get(name)) for name, tally in tallies.items()}
    return {
        "images": len(indices),
        "strength": float(strength),
        "attributes": list(attributes),
        "editors": results,
        "notes": notes(results),
    }


def invertible(method: Any, source: Any, indices: np.ndarray) -> np.ndarray:
    """Those of `indices` whose faces the method can give the other value of every attribute (`Method.towards`).

    Raises UserError where there are none.
    """
    given = source.table.select(method.towards)[indices]
    able = np.all(given != np.array(list(method.towards.values()), np.float32), axis=1)
    if method.towards and not able.any():
        only = ", ".join(f"{name}={value}" for name, value in method.towards.items())
        raise UserError(f"all faces have {only} already, which is all that this model can do; choose other faces")
    return indices[able]


def evaluate_editor(editor: Editor, *args: Any, **kwargs: Any) -> Evaluation:
    """`evaluate_editors` of one editor, named "model"."""
    return evaluate_editors({"model": editor}, *args, **kwargs)


def check(
    editors: Mapping[str, Any], judge: Judge, source: Any, attributes: Sequence[str], indices: np.ndarray
) -> tuple[str, ...]:
    """The attributes that all editors share, known to judge and source."""
    first, known = next((name, tuple(editor.attributes)) for name, editor in editors.items())
    for name, editor in editors.items():
        if tuple(editor.attributes) != known:
            raise UserError(f"editors '{first}' and '{name}' differ in their attributes; evaluate them apart")
    attribute_names.check_names(attributes, known)
    for name in known:
        if name not in judge.attributes:
            raise UserError(f"the judge does not know the editor's attribute {name}; give one trained on it")
    if not attributes:
        raise UserError(f"there is no attribute to invert; name some of {', '.join(known)}")
    if len(indices) == 0:
        raise UserError("there are no faces to evaluate on; choose a split that has some")
    return known


def _edit_and_judge(
    editors: Mapping[str, Editor],
    judged: Callable[[jax.Array], jax.Array],
    pixels: np.ndarray,
    images: jax.Array,
    own: np.ndarray,
    inverted: Mapping[Group, tuple[np.ndarray, np.ndarray]],
    strength: float,
    keep: bool,
) -> tuple[np.ndarray, dict[str, dict[Group, tuple[np.ndarray, np.ndarray, jax.Array]]], dict[str, jax.Array]]:
    """One batch. Returns the judge's answers (B, n) on the input; editor -> group -> its answers on the edits, mean
    |edit - input| (B,) and, to `keep`, the edits as saved (B, S, S, 3); editor -> the reconstruction (B, S, S, 3)."""
    labels = jnp.asarray(own)
    before = judged(images)
    # Everything is dispatched before anything is waited for.
    pending, decoded = {}, {}
    for name, editor in editors.items():
        decoded[name] = editor.reconstruct(images, labels)
        for group, (target, _) in inverted.items():
            edit = editor.edit(images, labels, jnp.asarray(target), strength)
            if edit is images:  # a copy needs no second judgement
                pending[name, group] = before, jnp.zeros(len(own)), images, jnp.ones((), bool)
            else:
                rounded, change, finite = as_saved(pixels, edit)
                pending[name, group] = judged(rounded), change, rounded if keep else images, finite
    edits: dict[str, dict[Group, tuple[np.ndarray, np.ndarray, jax.Array]]] = {name: {} for name in editors}
    for (name, group), (after, change, rounded, finite) in pending.items():
        if not finite:
            raise UserError(
                f"editor '{name}' returns pixels that are not finite when it inverts {' and '.join(group)} at "
                f"strength {strength}; use a checkpoint from before it diverged, or a lower strength"
            )
        edits[name][group] = np.asarray(after), np.asarray(change), rounded
    return np.asarray(before), edits, decoded


def show(
    watch: Watch,
    name: str,
    faces: np.ndarray,
    count: int,
    images: jax.Array,
    own: np.ndarray,
    result: jax.Array,
    group: Group = (),
    target: np.ndarray | None = None,
    after: np.ndarray | None = None,
    known: Sequence[str] = (),
) -> None:
    """Hand a batch of edits, or of reconstructions where `group` is empty, to `watch`.

    after: the judge's answers (B, n) on attributes `known`.
    """
    if target is None or after is None:
        saved = to_float(to_uint8(result))
        watch(Seen(name, (), faces, count, images, saved, own, own, np.ones(len(own), bool)))
    else:
        columns = [list(known).index(a) for a in group]
        right = np.all(after[:, columns] == (target[:, columns] > 0.5), axis=1)
        watch(Seen(name, group, faces, count, images, result, own, target, right))


@jax.jit
def answers(probabilities: jax.Array, columns: jax.Array) -> jax.Array:
    return probabilities[:, columns] > 0.5


@jax.jit
def as_saved(pixels: jax.Array, edit: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The edit after a round trip through 8 bits, its difference from the input (B,), and whether it is finite."""
    return to_float(to_uint8(edit)), metrics.l1(edit, pixels), jnp.all(jnp.isfinite(edit))


@jax.jit
def similarity(pixels: jax.Array, reconstruction: jax.Array) -> jax.Array:
    measures = (metrics.psnr, metrics.ssim, metrics.l1)
    return jnp.stack([measure(reconstruction, pixels) for measure in measures], axis=1)


def notes(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for everything that is None."""
    found = []
    first = next(iter(results.values()))
    if first["untouched_change"] is None:
        found.append("every edit touches all attributes that the judge reads; there is no untouched change or error")
    for attribute, cells in first["single"].items():
        for direction, cell in cells.items():
            if cell["faces"] == 0:
                has = "lacks" if direction == "adding" else "has"
                found.append(f"{direction} {attribute}: no face here {has} it; left out of every mean")
            elif cell.get("region", {"ratio": 0})["ratio"] is None:
                found.append(f"{direction} {attribute}: changes no pixel of these faces; it has no region error")
    found += [
        f"{name}: a reconstruction equals its image, so the mean PSNR is infinite and given as null"
        for name, result in results.items()
        if result["reconstruction"]["psnr"] is None
    ]
    return found


def summarize(evaluation: Evaluation, judge: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The flat numbers of `evaluation.json` from what `evaluate_editors` found for "model", "copy", "untrained".

    evaluation: with what `labelling.evaluate_judge` says as "judge", if the summary is to tell how good the judge is.
    judge: what identifies it, such as {"path": ..., "sha256": ...}.
    """
    model = evaluation["editors"]["model"]
    reading = evaluation.get("judge", {})
    balanced = {name: reading[name]["balanced_accuracy"] for name in evaluation["attributes"] if name in reading}
    worst, direction = model["worst"]
    region = model["region"] or {"ratio": None, "floor": None, "drift": None}
    summary = {
        "images": evaluation["images"],
        "strength": evaluation["strength"],
        "judge": dict(judge or {}),
        "judge_balanced_accuracy": mean(balanced.values()),
        "judge_balanced_accuracy_per_attribute": balanced,
        "attribute_accuracy": model["accuracy"],
        "attribute_accuracy_adding": model["adding"],
        "attribute_accuracy_removing": model["removing"],
        "attribute_accuracy_by_image": model["by_image"],
        "attribute_accuracy_worst": model["single"][worst][direction]["accuracy"],
        "attribute_accuracy_worst_which": f"{direction} {worst}",
        "untouched_change": model["untouched_change"],
        "untouched_error": model["untouched_error"],
        "region_error_ratio": region["ratio"],
        "region_error_floor": region["floor"],
        "region_drift": region["drift"],
        "reconstruction_psnr": model["reconstruction"]["psnr"],
        "reconstruction_ssim": model["reconstruction"]["ssim"],
    }
    for name in ("copy", "untrained"):
        other = evaluation["editors"].get(name)
        summary |= {
            f"{name}_attribute_accuracy": other and other["accuracy"],
            f"{name}_untouched_change": other and other["untouched_change"],
            f"{name}_untouched_error": other and other["untouched_error"],
        }
    return summary


def strength_curve(
    editor: Editor,
    judge: Judge,
    source: Any,
    attributes: Sequence[str],
    indices: np.ndarray,
    *,
    strengths: Sequence[float] = STRENGTHS,
    batch_size: int = 64,
    watches: Mapping[float, Watch] = MappingProxyType({}),
) -> list[dict[str, float | None]]:
    """Accuracy against what it costs, by strength: one row of numbers each.

    watches: by strength, as `evaluate_editors` takes one.
    "change" is mean |edit - input| over all single edits in 8-bit levels; at strength 0 it is what the
    reconstruction costs.
    """
    rows = []
    for strength in strengths:
        found = evaluate_editor(
            editor, judge, source, attributes, indices,
            strength=strength, batch_size=batch_size, combinations=(), region_faces=0, watch=watches.get(strength),
        )["editors"]["model"]  # fmt: skip
        keys = ("accuracy", *DIRECTIONS, "untouched_change", "untouched_error", "change")
        rows.append({"strength": float(strength), **{key: found[key] for key in keys}})
    return rows


def edits_grid(
    editor: Editor, images: np.ndarray, labels: np.ndarray, attributes: Sequence[str], strength: float = 1.0
) -> tuple[np.ndarray, list[str]]:
    """A row per face: input, reconstruction, and each attribute inverted.

    Args:
      editor: what edits.
      images: (R, S, S, 3) uint8.
      labels: (R, n) of the editor's attributes.
      attributes: a column each.
      strength: of the edits.

    Returns:
      pictures: (R, C, S, S, 3) uint8.
      names: C headings.
    """
    known = tuple(editor.attributes)
    attribute_names.check_names(attributes, known)
    own = np.asarray(labels, np.float32)
    x, y = to_float(jnp.asarray(images)), jnp.asarray(own)
    columns = [editor.reconstruct(x, y)]
    for name in attributes:
        target, _ = invert(own, known, (name,))
        columns.append(editor.edit(x, y, jnp.asarray(target), strength))
    pictures = np.stack([images, *(np.asarray(to_uint8(column)) for column in columns)], axis=1)
    return pictures, ["Input", "Reconstruction", *(name.replace("_", " ") for name in attributes)]
