"""SL-GAN's user study (section 4.3): a page that asks people about edits, and the table of what they answered.

In the paper ten students compare each of two methods' edits of 100 images with the original, on scales of five points:
saliency of the change, quality, and whether it is the same person; and guess which of four attributes was changed.
`ask` writes the questionnaire, one file that loads nothing, and beside it the key, which alone knows which run made
which picture. `count` brings the key and the answer files that the page saves together.

Where the paper is silent: each face is asked for the other value of one attribute, by all runs the same, the attributes
taking turns. Guessing comes first, for the scales name the change; a participant guesses about every face once, at an
edit by one of the runs, because the first of two would give the second away. Everyone has an order of their own.
"""

import base64
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit  # JAX brings SciPy along

from faceattr_jax import attributes, files, grids
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import exemplar, page
from faceattr_jax.evaluation.editors import Compiled, invert
from faceattr_jax.evaluation.opening import Opened, open_editors
from faceattr_jax.evaluation.protocols.slgan import STUDY

FACES = 100
CHOICES = 4
POINTS = 5
SCALES = ("saliency", "quality", "similarity")
_PLACE = "/*STUDY*/"


class Task(NamedTuple):
    """An attribute of the face at `face` to be inverted, its value then, and what the guess is between."""

    face: int
    name: str
    value: int
    choices: list[str]


def ask(
    workdirs: Sequence[Path],
    out: Path,
    *,
    faces: int = FACES,
    seed: int = 0,
    data: str = "",
    split: str = "test",
    strength: float = 1.0,
) -> Path:
    """Write the questionnaire `out`, and its key beside it, whose path is returned.

    workdirs: of runs that edit or swap, or checkpoints. The same arguments give the same files. Raises `UserError`
    where the runs have no attribute or no data in common, or there are too few faces.
    """
    key_file = out.with_suffix(".key.json")
    files.check_new(out, key_file)
    runs, names = open_editors(workdirs, data=data, split=split)
    rng = np.random.default_rng(seed)
    tasks = _tasks(runs, names, faces, rng)
    edits = [_edits(run, tasks, seed, strength) for run in runs]

    # A run's turn differs from face to face, so that neither the turn nor an item's place tells which run it is.
    shift = rng.permutation(np.arange(faces) % len(runs))
    pictures: dict[bytes, int] = {}
    items, key = [], []
    for place in rng.permutation(faces * len(runs)):
        face, run = divmod(int(place), len(runs))
        task = tasks[face]
        before, after = (pictures.setdefault(grids.png(image[face]), len(pictures)) for image in edits[run])
        shown = {"before": before, "after": after, "change": _change(task), "choices": task.choices}
        items.append({**shown, "turn": int(run + shift[face]) % len(runs)})
        name = str(runs[0].source.table.names[task.face])
        key.append({"run": run, "face": name, "attribute": task.name, "value": task.value, "choices": task.choices})
    asked: dict[str, Any] = {
        "turns": len(runs),
        "items": items,
        "pictures": [base64.b64encode(png).decode() for png in pictures],
    }
    asked["study"] = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    about = {
        "study": asked["study"],
        "data": f"{runs[0].data}, {split} split, {faces} faces",
        "seed": seed,
        "strength": strength,
        "runs": [{**run.protocol, "method": run.model.config.method} for run in runs],
        "items": key,
    }
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    files.write(out, template.replace(_PLACE, json.dumps(asked).replace("<", "\\u003c")))
    files.write(key_file, json.dumps(about, indent=1) + "\n")
    return key_file


def _tasks(runs: Sequence[Opened], names: Sequence[str], faces: int, rng: np.random.Generator) -> list[Task]:
    able = functools.reduce(np.intersect1d, [run.indices for run in runs])
    if not 0 < faces <= len(able):
        better = f"--faces=1 to {len(able)}" if len(able) else "other runs"
        raise UserError(
            f"the {runs[0].split} split has {len(able)} faces that all of these runs can edit, not {faces}; "
            f"give {better}."
        )
    table = runs[0].source.table
    asked = rng.permutation(np.resize(rng.permutation(len(names)), faces))
    tasks = []
    for face, column in zip(rng.permutation(able)[:faces], asked, strict=True):
        name = names[column]
        value = int(1 - table.select([name])[face, 0])
        # What the edit takes away on the way was changed, too, and is no wrong answer.
        also = attributes.CONFLICTS.get(name, frozenset()) if value else frozenset()
        wrong = [
            [other for other in known if other != name and other not in also] for known in (names, table.attributes)
        ]
        enough = [others for others in wrong if len(others) >= CHOICES - 1]
        if not enough:
            raise UserError(f"{runs[0].data} has too few attributes for a guess among {CHOICES}; give other --data.")
        choices = [*rng.choice(enough[0], CHOICES - 1, replace=False).tolist(), name]
        tasks.append(Task(int(face), name, value, rng.permutation(choices).tolist()))
    return tasks


def _edits(run: Opened, tasks: Sequence[Task], seed: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """The faces as the run sees them, and its edits of them: uint8 (N, S, S, 3).

    One that swaps takes the attribute from a face of the split, which the seed deals, the same for all runs.
    """
    model, source, names = run.model, run.source, run.model.attributes
    editor, labels = Compiled(model.method, model.variables), source.table.select(names)
    before = source.images(np.array([task.face for task in tasks]))
    after = np.empty_like(before)
    rng, everyone = np.random.default_rng(seed), source.table.indices(run.split)
    for i, task in enumerate(tasks):
        face, own = to_float(jnp.asarray(before[i : i + 1])), labels[task.face][None]
        if "edit" in model.method.capabilities:
            target, _ = invert(own, names, (task.name,))
            edited = editor.edit(face, jnp.asarray(own), jnp.asarray(target), strength)
        else:
            column = labels[:, names.index(task.name)]
            giver = exemplar.opposites(column, everyone, np.array([task.face]), task.name, rng)
            mask = jnp.asarray([[name == task.name for name in names]])
            edited = editor.swap(face, to_float(jnp.asarray(source.images(giver)))[None], mask)
        after[i] = np.asarray(to_uint8(edited))[0]
    return before, after


def _change(task: Task) -> str:
    return f"{task.name.replace('_', ' ')}, {'from no to yes' if task.value else 'from yes to no'}"


class Answer(NamedTuple):
    """One number from a person about a run's edit: a scale's point, or of "guess" whether it is right."""

    rater: int
    face: str
    run: int
    measure: str
    value: float


def count(key_file: Path, answer_files: Sequence[Path]) -> dict[str, Any]:
    """The paper's table of answer files: for each run the mean of each measure, its 95 % interval and their number.

    Unfinished files count as far as they go. Raises `UserError` for a file that is none, or belongs to another page, or
    repeats a participant's.
    """
    key = _json(key_file, "the key that `faceattr study ask` wrote")
    if not {"study", "items", "runs"} <= key.keys():
        raise UserError(f"{key_file}: this is no key; give the .key.json that `faceattr study ask` wrote.")
    answers: list[Answer] = []
    seen: dict[int, Path] = {}
    for path in answer_files:
        found = _json(path, "what the page saves")
        if found.get("study") != key["study"]:
            raise UserError(f"{path}: these are not answers to the page of {key_file}; give the key of their own page.")
        rater = found.get("rater")
        if type(rater) is not int:
            raise UserError(f"{path}: the file does not say whose answers these are; give it as the page saved it.")
        if rater in seen:
            raise UserError(
                f"{path}: participant {rater} answered in {seen[rater]} already; keep the later file alone."
            )
        seen[rater] = path
        own = list(_answers(path, rater, found, key["items"]))
        if not own:
            raise UserError(f"{path}: there is no answer in this file; leave it out.")
        answers += own
    rows = []
    for number, run in enumerate(key["runs"]):
        row: dict[str, Any] = {"run": run["model"], "method": run["method"]}
        for measure in (*SCALES, "guess"):
            row[measure] = _summary([a for a in answers if (a.run, a.measure) == (number, measure)], measure)
        rows.append(row)
    kept = {name: key.get(name) for name in ("study", "data", "seed", "strength")}
    return {**kept, "participants": len(seen), "runs": rows}


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror}); give {what}.") from None
    except ValueError:
        raise UserError(f"{path}: this is not a JSON file, or not all of one; give {what}.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: this JSON file holds something else; give {what}.")
    return found


def _answers(path: Path, rater: int, found: Mapping[str, Any], items: Sequence[Mapping[str, Any]]) -> Iterator[Answer]:
    """The guesses and ratings of one file."""
    for kind, size, first, last in (("guesses", 1, 0, CHOICES - 1), ("ratings", len(SCALES), 1, POINTS)):
        given = found.get(kind)
        if not isinstance(given, dict):
            raise UserError(f"{path}: the file has no '{kind}'; give it as the page saved it.")
        for place, values in given.items():
            if not place.isascii() or not place.isdecimal() or int(place) >= len(items):
                raise UserError(f"{path}: the page has no picture '{place}'; give the file as the page saved it.")
            right = isinstance(values, list) and len(values) == size
            if not right or any(type(value) is not int or not first <= value <= last for value in values):
                raise UserError(
                    f"{path}: {kind} of picture {place} are {json.dumps(values)}, not {size} from {first} to {last}; "
                    "give the file as the page saved it."
                )
            item = items[int(place)]
            for measure, value in zip(("guess",) if kind == "guesses" else SCALES, values, strict=True):
                if measure == "guess":
                    value = float(item["choices"][value] == item["attribute"])
                yield Answer(rater, item["face"], item["run"], measure, float(value))


def interval(values: np.ndarray, *groupings: ArrayLike) -> tuple[float, float | None, float | None]:
    """Mean of (N,), and its 95 % interval by Student's t where values of one group move together.

    The standard error is that of group sums, sqrt(G / (G - 1) sum_g (sum_{i in g} (x_i - mean))^2) / N; groups of one
    value each give the textbook's. Of several groupings the widest interval counts; None where each is one group.
    """
    mean, halves = float(np.mean(values)), []
    for grouping in groupings:
        _, group = np.unique(grouping, return_inverse=True)
        sums = np.bincount(group, values - mean)
        if (n := len(sums)) > 1:
            error = np.sqrt(n / (n - 1) * np.sum(sums**2)) / len(values)
            halves.append(float(stdtrit(n - 1, 0.975) * error))
    return (mean, mean - max(halves), mean + max(halves)) if halves else (mean, None, None)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `n` independent answers; not a point at 0 and 1."""
    z = 1.959964
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return tuple((share + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1))


def _summary(answers: Sequence[Answer], measure: str) -> dict[str, float | None] | None:
    if not answers:
        return None
    values = np.array([answer.value for answer in answers])
    mean, low, high = interval(values, [a.rater for a in answers], [a.face for a in answers])
    least, most = (0.0, 1.0) if measure == "guess" else (1.0, float(POINTS))
    if measure == "guess":
        floor, ceiling = wilson(mean, len(values))
        low = floor if low is None else min(low, floor)
        high = ceiling if high is None else max(high, ceiling)
    if low is not None and high is not None:
        low, high = max(low, least), min(high, most)
    return {"mean": mean, "low": low, "high": high, "answers": len(values)}


_FINE_PRINT = (
    "Scales from 1 to 5; guess: the share of right ones, of four attributes (chance 25 %). In brackets 95 % intervals: "
    "Student's t, where a participant's answers move together, or those about a face, whichever is wider; for guesses "
    "no narrower than Wilson's.",
    "Each participant guesses about every face once, at an edit by one of the runs, before the changes are named.",
    "The paper's rows: 10 students, 100 images of its own, other models and other pictures, without intervals.",
)


def table(found: Mapping[str, Any]) -> str:
    """What `count` found as the paper's table, in Markdown."""
    rows = [
        [f"{i}: {row['method']}", *(_cell(row[m], m) for m in (*SCALES, "guess"))]
        for i, row in enumerate(found["runs"])
    ]
    for method, (*points, guess) in STUDY.items():
        rows.append([f"{method}, in the paper", *(f"{value:.2f}" for value in points), f"{guess:.1%}"])
    return page.markdown(
        [
            "# User study",
            f"{found['data']}; {found['participants']} participants; strength {found['strength']:g}.",
            page.Table(["", *SCALES, "guess"], rows),
            page.Bullets([*_FINE_PRINT, *(f"{i}: {row['run']}" for i, row in enumerate(found["runs"]))]),
        ]
    )


def _cell(summary: Mapping[str, Any] | None, measure: str) -> str:
    if summary is None:
        return "-"
    show = "{:.1%}" if measure == "guess" else "{:.2f}"
    ends = [show.format(summary[end]) for end in ("low", "high") if summary[end] is not None]
    return show.format(summary["mean"]) + (f" ({' to '.join(ends)})" if ends else "") + f" of {summary['answers']}"
