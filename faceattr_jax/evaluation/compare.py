"""`faceattr compare`: runs of any papers on one page, on the same faces, asked for the same edits.

Every run is shown the same pictures of the data, each at its own size and crop, and inverts the attributes that all of
them know. What is compared are cells, an attribute and a value; means are over the cells that every run can do (one
that gives an attribute one value has half of them). The judge reads all attributes that it and the data have in
common, so untouched ones are the same for all. On drawn faces edits are compared with the exact truth
(`evaluation.regions`). Runs that were scored by a judge while they trained stand side by side in that, too.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faceattr_jax import files, grids
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import editing, embedders, exemplar, labelling, page, report
from faceattr_jax.evaluation.editors import Compiled, CopyingEditor, Widened
from faceattr_jax.evaluation.opening import Opened, open_editors, open_judge, readable
from faceattr_jax.evaluation.readers import Likeness
from faceattr_jax.evaluation.regions import spread
from faceattr_jax.evaluation.tally import DIRECTIONS, mean

SHOWN_FACES, SHOWN_ATTRIBUTES = 6, 3
MEASURES = {
    "accuracy": "accuracy",
    "untouched_change": "untouched change",
    "same_person": "same person",
    "region_ratio": "region error ratio",
    "region_floor": "its floor",
    "region_drift": "drift outside",
}
_FINE_PRINT = (
    "Every run sees the same pictures at its own size and crop, and inverts one attribute at a time; edits are "
    "rounded to 8 bits. Means are over the edits that all runs can do.",
    "Accuracy: the judge, at probability 0.5, finds the value that was asked for. Untouched change: share of "
    "attributes, of all that the judge knows, that it sees otherwise than before, where the edit does not concern "
    "them.",
    "Same person: share of edits within 0.6 of their source for dlib's face network, which sees both at the run's "
    "size.",
    "Region error ratio: sum |edit - truth| / sum |input - truth| inside the region of the edit; copying scores 1. The "
    "truth is the drawn face itself with the other attribute, in the style nearest to the edit, or, of a run that "
    "takes attributes from other faces, in the other face's style. Floor: of an editor that cannot know the style. "
    "Drift: mean |edit - input| outside, in 8-bit levels.",
)


def compare(
    workdirs: Sequence[Path],
    out: Path,
    *,
    judge: str,
    data: str = "",
    split: str = "test",
    images: int = 0,
    strength: float = 1.0,
) -> dict[str, Any]:
    """Compare runs, and write ``comparison.json``, ``.md`` and ``.html`` into `out`; returns what the JSON holds.

    workdirs: of two runs or more that edit or swap, or checkpoints. judge: workdir of a classifier; runs of other sizes
    than its own are shown to it resized. data: instead of the data that all of them were trained on. images: how many
    of the split, spread over it; 0 for all. Raises `UserError` where the runs have nothing in common.
    """
    if len(workdirs) < 2:
        raise UserError("a comparison takes two runs or more; `faceattr evaluate` measures one")
    runs, names = open_editors(workdirs, data=data, split=split)
    faces = runs[0].source.table.indices(split)
    faces = spread(faces, images) if images else faces
    found = [_measure(run, faces, names, judge, strength) for run in runs]
    cells = [cell for cell in found[0]["cells"] if all(cell in run["cells"] for run in found)]
    if not cells:
        raise UserError(f"no edit of {', '.join(names)} is one that all of these runs can do; compare others")
    unedited, *_ = [run.pop("unedited") for run in found]
    for run in (*found, unedited):
        run["shared"] = {m: mean(run["cells"][cell][m] for cell in cells) for m in MEASURES}
    tree = {
        "data": f"{runs[0].data}, {split} split, {len(faces)} images",
        "attributes": names,
        "strength": strength,
        "shared_cells": cells,
        "runs": found,
        "unedited": unedited,
        "fine_print": list(_FINE_PRINT),
    }
    files.write(out / "comparison.json", json.dumps(tree, indent=2, allow_nan=False) + "\n")
    blocks = _blocks(tree, _sheet(runs, faces, names, strength))
    files.write(out / "comparison.md", page.markdown(blocks))
    files.write(out / "comparison.html", page.page(blocks))
    return tree


def _measure(run: Opened, faces: np.ndarray, names: Sequence[str], judge: str, strength: float) -> dict[str, Any]:
    """One run, and copies, on those of the faces that it can invert."""
    model, source = run.model, run.source
    judging, about = open_judge(run, judge, resize=True)
    indices = editing.invertible(model.method, source, faces)
    wide = readable(run, judging)
    editors: dict[str, Any] = {
        "model": Widened(Compiled(model.method, model.variables), wide),
        "copy": CopyingEditor(wide),
    }
    person = embedders.faces(model.crop, "dlib")
    likeness = None if isinstance(person, str) else Likeness(person, wide)
    reading = labelling.evaluate_judge(judging, source, source.table.indices(run.split), names)
    swaps = "swap" in model.method.capabilities and "edit" not in model.method.capabilities
    if swaps:
        evaluation = exemplar.evaluate_exchangers(
            editors, judging, source, names, indices, combinations=(), watch=likeness
        )
    else:
        evaluation = editing.evaluate_editors(
            editors, judging, source, names, indices, strength=strength, combinations=(), watch=likeness
        )
    apart = likeness["distances"] if likeness else {}
    limit = embedders.OWN_THRESHOLDS["dlib"]

    def cells(editor: str) -> dict[str, dict[str, Any]]:
        rates = evaluation["editors"][editor]["single"]
        return {
            f"{name}={1 - value}": _cell(
                rates[name][direction],
                float(np.mean(apart[name, direction] <= limit)) if apart else None,
            )
            for name in names
            for value, direction in enumerate(DIRECTIONS)
            if rates[name][direction]["faces"]
        }

    return {
        "model": str(model.path),
        "method": model.config.method,
        "size": model.size,
        "crop": model.crop,
        "faces": len(indices),
        "strength": None if swaps else strength,
        "style": "of a reference" if swaps else "free",
        "progress": _progress(run.file("metrics.csv")),
        "judge": about,
        "judge_balanced_accuracy": labelling.mean(reading, "balanced_accuracy"),
        "person": person if isinstance(person, str) else person.about,
        "reconstruction": evaluation["editors"]["model"]["reconstruction"],
        "cells": cells("model"),
        "unedited": {"cells": {k: {**v, "same_person": None} for k, v in cells("copy").items()}},
        "notes": [note for note in evaluation["notes"] if not note.startswith("copy: ")],
    }


def _progress(table: Path | None) -> dict[str, list[float]]:
    """Accuracy on the valid split by iteration, as a run wrote it down: empty where it did not."""
    rows = list(csv.DictReader(table.read_text().splitlines())) if table else []
    rows = [row for row in rows if row["name"] == "valid/attribute_accuracy"]
    return {
        "iterations": [int(row["step"]) for row in rows],
        "accuracy": [float(row["value"]) for row in rows],
    }


def _cell(rates: Mapping[str, Any], same_person: float | None) -> dict[str, Any]:
    region = rates.get("region") or {}
    return {
        "faces": rates["faces"],
        "accuracy": rates["accuracy"],
        "untouched_change": rates["untouched_change"],
        "same_person": same_person,
        **{f"region_{key}": region.get(key) for key in ("ratio", "floor", "drift")},
    }


def _sheet(runs: Sequence[Opened], faces: np.ndarray, names: Sequence[str], strength: float) -> page.Picture:
    """The same faces edited by every run, all at the largest one's size."""
    shown, size = spread(faces, SHOWN_FACES), max(run.model.size for run in runs)
    columns: list[np.ndarray] = []
    heads: list[str] = []

    def add(head: str, pictures: np.ndarray) -> None:
        heads.append(head)
        resized = [np.asarray(Image.fromarray(p).resize((size, size), Image.Resampling.BICUBIC)) for p in pictures]
        columns.append(np.stack(resized))

    largest = max(runs, key=lambda run: run.model.size)
    add("Input", largest.source.images(shown))
    for name in names[:SHOWN_ATTRIBUTES]:
        for i, run in enumerate(runs):
            editor, source = Compiled(run.model.method, run.model.variables), run.source
            if "edit" in run.model.method.capabilities:
                own = source.table.select(run.model.attributes)[shown]
                pictures, _ = editing.edits_grid(editor, source.images(shown), own, (name,), strength)
            else:
                given = exemplar.dealt(source, (name,), faces, shown, np.random.default_rng(0))
                pictures, _ = exemplar.swaps_grid(editor, source, shown, given)
            add(f"{name} {i}", pictures[:, -1])
    says = f"{len(shown)} faces, and {', '.join(names[:SHOWN_ATTRIBUTES])} inverted by every run"
    return page.grid(grids.compose(np.stack(columns, axis=1), heads), says)


def _blocks(tree: Mapping[str, Any], sheet: page.Picture) -> list[page.Block]:
    runs = tree["runs"]
    titles = [f"{i}: {run['method']}, {run['size']} px" for i, run in enumerate(runs)]
    shared = ", ".join(tree["shared_cells"])
    measures = [m for m in MEASURES if any(run["shared"][m] is not None for run in runs)]
    rows = [
        [
            title,
            f"{run['faces']:,}",
            *(report.show(run["shared"][m]) for m in measures),
            report.show(run["reconstruction"]["psnr"], 2),
            report.show(run["reconstruction"]["ssim"]),
        ]
        for title, run in zip(titles, runs, strict=True)
    ]
    copied = tree["unedited"]["shared"]
    rows.append(["the faces, unedited", "", *(report.show(copied[m]) for m in measures), "", ""])
    blocks: list[page.Block] = [
        f"# {len(runs)} runs on the same faces",
        f"{tree['data']}; strength {tree['strength']:g}; means over {shared}.",
        page.Table(["run", "faces", *(MEASURES[m] for m in measures), "PSNR", "SSIM"], rows),
    ]
    line = {
        title: ([run["shared"]["same_person"]], [run["shared"]["accuracy"]])
        for title, run in zip(titles, runs, strict=True)
        if run["shared"]["same_person"] is not None
    }
    blocks += page.curves("Accuracy against identity", line, "same person", "accuracy") if line else []
    for m in measures:
        cells = list(dict.fromkeys(cell for run in runs for cell in run["cells"]))
        series = {
            title: {cell: run["cells"][cell][m] for cell in cells if run["cells"].get(cell, {}).get(m) is not None}
            for title, run in zip(titles, runs, strict=True)
        }
        if m in ("accuracy", "same_person", "region_ratio"):
            table = [[cell, *(report.show(run["cells"].get(cell, {}).get(m)) for run in runs)] for cell in cells]
            blocks += [f"## {MEASURES[m].capitalize()}, by edit", page.Table(["", *titles], table)]
            blocks += page.bars(MEASURES[m], series)
    trained = {
        title: (run["progress"]["iterations"], run["progress"]["accuracy"])
        for title, run in zip(titles, runs, strict=True)
        if run["progress"]["accuracy"]
    }
    if trained:
        blocks += ["## Accuracy while they trained, on the valid split by the judges of the runs"]
        blocks += page.curves("accuracy while training", trained, "iterations", "accuracy")
    about = []
    for title, run in zip(titles, runs, strict=True):
        resized = run["judge"].get("resized")
        about += [
            f"{title}: {run['model']}, {run['crop']} crop; style {run['style']}; "
            + (f"the judge sees its pictures resized {resized}; " if resized else "")
            + f"balanced accuracy of the judge on them {report.show(run['judge_balanced_accuracy'])}; "
            + f"face network: {run['person']}"
        ]
        about += [f"{title}: {note}" for note in run["notes"]]
    return [
        *blocks,
        "## Faces",
        sheet,
        "## Fine print",
        page.Bullets([*tree["fine_print"], *about, f"judge: {runs[0]['judge']['path']}, {runs[0]['judge']['sha256']}"]),
    ]
