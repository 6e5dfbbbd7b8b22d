"""`faceattr evaluate --protocol`: a paper's table with ours beside it, and why the two are not the same thing yet."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faceattr_jax import config as configs
from faceattr_jax import files, grids
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import editing, exemplar, generation, masks, measures, page, report, restoration, sliding
from faceattr_jax.evaluation.editors import Compiled
from faceattr_jax.evaluation.gathering import CURVE_FACES, look
from faceattr_jax.evaluation.opening import open_run
from faceattr_jax.evaluation.protocol import NORMS, PERSON, STAND_IN, Found, Measure, Protocol, Row, find
from faceattr_jax.evaluation.regions import spread
from faceattr_jax.evaluation.tally import DIRECTIONS
from faceattr_jax.methods.base import build

GRID_FACES = 8
_BESIDE = (
    "Beside rows about edits: the judge's balanced accuracy on these attributes of unedited faces; untouched change, "
    "the share of other attributes that it sees otherwise than before; and the share of edits that a face network "
    "takes for the same person."
)
CELEBA_TRAIN = 162_770


def evaluate(
    name: str,
    workdirs: Sequence[Path],
    out: Path,
    *,
    judge: str = "",
    recognizer: str = "",
    data: str = "",
    split: str = "",
    images: int = 0,
    strength: float = 1.0,
    curve: bool = False,
) -> dict[str, Any]:
    """Measure runs as a paper does, and write ``evaluation.json``, ``.md`` and ``.html`` into `out`.

    name: of the protocol. workdirs: of runs, or checkpoints; several where the paper trains a model for each attribute.
    recognizer: workdir of a face recogniser, for measures that take one. split, images: instead of the protocol's own.
    The rest is as `run.evaluate` takes it. Returns the numbers, "MEASURE: WHICH" -> value.
    """
    protocol = find(name)
    needs = frozenset(need for measure in protocol.measures for need in measure.needs)
    founds = []
    for number, workdir in enumerate(workdirs):
        count = images or protocol.images
        opened = open_run(workdir, data=data, split=split or protocol.split, images=count, balanced=protocol.balanced)
        founds.append(
            look(
                opened, needs, number=number, judge=judge, recognizer=recognizer, strength=strength, curve=curve
            )
        )  # fmt: skip
    tables = [table for measure in protocol.measures if (table := _tabulated(measure, founds))]
    tree = {
        "protocol": name,
        "paper": protocol.paper,
        "strength": strength,
        "fine_print": list(protocol.fine_print),
        "runs": [
            {**found.opened.protocol, "judge": dict(found.judge), "not_comparable": not_comparable(found, protocol)}
            for found in founds
        ],
        "measures": tables,
        "curves": [list(found.curve) for found in founds],
    }
    files.write(out / "evaluation.json", json.dumps(tree, indent=2, allow_nan=False) + "\n")
    blocks = _blocks(tree, protocol, founds)
    files.write(out / "evaluation.md", page.markdown(blocks))
    files.write(out / "evaluation.html", page.page(blocks))
    several = len(founds) > 1
    return {
        f"{table['title']}: {row['which']}" + f" (run {row['run']})" * (several and row["run"] >= 0): row["value"]
        for table in tables
        for row in table["rows"]
    }


def _tabulated(measure: Measure, founds: Sequence[Found]) -> dict[str, Any] | None:
    """The measure's table; None for one that nobody asks for here, as of a stand-in where the real thing is there."""
    able = [found for found in founds if all(need in found.readers for need in measure.needs)]
    rows: list[Row] = []
    skipped = None
    if able:
        try:
            rows = list(measure.take(able))
        except UserError as error:
            skipped = str(error)
    else:
        reasons = [found.missing[need] for found in founds for need in measure.needs if need in found.missing]
        skipped = reasons[0] if reasons else None if not measure.published else "none of these runs does this"
    if not rows and not skipped and not measure.published:
        return None
    unable = [found for found in founds if found not in able and found.evaluation]
    if able and not skipped:
        for found in unable:
            reasons = [found.missing[need] for need in measure.needs if need in found.missing]
            rows += [Row("", None, 0, found.number, reason) for reason in reasons[:1]]
    numbered = {found.number: found for found in founds}
    published = {method: dict(numbers) for method, numbers in measure.published.items()}
    theirs = dict.fromkeys(which for numbers in published.values() for which in numbers)
    rest = [Row(which, None, 0, -1, "not measured here") for which in theirs if which not in {r.which for r in rows}]
    return {
        "title": measure.title,
        "how": measure.how,
        "digits": measure.digits,
        "skipped": skipped,
        "published_by": list(published),
        "rows": [
            {
                **dataclasses.asdict(row),
                "published": {m: numbers[row.which] for m, numbers in published.items() if row.which in numbers},
                "beside": measures.beside(numbered[row.run], row.which) if measure.of_edits and row.run >= 0 else {},
            }
            for row in (*rows, *rest)
        ],
    }


def not_comparable(found: Found, protocol: Protocol) -> list[str]:
    """Why the run's numbers are not the paper's yet, a sentence each: data, size, width, steps, judge, embedders."""
    opened, config = found.opened, found.opened.model.config
    reasons = []
    if hasattr(opened.source, "counterfactual"):
        reasons.append("the faces are drawn, the paper's are CelebA's photographs")
    elif (count := len(opened.source.table.indices("train"))) < 0.9 * CELEBA_TRAIN:
        reasons.append(f"the data have {count:,} training faces, CelebA {CELEBA_TRAIN:,}")
    if opened.data != config.data.path:
        reasons.append(f"it was trained on {config.data.path}, and is measured on {opened.data}")
    wanted = protocol.images or len(opened.source.table.indices(opened.split))
    if len(opened.indices) < wanted:
        reasons.append(f"{len(opened.indices):,} faces are measured instead of {wanted:,}")
    paper = _paper_config(config, protocol.configs)
    if paper is None:
        reasons.append(f"the model is {config.method}, not this paper's")
    else:
        for key in configs.differences(config, paper):
            if key.split(".")[0] in ("image_size", "crop", "batch_size", "model", "loss"):
                ours, theirs = _value(config, key), _value(paper, key)
                reasons.append(f"{key} is {ours}, in the config of the paper's size {theirs}")
        steps = opened.model.path.name if opened.model.path else ""
        # Where attributes take turns, a round of ours may be shorter or longer than the paper's.
        cycles = {stage.name: stage.cycle for stage in opened.model.method.stages}
        total = sum(
            stage.iterations * cycles.get(stage.name, stage.cycle) // stage.cycle for stage in build(paper).stages
        )
        if steps.isdigit() and int(steps) < total:
            reasons.append(f"it was trained for {int(steps):,} iterations, the paper's size takes {total:,}")
    record = opened.file("frozen.json")
    face = json.loads(record.read_text()).get("face", {}).get("network") if record else None
    if face not in (None, "vgg_face"):
        reasons.append(f"its identity loss looked through {face}, the paper's through VGG-Face")
    if found.judge:
        reasons.append("the judge is our own classifier, whose accuracy is below; the paper's is not to be had")
        if "resized" in found.judge:
            reasons.append(f"the judge sees pictures resized {found.judge['resized']}")
    for reader, what in ((PERSON, "faces are recognised"), (STAND_IN, "sets of pictures are compared")):
        if reader in found.readers:
            reasons.append(f"{what} by {found.readers[reader].embedder.name}, not by what the paper took")
    return reasons


def _paper_config(config: Any, names: Sequence[str]) -> Any:
    """Of the configs of these names the one of the same method and task that is nearest in size."""
    fitting = [c for c in map(configs.load, names) if (c.method, c.get("task")) == (config.method, config.get("task"))]
    return min(fitting, key=lambda c: abs(c.image_size - config.image_size), default=None)


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part, {})
    return "absent" if config == {} else config


def _blocks(tree: Mapping[str, Any], protocol: Protocol, founds: Sequence[Found]) -> list[page.Block]:
    """The report: every measure's table and chart, curves, pictures, the fine print."""
    several = len(founds) > 1
    strong = any("edit" in found.opened.model.method.capabilities for found in founds)
    edits = f", edits at strength {tree['strength']:g}" if strong else ""
    runs = [f"{i}: {run['model']}, {run['data']}, {run['crop']}" for i, run in enumerate(tree["runs"])]
    blocks: list[page.Block] = [
        f"# {tree['paper']}: its table, and ours",
        f"Protocol {tree['protocol']}{edits}.",
        page.Bullets(runs),
        "## Why ours are not the paper's yet",
    ]
    for i, run in enumerate(tree["runs"]):
        blocks += [f"Run {i}:"] * several + [page.Bullets(run["not_comparable"] or ["nothing is known"])]
    for measure, table in ((m, t) for m in protocol.measures for t in tree["measures"] if t["title"] == m.title):
        blocks += [f"## {table['title']}", table["how"]]
        if table["skipped"]:
            blocks.append(f"Skipped: {table['skipped']}.")
        if table["rows"]:
            beside = list(dict.fromkeys(name for row in table["rows"] for name in row["beside"]))
            header = ["", *["run"] * several, "images", "ours", *table["published_by"], *beside]
            blocks.append(page.Table(header, [_cells(row, table, several, beside) for row in table["rows"]]))
            noted = _notes(table["rows"], several)
            blocks += [page.Bullets(noted)] * bool(noted)
            blocks += _charts(measure, table, founds)
    for i, found in enumerate(founds):
        if found.curve:
            keys = list(found.curve[0])
            rows = [[f"{row['strength']:g}", *(report.show(row[k]) for k in keys[1:])] for row in found.curve]
            blocks += [
                f"## By strength, run {i} ({CURVE_FACES} faces at most)",
                page.Table([key.replace("_", " ") for key in keys], rows),
            ]
            blocks += page.curves(
                "By strength",
                {key.replace("_", " "): ([r["strength"] for r in found.curve], [r[key] for r in found.curve])
                 for key in ("accuracy", "untouched_change", "same_person") if found.curve[0].get(key) is not None},
                "strength", "rate",
            )  # fmt: skip
            if "same_person" in keys:
                line = {"": ([r["same_person"] for r in found.curve], [r["accuracy"] for r in found.curve])}
                points = [f"{row['strength']:g}" for row in found.curve]
                blocks += page.curves("Accuracy against identity, by strength", line, "same person", "accuracy", points)
        blocks += _grid(found, tree["strength"])
    print_ = [*protocol.fine_print, _BESIDE]
    for i, (run, found) in enumerate(zip(tree["runs"], founds, strict=True)):
        print_ += [f"run {i}, {key}: {run[key]}" for key in ("model weights", "model config", "data", "crop", "format")]
        if PERSON in found.readers:
            print_.append(f"run {i}, same person: {found.readers[PERSON].embedder.about}")
        print_ += [f"run {i}, judge {key}: {value}" for key, value in run["judge"].items()]
    return [*blocks, "## Fine print", page.Bullets(print_)]


def _cells(row: Mapping[str, Any], table: Mapping[str, Any], several: bool, beside: Sequence[str]) -> list[str]:
    digits = table["digits"]
    theirs = [report.show(row["published"].get(method), digits) for method in table["published_by"]]
    run = ["" if row["run"] < 0 else str(row["run"])] * several
    return [
        row["which"],
        *run,
        f"{row['images']:,}" if row["images"] else "",
        report.show(row["value"], digits),
        *theirs,
        *(report.show(row["beside"][name]) if name in row["beside"] else "" for name in beside),
    ]


def _notes(rows: Sequence[Mapping[str, Any]], several: bool) -> list[str]:
    """What is said of our numbers, each note once; where they differ, of which rows."""
    noted = [row for row in rows if row["note"] and row["run"] >= 0]
    differ = len({row["note"] for row in noted}) > 1
    found: dict[str, list[str]] = {}
    for row in noted:
        found.setdefault(row["note"], []).append(
            row["which"] * differ if row["which"] else f"run {row['run']}" * several
        )
    return [": ".join(filter(None, (", ".join(filter(None, names)), note))) for note, names in found.items()]


def _charts(measure: Measure, table: Mapping[str, Any], founds: Sequence[Found]) -> list[page.Picture]:
    if measure.chart == "boxes":
        sets = {
            f"{name}, run {found.number}": np.concatenate([cells[name, d] for d in DIRECTIONS])
            for found in founds
            if NORMS in found.readers
            for cells in [found.readers[NORMS]["norms"]]
            for name in found.model["single"]
        }
        sets = {name: values for name, values in sets.items() if len(values)}
        return page.boxes(measure.title, sets, "ratio of norms") if sets else []
    if measure.chart == "bars":
        series: dict[str, dict[str, float]] = {}
        for row in table["rows"]:
            if row["value"] is not None:
                series.setdefault(f"run {row['run']}", {})[row["which"]] = row["value"]
            for method, value in row["published"].items():
                series.setdefault(method, {})[row["which"]] = value
        return page.bars(measure.title, series) if sum(map(len, series.values())) > 1 else []
    return []


def _grid(found: Found, strength: float) -> list[page.Block]:
    """Faces and their edits."""
    model, source = found.opened.model, found.opened.source
    shown = spread(found.opened.indices, GRID_FACES)
    editor = Compiled(model.method, model.variables)
    if "edit" in model.method.capabilities:
        own = source.table.select(model.attributes)[shown]
        pictures, names = editing.edits_grid(editor, source.images(shown), own, model.attributes, strength)
        if "mask" in model.method.capabilities:
            grey = masks.pictures(functools.partial(model.method.mask, model.variables), source.images(shown))
            pictures, names = np.concatenate([pictures, grey[:, None]], axis=1), [*names, "Mask"]
    elif "swap" in model.method.capabilities:
        references = exemplar.dealt(source, model.attributes, found.opened.indices, shown, np.random.default_rng(0))
        pictures, names = exemplar.swaps_grid(editor, source, shown, references)
    else:
        pictures, names = restoration.grid(restoration.Compiled(model.method), model.variables, source, shown)
    says = f"{len(shown)} faces of {found.opened.data} and their edits by {model.path}"
    blocks: list[page.Block] = [f"## Faces, run {found.number}", page.grid(grids.compose(pictures, names), says)]
    if "generate" in model.method.capabilities:
        labels = source.table.select(model.attributes)[found.opened.indices]
        drawn, kinds = generation.faces_grid(editor, labels, rows=GRID_FACES, columns=GRID_FACES)
        says = "new faces: a row for each of the commonest combinations of attributes, one z down a column"
        blocks += ["New faces:", page.grid(grids.compose(drawn, row_names=kinds), says)]
    if "slide" in model.method.capabilities:
        own = source.table.select(model.attributes)[shown]
        sheet = grids.compose(*sliding.slides_grid(editor, source.images(shown), own))
        blocks += ["Sliders:", page.grid(sheet, "a row for each attribute's slider, from -1 to 1")]
    return blocks
