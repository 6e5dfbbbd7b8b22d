"""What an evaluation starts from: a run, the faces that it is measured on, and the judge."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from faceattr_jax import config as configs
from faceattr_jax.data import crops
from faceattr_jax.data.source import Source, open_source
from faceattr_jax.editor import Editor, hash_variables, load
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import editing, identity
from faceattr_jax.evaluation.editors import Compiled, Judge
from faceattr_jax.evaluation.regions import spread
from faceattr_jax.pretrained.faces import Square, cut, part

PEOPLE_IMAGES = 4_000  # all pairs of which are compared


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A run and the faces at `indices` of `source`, which it can do something with. data, split: where they are
    from."""

    model: Editor
    source: Source
    indices: np.ndarray
    data: str
    split: str

    def file(self, name: str) -> Path | None:
        """A file of the run that the model is a checkpoint of, if it is there."""
        path = self.model.path
        folders = (path, *path.parents[:2]) if path else ()  # RUN/best/STEP is the deepest
        return next((found for folder in folders if (found := folder / name).is_file()), None)

    @functools.cached_property
    def protocol(self) -> dict[str, str]:
        """What makes numbers of these faces comparable, in words."""
        return {
            "model": str(self.model.path),
            "model weights": hash_variables(self.model.variables),
            "model config": hashlib.sha256(configs.to_json(self.model.config).encode()).hexdigest(),
            "data": f"{self.data}, {self.split} split, {len(self.indices)} images",
            "crop": f"{self.model.crop} to {self.model.size} px",
            "format": "8-bit RGB, no compression",
        }


def open_run(
    workdir: object, *, data: str = "", split: str = "test", images: int = 0, balanced: bool = False
) -> Opened:
    """A run, or one checkpoint, and `images` faces of the split (0: all), spread over those that it can invert.

    Of a recogniser they are about PEOPLE_IMAGES, of whole people. balanced: of a run with one attribute that it gives
    and takes, half of them with it and half without, as far as there are so many. Raises UserError where there are
    none.
    """
    if images < 0:
        raise UserError(f"--images={images}: give how many faces to measure, or 0 for all of the split.")
    model = load(str(workdir))
    data = data or model.config.data.path
    source = open_source(data, size=model.size, crop=model.crop)
    indices = source.table.indices(split)
    if len(indices) == 0:
        raise UserError(f"{data}: the {split} split is empty; give another --split.")
    indices = editing.invertible(model.method, source, indices)
    if "embed" in model.method.capabilities:
        indices = identity.whole_people(source, indices, images or PEOPLE_IMAGES)
    elif images and balanced and len(model.attributes) == 1 and not model.method.towards:
        labels = source.table.select(model.attributes)[indices, 0]
        halves = [spread(half, max(1, images // 2)) for value in (0, 1) if len(half := indices[labels == value])]
        indices = np.sort(np.concatenate(halves))
    elif images:
        indices = spread(indices, images)
    return Opened(model, source, indices, data, split)


def open_editors(workdirs: Sequence[object], *, data: str = "", split: str = "test") -> tuple[list[Opened], list[str]]:
    """Runs that edit or swap, on the same faces, and the attributes that all of them know.

    Raises UserError where one does neither, or they have no data or no attribute in common.
    """
    runs = [open_run(workdir, data=data, split=split) for workdir in workdirs]
    for run in runs:
        if not run.model.method.capabilities & {"edit", "swap"}:
            raise UserError(f"{run.model.path}: a {run.model.config.method} model edits no faces; give runs that do.")
        if run.data != runs[0].data or len(run.source.table) != len(runs[0].source.table):
            raise UserError(
                f"the runs were trained on {runs[0].data} and {run.data}: say with --data whose faces to take."
            )
    names = [name for name in runs[0].model.attributes if all(name in run.model.attributes for run in runs)]
    if not names:
        each = "; ".join(f"{run.model.path}: {', '.join(run.model.attributes)}" for run in runs)
        raise UserError(f"the runs have no attribute in common ({each}).")
    return runs, names


def readable(opened: Opened, judge: Judge) -> tuple[str, ...]:
    """The attributes that the judge reads and the data tell: the run's own, and others that its edits may touch.

    Raises UserError where the judge or the data do not know one of the run's.
    """
    opened.source.table.select(opened.model.attributes)
    for name in opened.model.attributes:
        if name not in judge.attributes:
            raise UserError(f"the judge does not know {name}, which {opened.model.path} edits; give one trained on it")
    return tuple(name for name in judge.attributes if name in opened.source.table.attributes)


class Resized:
    """A judge that is shown what it looks at in pictures of another size or crop, at its own size."""

    def __init__(self, judge: Compiled, size: int, square: Square = (0.0, 0.0, 1.0)) -> None:
        self.attributes, self.embeds = judge.attributes, judge.embeds
        self._judge, self._size, self._square = judge, size, square

    def classify(self, images: jax.Array) -> jax.Array:
        return self._judge.classify(self._shown(images))

    def features(self, images: jax.Array) -> jax.Array:
        return self._judge.features(self._shown(images))

    def _shown(self, images: jax.Array) -> jax.Array:
        return cut(images, self._square, self._size)


def open_judge(opened: Opened, judge: str = "", *, resize: bool = False) -> tuple[Compiled | Resized, dict[str, str]]:
    """The classifier in workdir `judge`, or that of the run's config, and what identifies it.

    "outputs" says what it was trained to give: "logits" or "signs". resize: show it pictures of another size at its
    own, and of another crop the part that it knows, which "resized" then says. Raises UserError where there is none, or
    it does not fit.
    """
    model = opened.model
    judge = judge or model.config.evaluation.judge
    if not judge:
        raise UserError(
            "An editor is evaluated by a classifier that had no part in its training: give --judge=WORKDIR."
        )
    judging = load(judge)
    if "classify" not in judging.method.capabilities:
        raise UserError(f"{judge}: a {judging.config.method} model reads no attributes; give a classifier's workdir.")
    drawn = hasattr(opened.source, "counterfactual")  # whole, whatever the crop
    fits = judging.size == model.size and (judging.crop == model.crop or (resize and drawn))
    misfit = UserError(
        f"{judge}: this judge looks at {judging.crop} crops of {judging.size} px, the editor makes {model.crop} "
        f"crops of {model.size} px; train a judge that fits."
    )
    if not fits and not resize:
        raise misfit
    about = {
        "path": str(judging.path),
        "sha256": hash_variables(judging.variables),
        "outputs": judging.config.get("loss", {}).get("outputs", "logits"),
    }
    compiled = Compiled(judging.method, judging.variables)
    if fits:
        return compiled, about
    if drawn or judging.crop == model.crop:
        square, cropped = (0.0, 0.0, 1.0), ""
    elif crops.kept(judging.crop) is None or crops.kept(model.crop) is None:
        raise misfit
    else:
        square, cropped = part(judging.crop, model.crop, judge), f" of {judging.crop} crops"
    said = f"from {model.size} px to {judging.size}{cropped}, antialiased"
    return Resized(compiled, judging.size, square), {**about, "resized": said}
