"""`faceattr evaluate`: a trained model on a split, by what it can do."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from faceattr_jax import config as configs
from faceattr_jax import files, grids
from faceattr_jax.data.source import Source, open_source
from faceattr_jax.editor import Editor, hash_variables, load
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import (
    cycles,
    editing,
    exemplar,
    generation,
    identity,
    labelling,
    masks,
    probing,
    report,
    restoration,
    sliding,
)
from faceattr_jax.evaluation.editors import Compiled, CopyingEditor, Exchanger, ReferenceEditor
from faceattr_jax.evaluation.editors import Editor as EditorProtocol
from faceattr_jax.evaluation.regions import spread
from faceattr_jax.evaluation.tally import mean
from faceattr_jax.methods.base import Variables
from faceattr_jax.training.state import init_state

GRID_FACES = 8
PEOPLE_IMAGES = 4_000  # all pairs of which are compared
PROBE_IMAGES = 4_000  # of the train split


def evaluate(
    workdir: Path,
    out: Path,
    *,
    judge: str = "",
    data: str = "",
    split: str = "test",
    images: int = 0,
    strength: float = 1.0,
    curve: bool = False,
) -> dict[str, Any]:
    """Evaluate a run and write the report into `out`; returns the flat summary that ``evaluation.json`` begins with.

    workdir: of the run, or one checkpoint. judge: workdir of a classifier, for an editor. data: instead of the data
    that the run was trained on. images: how many of the split, 0 for all (of a recogniser PEOPLE_IMAGES, of whole
    people). curve: accuracy over strengths, too. Raises `UserError` where the pieces do not fit together.
    """
    model = load(workdir)
    source = open_source(data or model.config.data.path, size=model.size, crop=model.crop)
    indices = source.table.indices(split)
    if len(indices) == 0:
        raise UserError(f"{data or model.config.data.path}: the {split} split is empty; give another --split.")
    indices = editing.invertible(model.method, source, indices)
    recognizes = "embed" in model.method.capabilities
    if recognizes:
        indices = identity.whole_people(source, indices, images or PEOPLE_IMAGES)
    elif images:
        indices = spread(indices, images)
    protocol = {
        "model": str(model.path),
        "model config": _sha256(configs.to_json(model.config).encode()),
        "data": f"{data or model.config.data.path}, {split} split, {len(indices)} images",
        "crop": f"{model.crop} to {model.size} px",
        "format": "8-bit RGB, no compression",
    }
    if "edit" in model.method.capabilities:
        return _evaluate_editor(model, judge, source, indices, out, strength, curve, protocol)
    if "swap" in model.method.capabilities:
        if curve or strength != 1.0:
            raise UserError(
                f"{model.path}: a model that swaps attributes has no strength; leave --strength and --curve."
            )
        return _evaluate_exchanger(model, judge, source, indices, out, protocol)
    if "restore" in model.method.capabilities:
        return _evaluate_restorer(model, source, indices, out, protocol)
    evaluate_model = _evaluate_recognizer if recognizes else _evaluate_judge
    return evaluate_model(model, source, indices, out, protocol)


def _evaluate_recognizer(
    model: Editor, source: Source, indices: np.ndarray, out: Path, protocol: dict[str, str]
) -> dict[str, Any]:
    people, embed = source.table.people(indices)[indices], jax.jit(model.method.embed)
    untrained = _untrained(model)
    rows = {
        name: identity.scores(identity.embeddings(functools.partial(embed, held), source, indices), people)
        for name, held in (("model", model.variables), ("untrained", untrained))
    }
    summary = {**rows["model"], **{f"untrained_{name}": value for name, value in rows["untrained"].items()}}
    protocol = {**protocol, "people": f"{len(np.unique(people))}, each with 2 pictures or more"}
    files.write(out / "evaluation.json", json.dumps({**summary, "protocol": protocol}, indent=2))
    files.write(out / "evaluation.md", identity.markdown(rows, protocol["data"]))
    return summary


def _evaluate_restorer(
    model: Editor, source: Source, indices: np.ndarray, out: Path, protocol: dict[str, str]
) -> dict[str, Any]:
    compiled = restoration.Compiled(model.method)
    untrained = _untrained(model)
    rows = restoration.evaluate(compiled, {"model": model.variables, "untrained": untrained}, source, indices)
    files.write(out / "evaluation.json", json.dumps({**rows["model"], "protocol": protocol, "rows": rows}, indent=2))
    files.write(out / "evaluation.md", restoration.markdown(rows, protocol["data"]))
    shown = spread(indices, GRID_FACES)
    grids.save_grid(out / "grid.png", *restoration.grid(compiled, model.variables, source, shown))
    return rows["model"]


def _evaluate_judge(
    model: Editor, source: Source, indices: np.ndarray, out: Path, protocol: dict[str, str]
) -> dict[str, Any]:
    rows = labelling.evaluate_judge(Compiled(model.method, model.variables), source, indices)
    summary = {name: labelling.mean(rows, name) for name in ("balanced_accuracy", "accuracy", "majority")}
    files.write(out / "evaluation.json", json.dumps({**summary, "protocol": protocol, "attributes": rows}, indent=2))
    files.write(out / "evaluation.md", labelling.markdown(rows, protocol["data"]))
    return summary


def _evaluate_editor(
    model: Editor,
    judge: str,
    source: Source,
    indices: np.ndarray,
    out: Path,
    strength: float,
    curve: bool,
    protocol: dict[str, str],
) -> dict[str, Any]:
    compiled_judge, about = _judge(model, judge)
    trained, untrained = _trained_and_untrained(model)
    editors: dict[str, EditorProtocol] = {
        "model": trained,
        "copy": CopyingEditor(model.attributes),
        "untrained": untrained,
    }
    found = editing.evaluate_editors(editors, compiled_judge, source, model.attributes, indices, strength=strength)
    summary = editing.summarize(found, about)
    if not model.method.towards:
        found["cyclic_psnr"] = cycles.cyclic_psnr(trained, source, model.attributes, indices, strength=strength)
        summary["cyclic_psnr"] = mean(x for cells in found["cyclic_psnr"].values() for x in cells.values())
    if "mask" in model.method.capabilities and hasattr(source, "region"):
        found["mask"] = masks.scores(
            functools.partial(model.method.mask, model.variables), source, model.attributes, indices
        )
        summary |= found["mask"]
    train = np.setdiff1d(source.table.indices("train"), indices)
    if "generate" in model.method.capabilities:
        generators = {"model": trained, "untrained": untrained}
        embedders = {"judge": compiled_judge.features} if compiled_judge.embeds else {}
        found["generation"] = generation.evaluate_generators(
            generators, compiled_judge, embedders, source, indices, others=spread(train, len(indices))
        )
        summary |= generation.summarize(found["generation"])
        labels = source.table.select(model.attributes)[indices]
        pictures, names = generation.faces_grid(trained, labels)
        grids.save_grid(out / "generated.png", pictures, row_names=names)
    if "slide" in model.method.capabilities:
        sliders = {"model": trained, "untrained": untrained}
        found["slider"] = sliding.evaluate_sliders(sliders, compiled_judge, source, indices)
        summary |= sliding.summarize(found["slider"])
    if "encode" in model.method.capabilities and len(train) > 1:
        encoders = {"model": trained.latents, "untrained": untrained.latents}
        learned = spread(train, PROBE_IMAGES)
        found["probe"] = probing.evaluate_latents(encoders, source, model.attributes, learned, indices)
        summary |= probing.summarize(found["probe"])
    rows = editing.strength_curve(trained, compiled_judge, source, model.attributes, indices) if curve else ()
    report.write_report(out, summary, found, protocol=protocol, curve=rows)
    shown = spread(indices, GRID_FACES)
    labels = source.table.select(model.attributes)[shown]
    pictures, names = editing.edits_grid(trained, source.images(shown), labels, model.attributes, strength)
    grids.save_grid(out / "grid.png", pictures, names)
    if "slide" in model.method.capabilities:
        grids.save_grid(out / "slides.png", *sliding.slides_grid(trained, source.images(shown), labels))
    return summary


def _evaluate_exchanger(
    model: Editor, judge: str, source: Source, indices: np.ndarray, out: Path, protocol: dict[str, str]
) -> dict[str, Any]:
    compiled_judge, about = _judge(model, judge)
    trained, untrained = _trained_and_untrained(model)
    editors: dict[str, Exchanger] = {
        "model": trained,
        "copy": CopyingEditor(model.attributes),
        "untrained": untrained,
        "reference": ReferenceEditor(model.attributes),
    }
    found = exemplar.evaluate_exchangers(editors, compiled_judge, source, model.attributes, indices)
    summary = exemplar.summarize(found, about)
    report.write_report(out, summary, found, protocol=protocol)
    labels, rng = source.table.select(model.attributes), np.random.default_rng(0)
    shown = spread(indices, GRID_FACES)
    references = {
        name: exemplar.opposites(labels[:, i], indices, shown, name, rng) for i, name in enumerate(model.attributes)
    }
    pictures, names = exemplar.swaps_grid(trained, source, shown, references)
    grids.save_grid(out / "grid.png", pictures, names)
    return summary


def _judge(model: Editor, judge: str) -> tuple[Compiled, dict[str, str]]:
    """The classifier in workdir `judge`, or the config's, and what identifies it."""
    judge = judge or model.config.evaluation.judge
    if not judge:
        raise UserError(
            "An editor is evaluated by a classifier that had no part in its training: give --judge=WORKDIR."
        )
    judging = load(judge)
    if (judging.size, judging.crop) != (model.size, model.crop):
        raise UserError(
            f"{judge}: this judge looks at {judging.crop} crops of {judging.size} px, the editor makes {model.crop} "
            f"crops of {model.size} px; train a judge that fits."
        )
    about = {"path": str(judging.path), "sha256": hash_variables(judging.variables)}
    return Compiled(judging.method, judging.variables), about


def _trained_and_untrained(model: Editor) -> tuple[Compiled, Compiled]:
    trained = Compiled(model.method, model.variables)
    return trained, trained.at(_untrained(model))


def _untrained(model: Editor) -> Variables:
    return jax.jit(lambda: init_state(model.method, model.config.seed).inference_variables)()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
