"""AttGAN's augmentation study (section 4.2): does a classifier learn more from an editor's edits as well?

The paper turns each training image of CelebA into 13 by editing each of the 13 attributes, and trains "a same CNN
model" without and with them: 93.78 and 94.64 % mean accuracy on the test set. Where it is silent: the images themselves
stay in; an edit inverts the attribute, and what that rules out (`attributes.CONFLICTS`); its labels are what was asked
for; both trainings take the same number of iterations, and all else from one config; valid and test splits are real.
"""

import copy
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from faceattr_jax import files
from faceattr_jax.data import prepare
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.data.source import Source, Table, open_source
from faceattr_jax.editor import Editor, hash_variables, load
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import page
from faceattr_jax.evaluation.editors import Compiled, invert
from faceattr_jax.evaluation.regions import batches
from faceattr_jax.evaluation.run import evaluate
from faceattr_jax.methods.base import build
from faceattr_jax.study import interval
from faceattr_jax.training.loop import train

MEASURES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
BATCH = 64


class Augmented:
    """A source, and after its pictures an editor's edits of its train split: a Source of the editor's attributes.

    Of each face one edit for every attribute that the editor can invert there (`Method.towards`).
    """

    def __init__(self, source: Source, model: Editor, strength: float = 1.0) -> None:
        self.size, self.crop = source.size, source.crop
        self._source, self._strength = source, strength
        self._editor = Compiled(model.method, model.variables)
        real, names, towards = source.table, model.attributes, model.method.towards
        self._labels = real.select(names)
        train = real.indices("train")
        targets = np.stack([invert(self._labels[train], names, (name,))[0] for name in names], axis=1)  # (T, n, n)
        value = np.diagonal(targets, axis1=1, axis2=2)
        able = np.stack([value[:, i] == towards.get(name, value[:, i]) for i, name in enumerate(names)], axis=1)
        which, column = np.nonzero(able)  # face by face, so that a chunk of edits is of few faces
        self._face, self._target = train[which], targets[which, column]
        self.table = Table(
            attributes=tuple(names),
            labels=np.concatenate([self._labels, self._target]) > 0.5,
            split=np.concatenate([real.split, real.split[self._face]]),
            names=[
                *map(str, real.names),
                *(f"{real.names[f]} {names[c]}" for f, c in zip(self._face, column, strict=True)),
            ],
        )

    def images(self, indices: np.ndarray) -> np.ndarray:
        """(B, size, size, 3) uint8 at `indices` (B,)."""
        pixels = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        edits = indices - len(self._labels)
        pixels[edits < 0] = self._source.images(indices[edits < 0])
        for places, number in batches(np.flatnonzero(edits >= 0), BATCH):
            edit = edits[places]
            faces, place = np.unique(self._face[edit], return_inverse=True)
            images = to_float(jnp.asarray(self._source.images(faces)[place]))
            own, target = self._labels[self._face[edit]], self._target[edit]
            edited = self._editor.edit(images, own, target, self._strength)
            pixels[places[:number]] = np.asarray(to_uint8(edited))[:number]
        return pixels


def augment(
    workdir: str | Path,
    config: ConfigDict,
    out: Path,
    *,
    data: str = "",
    seeds: int = 3,
    strength: float = 1.0,
    stopped: threading.Event | None = None,
) -> dict[str, Any] | None:
    """The study by the editor in `workdir`, into `out`; returns what its ``augmentation.json`` holds.

    config: of the classifier, which takes the editor's attributes, size, crop and data (or `data`), and seeds from its
    own on. SIGTERM saves and sets `stopped`, the result is None then, and the same call goes on from there. Raises
    `UserError` where one is no editor or the other no classifier.
    """
    model = load(workdir)
    if "edit" not in model.method.capabilities:
        raise UserError(f"{model.path}: a {model.config.method} model edits no faces by itself; give one that does.")
    if build(config).capabilities != {"classify"}:
        raise UserError(
            f"--config={config.method} is no classifier; give the config of one, such as classifier_64:mini."
        )
    if seeds < 2:
        raise UserError(f"--seeds={seeds} gives no interval; it takes 2 or more.")
    data = data or model.config.data.path
    source = open_source(data, size=model.size, crop=model.crop)
    origin = f"{data}, and edits by {model.path} ({hash_variables(model.variables)[:16]}) at strength {strength:g}"
    prepared = prepare.write(Augmented(source, model, strength), origin, out / "data")

    rows: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    stopped = stopped or threading.Event()
    for seed in range(config.seed, config.seed + seeds):
        for name, path in (("without", data), ("with", str(prepared.folder))):
            own = copy.deepcopy(config)
            own.update({"attributes": model.attributes, "image_size": model.size, "crop": model.crop, "seed": seed})
            own.data.path = path
            run = out / f"{name}-{seed}"
            train(own, run, stopped=stopped)
            if stopped.is_set():
                return None
            evaluate(run, run / "evaluation", data=data)
            rows[name].append(json.loads((run / "evaluation" / "evaluation.json").read_text()))
    found = {
        "data": data,
        "editor": origin,
        "train_pictures": {"without": len(source.table.indices("train")), "with": prepared.about["counts"]["train"]},
        "seeds": list(range(config.seed, config.seed + seeds)),
        "iterations": config.train.iterations,
        **summary(rows["without"], rows["with"]),
    }
    files.write(out / "augmentation.json", json.dumps(found, indent=2) + "\n")
    files.write(out / "augmentation.md", table(found))
    return found


def summary(without: Sequence[dict[str, Any]], with_edits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of evaluations, a pair for each seed: the means without and with edits, and the gain of pairs, with intervals."""

    def rows(pick: Any) -> dict[str, Any]:
        before, after = (np.array([pick(one) for one in side], np.float64) for side in (without, with_edits))
        sides = {"without": before, "with": after, "gain": after - before}
        keys = ("mean", "low", "high")
        return {side: dict(zip(keys, interval(v, np.arange(len(v))), strict=True)) for side, v in sides.items()}

    return {
        "mean": {measure: rows(lambda one, m=measure: one[m]) for measure in MEASURES},
        "attributes": {
            name: rows(lambda one, a=name: one["attributes"][a]["accuracy"]) for name in without[0]["attributes"]
        },
    }


def table(found: dict[str, Any]) -> str:
    """What `augment` found as a table in Markdown, the paper's numbers under it."""
    sides = ("without", "with", "gain")
    cells = {MEASURES[m]: row for m, row in found["mean"].items()} | found["attributes"]
    rows = [[name, *(_percent(row[side], side == "gain") for side in sides)] for name, row in cells.items()]
    counts = found["train_pictures"]
    return page.markdown(
        [
            "# Augmentation study",
            f"{found['data']}, test split; {counts['without']:,} pictures to train on, {counts['with']:,} with edits.",
            page.Table(
                ["", "without edits", "with edits", "gain"],
                [*rows, ["accuracy, in the paper", "93.78", "94.64", "+0.86"]],
            ),
            page.Bullets(
                [
                    f"In percent, with 95 % intervals by Student's t over {len(found['seeds'])} seeds; the gain is "
                    "that of trainings of the same seed. Attributes: accuracy.",
                    f"{found['iterations']:,} iterations each. Edited: {found['editor']}. The labels of edits are what "
                    "the editor was asked for, right or not.",
                    "The paper: CelebA's 162,770 training images, 13 attributes, a network that it does not describe.",
                ]
            ),
        ]
    )


def _percent(row: dict[str, float], signed: bool) -> str:
    show = "{:+.2f}" if signed else "{:.2f}"
    mean, low, high = (show.format(100 * row[key]) for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
