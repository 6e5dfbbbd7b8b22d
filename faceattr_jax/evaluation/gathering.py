"""One pass over a run's faces for all that a protocol's measures look at."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import editing, embedders, exemplar, generation, identity, labelling, metrics, restoration
from faceattr_jax.evaluation.editors import Compiled, Widened, everywhere
from faceattr_jax.evaluation.embedders import Embedder
from faceattr_jax.evaluation.opening import Opened, open_judge, readable
from faceattr_jax.evaluation.protocol import (
    CYCLES,
    DRAWN,
    FACES,
    GALLERY,
    NORMS,
    PERSON,
    PICTURES,
    RESTORED,
    STAND_IN,
    VARIETY,
    Found,
)
from faceattr_jax.evaluation.readers import Distributions, Gallery, Likeness, Varieties
from faceattr_jax.evaluation.regions import spread

CURVE_FACES = 256


def look(
    opened: Opened,
    needs: frozenset[str],
    *,
    number: int = 0,
    judge: str = "",
    recognizer: str = "",
    strength: float = 1.0,
    curve: bool = False,
) -> Found:
    """Edit the run's faces once, and gather all that `needs` names; what cannot be had is in `missing`."""
    model, source, indices = opened.model, opened.source, np.sort(opened.indices)
    can = model.method.capabilities
    readers: dict[str, Any] = {}
    missing: dict[str, str] = {}
    if "restore" in can:
        compiled = restoration.Compiled(model.method)
        readers[RESTORED] = restoration.evaluate(compiled, everywhere({"model": model.variables}), source, indices)
        return Found(number, opened, None, readers, {}, {})
    if not can & {"edit", "swap"}:
        raise UserError(
            f"{model.path}: a {model.config.method} model edits no faces; a protocol measures those that do."
        )
    if "edit" not in can and (curve or strength != 1.0):
        raise UserError(f"{model.path}: a model that swaps attributes has no strength; leave --strength and --curve.")
    judging, about = open_judge(opened, judge, resize=True)
    names, known = model.attributes, readable(opened, judging)
    editor = Compiled(model.method, model.variables)
    asked = Widened(editor, known)

    def add(name: str, embedder: Embedder | str, make: Callable[[Embedder], Any]) -> None:
        if isinstance(embedder, str):
            missing[name] = embedder
            return
        try:
            readers[name] = make(embedder)
        except UserError as error:
            missing[name] = str(error)

    looks = needs & {PICTURES, VARIETY, DRAWN}
    inception = embedders.pictures("inception") if looks else ""
    stand_in = embedders.pictures("efficientnet_lite0") if looks and isinstance(inception, str) else ""
    person = embedders.faces(model.crop, "dlib", "recognizer", recognizer=recognizer)
    whole = source.table.indices(opened.split)
    searched = GALLERY in needs
    add(PERSON, person, lambda e: Likeness(e, known, gallery=Gallery(e, source, whole) if searched else None))
    if PICTURES in needs:
        add(PICTURES, inception, lambda e: Distributions(e, known, kernel=True))
        if isinstance(inception, str):
            add(STAND_IN, stand_in, lambda e: Distributions(e, known, kernel=True))
        add(FACES, person, lambda e: Distributions(e, known))
    if VARIETY in needs:
        add(VARIETY, inception, lambda e: Varieties(e, indices))
    if NORMS in needs:
        network = embedders.faces(model.crop, "recognizer", "vgg_face", recognizer=recognizer, unscaled=True)
        add(NORMS, network, lambda e: Likeness(e, known, norms=True))

    def watch(seen: editing.Seen) -> None:
        for name, reader in list(readers.items()):
            try:
                reader(seen)
            except UserError as error:  # of one measure; the pass goes on for the others
                missing[name] = str(error)
                del readers[name]

    if "edit" in can:
        evaluation = editing.evaluate_editors(
            {"model": asked}, judging, source, names, indices, strength=strength, region_faces=0, watch=watch
        )
        if CYCLES in needs:
            readers[CYCLES] = editor
    else:
        evaluation = exemplar.evaluate_exchangers({"model": asked}, judging, source, names, indices, watch=watch)
    if searched and PERSON in readers:
        readers[GALLERY] = readers[PERSON].gallery
    if DRAWN in needs and "generate" in can:
        looking = [e for e in (inception, stand_in, person) if isinstance(e, Embedder)]
        try:
            readers[DRAWN] = _draw(editor, judging, opened, looking, readers.get(VARIETY))
        except UserError as error:
            missing[DRAWN] = str(error)
    elif DRAWN in needs:
        missing[DRAWN] = f"a {model.config.method} model draws no new faces"
    reading = labelling.evaluate_judge(judging, source, whole, known)
    found = Found(number, opened, evaluation, readers, missing, about, strength=strength, reading=reading)
    return dataclasses.replace(found, curve=_identity_curve(asked, judging, found)) if curve else found


def _draw(
    editor: Compiled, judging: Any, opened: Opened, looking: Sequence[Embedder], varieties: Varieties | None
) -> dict[str, Any]:
    """What `evaluate_generators` finds, and by attribute the squared error (SL-GAN's) and how many faces."""
    source, indices = opened.source, np.sort(opened.indices)
    labels = source.table.select(editor.attributes)[indices]
    columns = [judging.attributes.index(name) for name in editor.attributes]
    errors = np.zeros(len(editor.attributes))

    def watch(name: str, images: jax.Array, places: np.ndarray, count: int) -> None:
        if name == "model":
            said = 2 * judging.classify(images)[:, columns] - 1
            errors[:] += np.asarray(metrics.attribute_error(said, jnp.asarray(labels[places])))[:count].sum(axis=0)
            if varieties:
                varieties.drawn(name, images, places, count)

    embed = {embedder.name: embedder.embed for embedder in looking}
    train = np.setdiff1d(source.table.indices("train"), indices)
    found = generation.evaluate_generators(
        {"model": editor}, judging, embed, source, indices, others=spread(train, len(indices)), watch=watch
    )
    return {**found, "attribute_error": dict(zip(editor.attributes, errors / len(indices), strict=True))}


def _identity_curve(editor: Widened, judging: Any, so_far: Found) -> list[dict[str, float | None]]:
    """`editing.strength_curve`, and where a face network is there also the same-person rate."""
    opened, person = so_far.opened, so_far.readers.get(PERSON)
    likeness = {s: Likeness(person.embedder, editor.attributes) for s in editing.STRENGTHS} if person else {}
    rows = editing.strength_curve(
        editor, judging, opened.source, opened.model.attributes, np.sort(spread(opened.indices, CURVE_FACES)),
        watches=likeness,
    )  # fmt: skip
    if person:
        right, apart = (
            np.stack([np.concatenate(list(seen[key].values())) for seen in likeness.values()])
            for key in ("right", "distances")
        )
        with contextlib.suppress(UserError):  # of the data, which do not say who is on a picture: no threshold
            limit, _ = so_far.own_threshold
            costs = identity.identity_curve(editing.STRENGTHS, right, apart, limit)
            for row, cost in zip(rows, costs, strict=True):
                row |= {name: cost[name] for name in ("same_person", "distance")}
    return rows
