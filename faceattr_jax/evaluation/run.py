"""`faceattr evaluate`: a trained model on a split, by what it can do."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from faceattr_jax import files, grids
from faceattr_jax.data.source import Source
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import (
    cycles,
    editing,
    exemplar,
    generation,
    identity,
    labelling,
    masks,
    page,
    probing,
    report,
    restoration,
    sliding,
)
from faceattr_jax.evaluation.editors import Compiled, CopyingEditor, Exchanger, ReferenceEditor, Widened, everywhere
from faceattr_jax.evaluation.editors import Editor as EditorProtocol
from faceattr_jax.evaluation.opening import Opened, open_judge, open_run, readable
from faceattr_jax.evaluation.regions import spread
from faceattr_jax.evaluation.tally import DIRECTIONS, mean
from faceattr_jax.methods.base import Variables
from faceattr_jax.training.state import init_state

GRID_FACES = 8
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

    workdir: of the run, or one checkpoint. judge: workdir of a classifier, for an editor or a restorer. data: instead
    of the data that the run was trained on. images: how many of the split, 0 for all (of a recogniser
    opening.PEOPLE_IMAGES, of whole people). curve: accuracy over strengths, too. Raises `UserError` where the pieces do
    not fit together.
    """
    opened = open_run(workdir, data=data, split=split, images=images)
    model, source, indices, protocol = opened.model, opened.source, opened.indices, opened.protocol
    if "edit" in model.method.capabilities:
        return _evaluate_editor(opened, judge, out, strength, curve)
    if "swap" in model.method.capabilities:
        if curve or strength != 1.0:
            raise UserError(
                f"{model.path}: a model that swaps attributes has no strength; leave --strength and --curve."
            )
        return _evaluate_exchanger(opened, judge, out)
    if "restore" in model.method.capabilities:
        return _evaluate_restorer(opened, judge, out)
    evaluate_model = _evaluate_recognizer if "embed" in model.method.capabilities else _evaluate_judge
    return evaluate_model(model, source, indices, out, protocol)


def _evaluate_recognizer(
    model: Editor, source: Source, indices: np.ndarray, out: Path, protocol: dict[str, str]
) -> dict[str, Any]:
    people, embed = source.table.people(indices)[indices], jax.jit(model.method.embed)
    untrained = _untrained(model)
    rows = {
        name: identity.scores(identity.embeddings(functools.partial(embed, everywhere(held)), source, indices), people)
        for name, held in (("model", model.variables), ("untrained", untrained))
    }
    summary = {**rows["model"], **{f"untrained_{name}": value for name, value in rows["untrained"].items()}}
    protocol = {**protocol, "people": f"{len(np.unique(people))}, each with 2 pictures or more"}
    files.write(out / "evaluation.json", json.dumps({**summary, "protocol": protocol}, indent=2, allow_nan=False))
    files.write(out / "evaluation.md", report.scores(f"Recognition, {protocol['data']}", rows))
    return summary


def _evaluate_restorer(opened: Opened, judge: str, out: Path) -> dict[str, Any]:
    """judge: reads the Frechet distance's features, where there is one."""
    model, source, indices, protocol = opened.model, opened.source, opened.indices, dict(opened.protocol)
    embedders = {}
    if judge or model.config.evaluation.judge:
        judging, about = open_judge(opened, judge)
        embedders = {"judge": judging.features} if judging.embeds else {}
        protocol |= {f"judge {key}": value for key, value in about.items()}
    compiled = restoration.Compiled(model.method)
    untrained = _untrained(model)
    held = everywhere({"model": model.variables, "untrained": untrained})
    rows = restoration.evaluate(compiled, held, source, indices, embedders=embedders)
    files.write(
        out / "evaluation.json",
        json.dumps({**rows["model"], "protocol": protocol, "rows": rows}, indent=2, allow_nan=False),
    )
    files.write(out / "evaluation.md", report.scores(f"Restoration, {protocol['data']}", rows))
    shown = spread(indices, GRID_FACES)
    grids.save_grid(out / "grid.png", *restoration.grid(compiled, model.variables, source, shown))
    return rows["model"]


def _evaluate_judge(
    model: Editor, source: Source, indices: np.ndarray, out: Path, protocol: dict[str, str]
) -> dict[str, Any]:
    rows = labelling.evaluate_judge(Compiled(model.method, model.variables), source, indices)
    means = {measure: labelling.mean(rows, measure) for measure in next(iter(rows.values()))}
    summary = {name: means[name] for name in ("balanced_accuracy", "accuracy", "majority")}
    tree = {**summary, "protocol": protocol, "attributes": rows}
    files.write(out / "evaluation.json", json.dumps(tree, indent=2, allow_nan=False))
    files.write(
        out / "evaluation.md", report.scores(f"Reading attributes, {protocol['data']}", {**rows, "mean": means})
    )
    return {**{f"accuracy: {name}": row["accuracy"] for name, row in rows.items()}, **summary}


def _evaluate_editor(opened: Opened, judge: str, out: Path, strength: float, curve: bool) -> dict[str, Any]:
    model, source, indices = opened.model, opened.source, opened.indices
    compiled_judge, about = open_judge(opened, judge)
    trained, untrained = _trained_and_untrained(model)
    known = readable(opened, compiled_judge)
    editors: dict[str, EditorProtocol] = {
        "model": Widened(trained, known),
        "copy": CopyingEditor(known),
        "untrained": Widened(untrained, known),
    }
    found = editing.evaluate_editors(editors, compiled_judge, source, model.attributes, indices, strength=strength)
    found["judge"] = labelling.evaluate_judge(compiled_judge, source, source.table.indices(opened.split), known)
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
    rows = editing.strength_curve(editors["model"], compiled_judge, source, model.attributes, indices) if curve else ()
    report.write_report(out, summary, found, protocol=opened.protocol, curve=rows)
    _save_chart(out, found)
    shown = spread(indices, GRID_FACES)
    labels = source.table.select(model.attributes)[shown]
    pictures, names = editing.edits_grid(trained, source.images(shown), labels, model.attributes, strength)
    grids.save_grid(out / "grid.png", pictures, names)
    if "slide" in model.method.capabilities:
        grids.save_grid(out / "slides.png", *sliding.slides_grid(trained, source.images(shown), labels))
    return summary


def _evaluate_exchanger(opened: Opened, judge: str, out: Path) -> dict[str, Any]:
    model, source, indices = opened.model, opened.source, opened.indices
    compiled_judge, about = open_judge(opened, judge)
    trained, untrained = _trained_and_untrained(model)
    known = readable(opened, compiled_judge)
    editors: dict[str, Exchanger] = {
        "model": Widened(trained, known),
        "copy": CopyingEditor(known),
        "untrained": Widened(untrained, known),
        "reference": ReferenceEditor(known),
    }
    found = exemplar.evaluate_exchangers(editors, compiled_judge, source, model.attributes, indices)
    found["judge"] = labelling.evaluate_judge(compiled_judge, source, source.table.indices(opened.split), known)
    summary = exemplar.summarize(found, about)
    report.write_report(out, summary, found, protocol=opened.protocol)
    _save_chart(out, found)
    shown = spread(indices, GRID_FACES)
    references = exemplar.dealt(source, model.attributes, indices, shown, np.random.default_rng(0))
    pictures, names = exemplar.swaps_grid(trained, source, shown, references)
    grids.save_grid(out / "grid.png", pictures, names)
    return summary


def _save_chart(out: Path, found: Mapping[str, Any]) -> None:
    """Accuracy by attribute and direction, of the model and of a copy, as ``evaluation.png``."""
    series = {
        f"{editor}, {direction}": {
            name: rate
            for name, cells in found["editors"][editor]["single"].items()
            if (rate := cells[direction]["accuracy"]) is not None
        }
        for editor in ("model", "copy")
        for direction in DIRECTIONS
    }
    title = f"Attribute accuracy at strength {found['strength']:g}, {found['images']:,} faces"
    page.save(page.bars(title, series), out / "evaluation.png")


def _trained_and_untrained(model: Editor) -> tuple[Compiled, Compiled]:
    trained = Compiled(model.method, model.variables)
    return trained, trained.at(_untrained(model))


def _untrained(model: Editor) -> Variables:
    return jax.jit(lambda: init_state(model.method, model.config.seed).inference_variables)()
