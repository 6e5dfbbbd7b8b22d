"""The measures that protocols choose from (`protocol.Measure`); what they are is in each one's fine print."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import cycles, features, labelling
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
    Measure,
    Row,
)
from faceattr_jax.evaluation.readers import Distributions, Rows
from faceattr_jax.evaluation.tally import DIRECTIONS

Numbers = Mapping[str, Mapping[str, float]]
Take = Callable[[Sequence[Found]], Iterable[Row]]

CYCLE_FACES = 2_000
# Pictures in a subset, half of those that there are at most, and there have to be: it is unbiased at any size.
KERNEL_SIZE, KERNEL_FEWEST = 1_000, 100


def each(take: Callable[[Found], Iterable[Row]]) -> Take:
    """Rows of every run that edits, on its own; a run of which there is no number has a row that says why.

    Where there is none of any, the first one's UserError skips the measure.
    """

    def of_each(founds: Sequence[Found]) -> list[Row]:
        rows, refused = list[Row](), list[UserError]()
        editing = [found for found in founds if found.evaluation]
        for found in editing:
            try:
                rows += [dataclasses.replace(row, run=found.number) for row in take(found)]
            except UserError as error:
                refused.append(error)
                rows.append(Row("", None, 0, found.number, str(error)))
        if refused and len(refused) == len(editing):
            raise refused[0]
        return rows

    return of_each


def attempt(which: str, images: int, note: str, measure: Callable[..., float], *arguments: Any) -> Row:
    """A row, or why there is no number: too few pictures, and how many it takes."""
    try:
        return Row(which, measure(*arguments), images, note=note)
    except UserError as error:
        return Row(which, None, images, note=str(error))


def request(attribute: str, direction: str) -> str:
    """A cell as users write it: Eyeglasses=1."""
    return f"{attribute}={1 - DIRECTIONS.index(direction)}"


# The judge's.


def judge_accuracy(published: Numbers | None = None) -> Measure:
    def take(found: Found) -> Iterator[Row]:
        rows, images = found.reading, len(found.opened.source.table.indices(found.opened.split))
        own = {name: rows[name] for name in found.model["single"]}
        for name, row in own.items():
            yield Row(name, row["accuracy"], images)
        for measure, suffix in (("accuracy", ""), ("balanced_accuracy", ", balanced")):
            yield Row(f"mean{suffix}", labelling.mean(own, measure), images)
            if len(rows) > len(own):
                yield Row(f"mean of all that it reads{suffix}", labelling.mean(rows, measure), images)

    how = (
        "How often the judge is right about all unedited faces of the split, on the run's attributes; balanced: both "
        "values alike."
    )
    return Measure("Accuracy of the judge", how, each(take), published or {}, of_edits=False)


def accuracy(published: Numbers | None = None) -> Measure:
    def take(found: Found) -> Iterator[Row]:
        for name, cells in found.model["single"].items():
            faces = sum(cell["faces"] for cell in cells.values())
            right = sum(cell["faces"] * (cell["accuracy"] or 0) for cell in cells.values())
            if faces:
                yield Row(name, right / faces, faces)
        yield Row("mean", found.model["by_image"], found.opened.indices.size)
        yield Row("mean, balanced", found.model["accuracy"], found.opened.indices.size)

    how = (
        "Every face is inverted on one attribute; the judge finds the wanted value. Faces weigh alike within an "
        "attribute and attributes alike in the mean; balanced: adding and removing weigh alike, too."
    )
    return Measure("Attribute accuracy", how, each(take), published or {}, chart="bars")


def directed_accuracy(published: Numbers | None = None) -> Measure:
    def take(found: Found) -> Iterator[Row]:
        for name, direction in found.cells:
            cell = found.model["single"][name][direction]
            yield Row(request(name, direction), cell["accuracy"], cell["faces"])

    how = "Faces without the wanted value are given it; the judge finds it."
    return Measure("Attribute accuracy by task", how, each(take), published or {}, chart="bars")


def beside(found: Found, which: str) -> dict[str, float | None]:
    """What else is to be known of the edits that a row called `which` is about.

    which: NAME, NAME=VALUE, a mean over all, or NAME + NAME of attributes that are inverted together. The judge's
    balanced accuracy on the attributes, untouched change, and the same-person rate, None where it was not taken, as of
    several attributes together; empty for a row about anything else.
    """
    if found.evaluation is None:
        return {}
    for row in found.model.get("multiple", ()):
        if which == " + ".join(row["attributes"]):
            return _beside(found, row["attributes"], row["untouched_change"], None)
    name, _, value = which.partition(",")[0].partition("=")
    cells = [cell for cell in found.cells if name in (cell[0], "mean") and value in ("", request(*cell)[-1])]
    if not cells:
        return {}
    untouched = found.model["untouched_change"]
    if name != "mean":
        rates = [found.model["single"][a][d] for a, d in cells]
        known = [(rate["untouched_change"], rate["faces"]) for rate in rates if rate["untouched_change"] is not None]
        faces = sum(n for _, n in known)
        untouched = sum(change * n for change, n in known) / faces if faces else None
    same = None
    if PERSON in found.readers:
        apart = np.concatenate([found.readers[PERSON]["distances"][cell] for cell in cells])
        with contextlib.suppress(UserError):  # of the data, which do not say who is on a picture
            same = float(np.mean(apart <= found.own_threshold[0]))
    return _beside(found, [name for name, _ in cells], untouched, same)


def _beside(
    found: Found, names: Iterable[str], untouched: float | None, same_person: float | None
) -> dict[str, float | None]:
    return {
        "judge": labelling.mean({name: found.reading[name] for name in names}, "balanced_accuracy"),
        "untouched change": untouched,
        "same person": same_person,
    }


def untouched() -> Measure:
    def take(found: Found) -> Iterator[Row]:
        images = found.opened.indices.size
        for name, key in (("change", "untouched_change"), ("error", "untouched_error")):
            if found.model[key] is None:
                yield Row(name, None, images, note="every edit touches all attributes that the judge reads")
            else:
                yield Row(name, found.model[key], images)

    how = (
        "Share of pairs of a single edit and an attribute that it leaves alone which the judge sees differently than "
        "on the input (change), or than the input's label says (error; STGAN's Err)."
    )
    return Measure("Untouched attributes", how, each(take))


def together() -> Measure:
    def take(found: Found) -> Iterator[Row]:
        for row in found.model["multiple"]:
            yield Row(" + ".join(row["attributes"]), row["accuracy"], row["faces"])

    return Measure("Several attributes at once", "Inverted together, and all found by the judge.", each(take))


def reconstruction() -> Measure:
    def take(found: Found) -> Iterator[Row]:
        for name in ("psnr", "ssim"):
            value = found.model["reconstruction"][name]
            note = "a face comes back as it is" if value is None else ""
            yield Row(name.upper(), value, found.opened.indices.size, note=note)

    how = (
        "Faces decoded with their own labels, 8 bits, RGB, no compression (a JPEG round trip costs over 2 dB); SSIM "
        "with an 11x11 Gaussian of sigma 1.5. Means over faces."
    )
    return Measure("Reconstruction", how, each(take))


# Face networks.


def _attribute_rows(found: Found, reader: str, measure: str, reduce: Callable[[np.ndarray], float]) -> Iterator[Row]:
    cells = found.readers[reader][measure]
    pooled = {name: np.concatenate([cells[name, d] for d in DIRECTIONS]) for name in found.model["single"]}
    for name, values in pooled.items():
        if len(values):
            yield Row(name, reduce(values), len(values), note=found.readers[reader].embedder.about)
    some = {name: values for name, values in pooled.items() if len(values)}
    others = {name: values for name, values in some.items() if name != "Male"}  # whose change is another person's look
    for which, kept in (("mean", some), ("mean without Male", others)):
        if len(some) > 1 and (kept is some or len(others) < len(some)):
            yield Row(which, float(np.mean([reduce(v) for v in kept.values()])), sum(map(len, kept.values())))


def same_person() -> Measure:
    def take(found: Found) -> Iterator[Row]:
        limit, said = found.own_threshold
        for row in _attribute_rows(found, PERSON, "distances", lambda apart: float(np.mean(apart <= limit))):
            yield dataclasses.replace(row, note=f"{row.note}, threshold {said}" if row.note else "")

    how = (
        "Share of single edits that a face network takes for the person of their source, which it sees at the same "
        "size: Euclidean distance up to the network's own threshold."
    )
    return Measure("Same person", how, each(take), needs=(PERSON,), chart="bars")


def verification(published: Numbers | None = None) -> Measure:
    def take(found: Found) -> Iterator[Row]:
        likeness = found.readers[PERSON]
        limit, said = found.threshold
        for name, direction in found.cells:
            apart = likeness["distances"][name, direction]
            note = f"{likeness.embedder.about}, threshold {said}"
            yield Row(request(name, direction), float(np.mean(apart <= limit)), len(apart), note=note)

    how = (
        "Share of edits verified as their source's person. The paper takes OpenFace, squared distances below .99; "
        "here the threshold of another network is fixed on pairs of other people."
    )
    return Measure("Face verification", how, each(take), published or {}, needs=(PERSON,))


def rank1(published: Numbers | None = None) -> tuple[Measure, Measure]:
    """By image and by identity."""

    def measure(title: str, key: str, how: str, numbers: Numbers) -> Measure:
        def take(found: Found) -> Iterator[Row]:
            if not any(map(len, found.readers[PERSON][key].values())):
                raise UserError("it takes data that say who is on a picture, as CelebA's identity_CelebA.txt does")
            among = f"among {len(found.readers[GALLERY].indices):,} faces"
            for row in _attribute_rows(found, PERSON, key, lambda hits: float(np.mean(hits))):
                yield dataclasses.replace(row, note=f"{row.note}, {among}" if row.note else "")

        return Measure(title, how, each(take), numbers, needs=(PERSON, GALLERY), chart="bars")

    gallery = "The gallery is the split, the probes are single edits of measured faces; the nearest picture is "
    return (
        measure("Rank-1 by image", "by_image", gallery + "the edit's own source.", {}),
        measure("Rank-1 by identity", "by_person", gallery + "of the same person.", published or {}),
    )


def dfn(published: Numbers | None = None) -> tuple[Measure, Measure]:
    """Mean and interquartile range."""
    how = (
        "|phi(G(x))| / |phi(x)|, phi a recogniser trained with softmax, not scaled to unit length (the paper names "
        "none; of our own, which is trained on cosines, what it scales to unit length); 1 for an unedited face."
    )

    def measure(title: str, key: str, numbers: Numbers, chart: str = "") -> Measure:
        def take(found: Found) -> Iterator[Row]:
            yield from _attribute_rows(found, NORMS, "norms", lambda ratios: features.dfn(ratios)[key])

        return Measure(title, how, each(take), numbers, needs=(NORMS,), chart=chart)

    return measure("DFN, mean", "mean", published or {}, "boxes"), measure("DFN, interquartile range", "iqr", {})


# Distances between sets of pictures.

# Reader -> what its Frechet and kernel distances are called.
_TITLES = {
    PICTURES: ("FID", "KID"),
    STAND_IN: ("Frechet distance by EfficientNet-lite0", "kernel distance by EfficientNet-lite0"),
    FACES: ("Frechet distance by a face network", ""),
}
Sets = Callable[[Found, Distributions], Iterable[tuple[str, Rows, Rows]]]


def originals(found: Found, read: Distributions) -> Iterator[tuple[str, Rows, Rows]]:
    """(attribute, all faces, all of their edits), both directions together."""
    for name in found.model["single"]:
        real, edited = Rows(True), Rows(True)
        for direction in DIRECTIONS:
            real, edited = real + read.faces[name, direction], edited + read.edits[name, direction]
        yield name, real, edited


def targets(found: Found, read: Distributions) -> Iterator[tuple[str, Rows, Rows]]:
    """(Attribute=value, faces that have that value, edits that got it)."""
    for name, direction in found.cells:
        other = DIRECTIONS[1 - DIRECTIONS.index(direction)]
        yield request(name, direction), read.faces[name, other], read.edits[name, direction]


def distances(sets: Sets, how: str, published: Numbers | None = None, *, components: int = 0) -> tuple[Measure, ...]:
    """Frechet distances by every network that there is, and kernel distances by those of whole pictures.

    components: principal components to reduce the canonical 2048 features to, 0 for none; of the real pictures and, in
    a row of its own, of both sets together.
    """

    def frechet(reader: str) -> Take:
        reduced = components and reader != FACES

        def one(real: Rows, edited: Rows) -> float:
            a, b = real.moments, edited.moments
            if reduced:
                return features.frechet_pca(a, b, components)
            features.require("a Frechet distance of so many features", max(np.size(a.mean), np.size(b.mean)), a, b)
            return features.frechet(a, b)

        def of_both(real: Rows, edited: Rows) -> float:
            a, b = real.moments, edited.moments
            return features.frechet_pca(a, b, components, fitted=a + b)

        def take(found: Found) -> Iterator[Row]:
            read = found.readers[reader]
            for which, real, edited in sets(found, read):
                count = min(real.moments.count, edited.moments.count)
                yield attempt(which, count, read.embedder.about, one, real, edited)
                if reduced:
                    yield attempt(f"{which}, components of both", count, read.embedder.about, of_both, real, edited)

        return each(take)

    def kernel(reader: str) -> Take:
        def take(found: Found) -> Iterator[Row]:
            read = found.readers[reader]
            for which, real, edited in sets(found, read):
                count = min(len(real.kept), len(edited.kept))
                size = min(KERNEL_SIZE, count // 2)
                if count < KERNEL_FEWEST:
                    reason = f"a kernel distance needs {KERNEL_FEWEST} pictures of each kind or more, there are {count}"
                    yield Row(which, None, count, note=reason)
                    continue
                mean, deviation = features.kid(real.kept, edited.kept, size=size)
                note = f"{read.embedder.about}; 100 subsets of {size}, between which it varies by {deviation:.4f}"
                yield Row(which, mean, count, note=note)

        return each(take)

    reduced = f" after PCA to {components}" if components else ""
    found = []
    for reader, (name, kernel_name) in _TITLES.items():
        # The paper's are distances of Inception's features: beside any other network's they would mislead.
        numbers = published or {} if reader == PICTURES else {}
        title = name + (reduced if reader != FACES else "")
        not_fid = "" if reader == PICTURES else " Not FID: compare it with itself alone."
        found.append(Measure(title, how + not_fid, frechet(reader), numbers, needs=(reader,), digits=2))
        if kernel_name:
            found.append(Measure(kernel_name, how + not_fid, kernel(reader), needs=(reader,), digits=4))
    return tuple(found)


# There and back; restoration.


def cyclic(published: Numbers | None = None) -> Measure:
    def take(founds: Sequence[Found]) -> Iterator[Row]:
        able = [found for found in founds if found.evaluation]
        pairs = [(f, f) for f in able if not f.opened.model.method.towards]
        for there in able:
            towards = there.opened.model.method.towards
            back = {name: 1 - value for name, value in towards.items()}
            pairs += [(there, other) for other in able if towards and other.opened.model.method.towards == back]
        if not pairs:
            raise UserError("it takes two runs that give one attribute opposite values, such as a mouth's")
        for there, back_again in pairs:
            opened = there.opened
            psnr = cycles.cyclic_psnr(
                there.readers[CYCLES], opened.source, opened.model.attributes, opened.indices,
                strength=there.strength, faces=CYCLE_FACES, back=back_again.readers[CYCLES],
            )  # fmt: skip
            for name, direction in there.cells:
                value = psnr[name][direction]
                note = "" if value is not None else "a face came back unchanged, so the mean is infinite"
                faces = min(there.faces((name, direction)), CYCLE_FACES)
                yield Row(request(name, direction), value, faces, there.number, note)

    how = (
        "dB against the input of a face that was inverted and inverted back, the first edit saved with 8 bits in "
        "between; named after the first."
    )
    return Measure("Cyclic PSNR", how, take, published or {}, needs=(CYCLES,), digits=2)


def restored(published: Mapping[str, Numbers]) -> tuple[Measure, ...]:
    """PSNR and SSIM of restored faces, over RGB and over brightness. published: of "psnr" and "ssim"."""

    def measure(key: str, title: str, digits: int) -> Measure:
        def take(founds: Sequence[Found]) -> Iterator[Row]:
            for found in founds:
                config = found.opened.model.config
                for row, which in (("degraded", "input"), ("model", config.get("task", config.method))):
                    value = found.readers[RESTORED][row][key]
                    yield Row(which, value, found.opened.indices.size, found.number)

        how = "Of restored faces against the faces themselves, over RGB or brightness (Y), 8 bits; input: bicubic."
        return Measure(title, how, take, published.get(key, {}), needs=(RESTORED,), digits=digits)

    titles = {"psnr": "PSNR", "ssim": "SSIM", "psnr_y": "PSNR of Y", "ssim_y": "SSIM of Y"}
    return tuple(measure(key, f"Restoration, {title}", 2 + key.startswith("ssim")) for key, title in titles.items())


# New faces.


def generated() -> Measure:
    def take(found: Found) -> Iterator[Row]:
        drawn = found.readers[DRAWN]
        row = drawn["generators"]["model"]
        for name in ("accuracy", "balanced_accuracy", "variance_ratio"):
            yield Row(name.replace("_", " "), row[name], drawn["images"])
        for embedder, distance in row["frechet"].items():
            note = f"as many other real faces: {_plain(drawn, embedder)}"
            if embedder != "inception":
                yield Row(f"Frechet distance by {embedder}", distance, drawn["images"], note=note)
            elif drawn["images"] > (fewest := drawn["dimensions"][embedder]):
                yield Row("FID", distance, drawn["images"], note=note)
            else:
                yield Row("FID", None, drawn["images"], note=f"FID needs {fewest + 1:,} pictures of each kind or more")

    how = (
        "Every face lends its labels to a new one, z from the prior. Accuracy: the judge, whose own is below, finds "
        "them. Frechet distances to the faces; of fewer faces than features they are too large and compare at equal "
        "numbers alone, and there is no FID."
    )
    return Measure("New faces", how, each(take), needs=(DRAWN,))


def _plain(drawn: Mapping[str, Any], embedder: str) -> str:
    left = drawn["generators"]["data"]["frechet"][embedder]
    return "-" if left is None else f"{left:.2f}"


def attribute_error(published: Numbers | None = None) -> Measure:
    def take(found: Found) -> Iterator[Row]:
        errors, images = found.readers[DRAWN]["attribute_error"], found.readers[DRAWN]["images"]
        note = {
            "signs": "the judge answers with -1 to 1 itself, clipped",
            "logits": "a judge of probabilities p stands in for one regressed to -1 and 1, as 2 p - 1",
        }[found.judge["outputs"]]
        for name, value in errors.items():
            yield Row(name, value, images, note=note)
        yield Row("mean", float(np.mean(list(errors.values()))), images)

    how = "Mean squared difference between what the judge says of new faces and the attributes asked for, both -1 to 1."
    return Measure("Attribute error", how, each(take), published or {}, needs=(DRAWN,), chart="bars", of_edits=False)


def variety() -> Measure:
    def take(found: Found) -> Iterator[Row]:
        reader = found.readers[VARIETY]
        for name, score in (("generated", reader.generated), ("reconstructed", reader.reconstructed)):
            value, deviation = score.score()
            note = f"{reader.embedder.about}; between the parts {name} ones vary by {deviation:.2f}"
            yield Row(name, value, score.images, note=note)

    how = (
        "exp of the mean KL divergence of Inception's classes, over 10 parts; new faces, and reconstructions of faces."
    )
    return Measure("Inception Score", how, each(take), needs=(VARIETY, DRAWN), digits=2)


def elsewhere(title: str, how: str, published: Numbers, reason: str, digits: int = 3) -> Measure:
    """Of the paper alone: another command, or people, measure it."""

    def take(founds: Sequence[Found]) -> Iterable[Row]:
        raise UserError(reason)

    return Measure(title, how, take, published, digits=digits)
