"""`faceattr card`: what a checkpoint is, what it was trained on, how it scores, and what it must not be used for."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

import faceattr_jax
from faceattr_jax.data import prepare
from faceattr_jax.data import source as sources
from faceattr_jax.editor import Editor, hash_variables, load
from faceattr_jax.errors import UserError
from faceattr_jax.training import checkpoint

CELEBA = (
    "CelebA may be used for **non-commercial research** only; so may this model, which was made of it, and what it "
    "makes. The people in CelebA were not asked."
)
DRAWN = (
    "Drawn faces only: no photograph, no person and no licence is behind this model. What an attribute means here is "
    "what the renderer draws, and photographs are not what it was trained for."
)


def card(path: str | Path) -> str:
    """The model card, in Markdown, of a run, one checkpoint, or a safetensors file.

    Scores are those of the JSON reports in the run's ``evaluation/``. Raises `UserError` as `load` does.
    """
    editor = load(path)
    assert editor.path is not None
    run = _run(Path(path), editor.path)
    drawn, data = _data(editor.config)
    parts = [
        f"# {editor.config.method}, {editor.size} px: {', '.join(editor.attributes) or 'no attributes'}",
        _purpose(editor),
        _table(["", ""], _facts(editor, run)),
        "## Trained on",
        data,
        *_borrowed(run),
        "## Scores",
        *(_scores(run, editor.path) or ["None: `faceattr evaluate` has not measured this run."]),
        "## Not to be used",
        "\n".join(f"- {line}" for line in _limits(editor, drawn)),
    ]
    return "\n\n".join(parts) + "\n"


def _run(given: Path, found: Path) -> Path:
    """The run's folder, which has the evaluation; a file is by itself."""
    return given if found.is_file() or (given / "config.json").exists() else found.parent.parent


def _purpose(editor: Editor) -> str:
    module = importlib.import_module(type(editor.method).__module__)
    title = (module.__doc__ or "").partition("\n")[0].rstrip(".")
    can = ", ".join(sorted(editor.method.capabilities))
    return f"{title}. It can {can}. Written by faceattr_jax {faceattr_jax.__version__} from the checkpoint itself."


def _facts(editor: Editor, run: Path) -> Iterator[tuple[str, str]]:
    config, variables = editor.config, editor.variables
    yield "images", f"{editor.size} x {editor.size} px, cut with the crop preset `{editor.crop}`"
    for name, value in editor.method.towards.items():
        yield "direction", f"{name} = {value} only"
    parameters = {n: sum(x.size for x in jax.tree.leaves(tree)) for n, tree in variables["params"].items()}
    yield "parameters", ", ".join(f"{name} {count:,}" for name, count in parameters.items())
    yield "sha256 of the variables", f"`{hash_variables(variables)}`"
    if editor.path is None or editor.path.is_file():
        return
    record = checkpoint.read_record(editor.path)
    total = sum(stage.iterations for stage in editor.method.stages) if _trainable(editor) else config.train.iterations
    yield "checkpoint", f"`{editor.path.relative_to(run) if editor.path.is_relative_to(run) else editor.path}`"
    if record["step"] == 0:
        yield "iterations", "none here: the weights came from elsewhere (`faceattr convert`), or are fresh"
    else:
        yield "iterations", f"{record['step']:,} of {total:,}, batches of {config.batch_size}, seed {config.seed}"
    if "metric" in record:
        yield "chosen by", f"{record['metric']} {record['score']:.4f} on the valid split, the best of the run"


def _trainable(editor: Editor) -> bool:
    try:
        return bool(editor.method.stages)
    except UserError:
        return False


def _data(config: ConfigDict) -> tuple[bool, str]:
    """Whether the faces are drawn, and what to say of them."""
    path, origin, told = config.data.path, config.data.path, ""
    try:
        kind: str = sources.kind(path)
        if kind == "prepared":
            about = prepare.read_about(Path(path).expanduser())
            origin = about["source"]
            told = f", prepared from `{origin}`: " + ", ".join(f"{n:,} {s}" for s, n in about["counts"].items())
            kind = sources.kind(origin)
    except UserError:  # it was on another machine, or is no longer there
        kind = "unknown"
    if kind == "synthetic":
        return True, f"`{path}`{told}. {DRAWN}"
    excluded = config.data.get("exclude", ())
    without = f", without faces that have {', '.join(excluded)}" if excluded else ""
    what = f"The train split of `{path}`{told}{without}."
    if kind in ("celeba", "tfds"):
        return False, f"{what} {CELEBA}"
    return False, f"{what} If its pictures are CelebA's: {CELEBA} Of other photographs their own terms hold."


def _borrowed(run: Path) -> Iterator[str]:
    for name, what in (("frozen.json", "Its losses saw"), ("given.json", "It started from")):
        if (run / name).is_file():
            networks = json.loads((run / name).read_text())
            for role, about in networks.items():
                yield f"{what} the {role} network `{about['network']}`, sha256 `{about['sha256']}`, trained elsewhere."


def _scores(run: Path, found: Path) -> list[str]:
    """A table and the protocol of every report in the run."""
    parts = []
    for path in sorted((run / "evaluation").glob("*.json")):
        try:
            report = json.loads(path.read_text())
            protocol = {str(key): str(value) for key, value in report.get("protocol", {}).items()}
        except (ValueError, AttributeError) as error:
            raise UserError(f"'{path}' is no report of an evaluation ({error}); remove it, or evaluate again") from None
        shown = {name.replace("_", " "): v for name, v in report.items() if isinstance(v, int | float | str)}
        rows = [
            (name, f"{v:.4f}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else v)
            for name, v in shown.items()
        ]
        judge = report.get("judge") or {}
        if "sha256" in judge:
            protocol["judge"] = f"{judge['path']}, sha256 {judge['sha256']}"
        measured = Path(protocol.get("model", str(found)))
        if measured.parts[-2:] != found.parts[-2:]:
            parts.append(f"**Of another checkpoint of this run**, `{'/'.join(measured.parts[-2:])}`:")
        parts.append(_table([f"`{path.name}`", ""], rows))
        parts.append("\n".join(f"- {name}: {value}" for name, value in protocol.items()))
    return parts


def _limits(editor: Editor, drawn: bool) -> Iterator[str]:
    if drawn:
        yield "On photographs, whose faces it has never seen; nor do its scores promise anything about them."
        yield "To decide anything about a person: attributes are what the renderer draws, and say nothing of people."
    else:
        yield "Commercially, where its pictures are CelebA's."
        yield (
            "On a person who has not agreed to it; to deceive or harass; or where an edited or new face may pass for a "
            "photograph: say that it is none."
        )
        yield (
            "To decide anything about a person. Attributes are two values each, as strangers saw them on one picture: "
            "`Male`, `Young` or `Attractive` say what they thought, not what somebody is. CelebA's people are "
            "celebrities, most of them young and light-skinned: of others the model knows less, errs more, and an edit "
            "of one attribute drags along what goes with it in the data."
        )
    if "embed" in editor.method.capabilities:
        yield "To identify, find or watch people."
    if {"classify", "edit"} <= editor.method.capabilities:
        yield "As a judge of its own edits: it learned to read faces beside them."


def _table(head: list[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
