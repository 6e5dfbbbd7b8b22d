"""What a run is scored by while it trains: functions that `config.evaluation.validator` names.

Each takes the config and the source and returns a function of the method and its variables, which returns the numbers
(name -> value) and the pictures (name -> uint8 (H, W, 3)) of the moment.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from faceattr_jax.data.source import Source
from faceattr_jax.evaluation import editing, exemplar, identity, labelling, restoration
from faceattr_jax.evaluation.editors import Compiled
from faceattr_jax.evaluation.regions import spread
from faceattr_jax.grids import compose
from faceattr_jax.methods.base import Variables

Validator = Callable[[Any, Variables], tuple[dict[str, float], dict[str, np.ndarray]]]

FACES = 8  # rows of a sample grid


def labels(config: ConfigDict, source: Source) -> Validator:
    """A classifier against the labels: accuracy and balanced accuracy, means over its attributes."""
    indices = _some(config, source)
    compiled = _compiled_once()

    def validate(method: Any, variables: Variables) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        rows = labelling.evaluate_judge(compiled(method, variables), source, indices)
        means = {name: labelling.mean(rows, name) for name in ("accuracy", "balanced_accuracy")}
        return {name: value for name, value in means.items() if value is not None}, {}

    return validate


def people(config: ConfigDict, source: Source) -> Validator:
    """A face recogniser on people of the valid split, none of whom it is trained on (`evaluation.identity.scores`)."""
    indices = identity.whole_people(source, source.table.indices("valid"), config.evaluation.images)
    numbers = source.table.people(indices)[indices]
    embed: list[Any] = []

    def validate(method: Any, variables: Variables) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        if not embed:
            embed.append(jax.jit(method.embed))
        vectors = identity.embeddings(lambda images: embed[0](variables, images), source, indices)
        return identity.scores(vectors, numbers), {}

    return validate


def edits(config: ConfigDict, source: Source) -> Validator:
    """An editor: by the judge that the config names, and by eye on a grid.

    "score" is attribute accuracy minus untouched change, so that neither an editor that does nothing nor one that
    changes everything is called the best. What could not be measured is left out: an editor of one attribute has no
    untouched ones, so no score either.
    """
    compiled = _compiled_once()
    judge = None
    if config.evaluation.judge:
        from faceattr_jax.editor import load

        loaded = load(config.evaluation.judge)
        judge = Compiled(loaded.method, loaded.variables)

    def validate(method: Any, variables: Variables) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        editor = compiled(method, variables)
        indices = _some(config, source, method)
        shown = indices[:FACES]
        own = source.table.select(method.attributes)[shown]
        pictures, names = editing.edits_grid(editor, source.images(shown), own, method.attributes)
        grids = {"edits": compose(pictures, names)}
        if judge is None:
            return {}, grids
        found = editing.evaluate_editor(
            editor, judge, source, method.attributes, indices,
            strength=config.evaluation.strength, combinations=(), region_faces=0,
        )["editors"]["model"]  # fmt: skip
        accuracy, untouched_change = found["accuracy"], found["untouched_change"]
        scalars = {
            "score": None if untouched_change is None else accuracy - untouched_change,
            "attribute_accuracy": accuracy,
            "untouched_change": untouched_change,
            "reconstruction_psnr": found["reconstruction"]["psnr"],
        }
        return {name: value for name, value in scalars.items() if value is not None}, grids

    return validate


def restorations(config: ConfigDict, source: Source) -> Validator:
    """A model that restores degraded faces (`evaluation.restoration`), and what it is given; both by eye, too."""
    indices = _some(config, source)
    made: list[restoration.Compiled] = []

    def validate(method: Any, variables: Variables) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        if not made:
            made.append(restoration.Compiled(method))
        rows = restoration.evaluate(made[0], {"model": variables}, source, indices)
        pictures, names = restoration.grid(made[0], variables, source, indices[:FACES])
        scalars = {**rows["model"], **{f"degraded_{name}": value for name, value in rows["degraded"].items()}}
        return scalars, {"restorations": compose(pictures, names)}

    return validate


def swaps(config: ConfigDict, source: Source) -> Validator:
    """An editor by example, by eye alone: a grid of faces with each attribute exchanged for another face's."""
    indices = _some(config, source)
    shown = indices[:FACES]
    references = exemplar.dealt(source, config.attributes, indices, shown, np.random.default_rng(0))
    compiled = _compiled_once()

    def validate(method: Any, variables: Variables) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        pictures, names = exemplar.swaps_grid(compiled(method, variables), source, shown, references)
        return {}, {"swaps": compose(pictures, names)}

    return validate


def _compiled_once() -> Callable[[Any, Variables], Compiled]:
    """Makes a method's functions compile at the first validation and never again."""
    made: list[Compiled] = []

    def compiled(method: Any, variables: Variables) -> Compiled:
        if not made:
            made.append(Compiled(method, variables))
        return made[0].at(variables)

    return compiled


def _some(config: ConfigDict, source: Source, editor: Any = None) -> np.ndarray:
    """The faces of the valid split to use, spread over it: those that `editor`, a method, can invert."""
    indices = source.table.indices("valid")
    return spread(editing.invertible(editor, source, indices) if editor else indices, config.evaluation.images)
