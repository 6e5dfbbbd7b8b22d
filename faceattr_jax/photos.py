"""Pictures from files through an editor and back to files."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from faceattr_jax import files, grids
from faceattr_jax.attributes import edited, parse
from faceattr_jax.data import crops
from faceattr_jax.data.folder import FolderSource, decoders, read_pictures
from faceattr_jax.data.images import read_image, to_uint8
from faceattr_jax.data.source import Table, open_source
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError


def edit_files(
    editor: Editor, paths: Sequence[Path], edits: str, out: Path, *, strength: float = 1.0, source: str = ""
) -> list[Path]:
    """Edit each picture and write ``out/NAME.edited.png`` at the model's size; returns what was written.

    edits: as ``Eyeglasses=1,Smiling=0``. source: the attributes that the faces have, where the model misreads them; all
    of them, where it cannot read any.
    All pictures are read before any is written. Raises `UserError` for a bad picture or attribute, and rather than
    overwrite a file.
    """
    wanted = parse(edits, editor.attributes)
    images = np.stack([_cropped(editor, path) for path in paths])
    targets = list(_targets(paths, out, "edited"))
    results = editor.edit(images, wanted, strength=strength, source=_source(editor, images, source))
    for target, image in zip(targets, np.asarray(to_uint8(results)), strict=True):
        grids.write_png(target, image)
    return targets


def slide_files(
    editor: Editor,
    paths: Sequence[Path],
    attribute: str,
    out: Path,
    *,
    strengths: Sequence[float] = (),
    source: str = "",
) -> list[Path]:
    """Write ``out/NAME.slide.png`` for each picture: the input, then one attribute at each strength.

    strengths: as in `Editor.slide`; none for `Editor.slider`.
    """
    strengths = strengths or editor.slider
    images = np.stack([_cropped(editor, path) for path in paths])
    targets = list(_targets(paths, out, "slide"))
    slid = editor.slide(images, attribute, strengths, source=_source(editor, images, source))
    pictures = np.concatenate([images[:, None], np.moveaxis(np.asarray(to_uint8(slid)), 0, 1)], axis=1)
    names = ["Input", *(f"{strength:g}" for strength in strengths)]
    for target, row in zip(targets, pictures, strict=True):
        grids.save_grid(target, row[None], names, [attribute.replace("_", " ")])
    return targets


class Labelled(NamedTuple):
    """What `label_folder` did. rows: how many pictures have one. problems: a sentence for each that has none."""

    rows: int
    problems: list[str]


def label_folder(
    editor: Editor, folder: Path, out: Path, *, crop: str = "", probabilities: Path | None = None, batch_size: int = 256
) -> Labelled:
    """Write what a classifier reads off every picture below `folder` to `out`, a CSV that a source takes as labels.csv.

    Its columns: ``file``, relative to the folder; ``identity``, where there is a folder for each person; and each
    attribute, 1 where its probability is above 1/2, else 0. probabilities: another CSV, of these to four digits.
    crop: a preset instead of the model's own. Raises `UserError` where there is no picture, and rather than overwrite
    a file. A picture that cannot be read or cropped gets no row; where none can nothing is written.
    """
    for target in filter(None, (out, probabilities)):
        if target.exists() or out == probabilities:
            raise UserError(f"{target}: this file would be overwritten; move it, or give another name.")
    if not folder.is_dir():
        raise UserError(f"there is no folder '{folder}'; give one with pictures")
    table = read_pictures(folder).table
    source = FolderSource(folder, table, editor.size, crop or editor.crop)

    def look(index: int) -> np.ndarray | str:
        try:
            return source.image(index)
        except UserError as error:
            return str(error)

    problems, good, found = list[str](), list[int](), list[np.ndarray]()
    bar = tqdm(range(0, len(table), batch_size), "labelling", unit="batch", delay=1, leave=False)
    for start in bar:
        seen = list(decoders().map(look, range(start, min(start + batch_size, len(table)))))
        problems += [what for what in seen if isinstance(what, str)]
        images = [what for what in seen if not isinstance(what, str)]
        good += [start + i for i, what in enumerate(seen) if not isinstance(what, str)]
        if images:  # the last batch is filled up: one shape is one compilation
            filled = np.stack(images + images[-1:] * (min(batch_size, len(table)) - len(images)))
            found.append(np.asarray(editor.classify(filled))[: len(images)])
    if good:
        read = np.concatenate(found)
        if probabilities:
            files.write(probabilities, _csv(editor, table, good, [[f"{p:.4f}" for p in row] for row in read.tolist()]))
        files.write(out, _csv(editor, table, good, (read > 0.5).astype(int).tolist()))
    return Labelled(len(good), problems)


def _csv(editor: Editor, table: Table, rows: Sequence[int], values: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    identity = {} if table.identity is None else {"identity": table.identity}
    writer.writerow(["file", *identity, *editor.attributes])
    for i, row in zip(rows, values, strict=True):
        writer.writerow([table.names[i], *(column[i] for column in identity.values()), *row])
    return text.getvalue()


def generate_file(editor: Editor, edits: str, out: Path, *, count: int, seed: int = 0, data: str = "") -> None:
    """Write a sheet of `count` new faces, as square as may be, to `out`.

    edits: as ``Male=1,Smiling=1``, or "". The attributes that it does not set are those of people of the training
    split, drawn from the labels of the run's data or of `data`; where all are set no data is needed. Raises
    `UserError` for a bad attribute or count, and rather than overwrite a file.
    """
    wanted = parse(edits, editor.attributes) if edits else {}
    if count < 1:
        raise UserError(f"--n={count}: ask for 1 face or more.")
    if out.exists():
        raise UserError(f"{out}: this file would be overwritten; move it, or give another --out.")
    labels = np.zeros((count, len(editor.attributes)), np.float32)
    if len(wanted) < len(editor.attributes):
        table = open_source(data or editor.config.data.path, size=editor.size, crop=editor.crop).table
        people = np.random.default_rng(seed).choice(table.indices("train"), count)
        labels = table.select(editor.attributes)[people]
    faces = np.asarray(to_uint8(editor.generate(edited(labels, wanted, editor.attributes), seed=seed)))
    columns = math.ceil(count**0.5)
    rows = math.ceil(count / columns)
    sheet = np.full((rows * columns, *faces.shape[1:]), 255, np.uint8)
    sheet[:count] = faces
    grids.save_grid(out, sheet.reshape(rows, columns, *faces.shape[1:]))


def swap_files(
    editor: Editor,
    path: Path,
    references: Sequence[Path],
    attributes: str,
    out: Path,
    *,
    linear: int = 0,
    matrix: int = 0,
) -> list[Path]:
    """Write ``out/NAME.swapped.png``: the face in `path` with attributes as the references have them.

    attributes: as ``Eyeglasses,Bangs``, all from one reference or each from its own. linear: instead, that many steps
    from the face's own value to the reference's, ``out/NAME.linear.png``; matrix: so many by so many steps between
    several references or attributes (`Editor.matrix`), ``out/NAME.matrix.png``. Returns what was written. Raises
    `UserError` for a bad picture or attribute, and rather than overwrite a file.
    """
    count = matrix or linear
    if count == 1 or count < 0:
        raise UserError(f"{count} steps lead nowhere; give 2 or more.")
    names = [name.strip() for name in attributes.split(",")]
    image = _cropped(editor, path)
    others = np.stack([_cropped(editor, reference) for reference in references])
    what = "matrix" if matrix else "linear" if linear else "swapped"
    targets = list(_targets([path], out, what))
    if what == "swapped":
        grids.write_png(targets[0], np.asarray(to_uint8(editor.swap(image, others, names))))
        return targets
    steps = np.linspace(0.0, 1.0, count).tolist()
    if what == "linear":
        cells = editor.linear(image, others, names, steps)[None]
        row = np.concatenate([image[None], np.asarray(to_uint8(cells))[0], others])[None]
        captions = ["Input", *(f"{step:.2g}" for step in steps), *("Reference" for _ in others)]
        grids.save_grid(targets[0], row, captions, [" ".join(names)])
    else:
        table = np.asarray(to_uint8(editor.matrix(image, others, names, steps)))
        grids.save_grid(targets[0], table, [f"{step:.2g}" for step in steps], [f"{step:.2g}" for step in steps])
    return targets


def _cropped(editor: Editor, path: Path) -> np.ndarray:
    image = read_image(path)
    # A picture that is not an aligned CelebA one has no place for the preset's box: the largest centred square is.
    name = editor.crop if image.size == crops.ALIGNED else "center"
    return crops.crop(image, name, editor.size)


def _source(editor: Editor, images: np.ndarray, source: str) -> np.ndarray | None:
    if not source:
        return None
    given = parse(source, editor.attributes)
    if "classify" in editor.method.capabilities:
        read = np.array(editor.classify(images) > 0.5, np.float32)
    elif missing := [name for name in editor.attributes if name not in given]:
        raise UserError(
            f"--source={source}: this {editor.config.method} model cannot read attributes off a face, so give all of "
            f"them; {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing."
        )
    else:
        read = np.zeros((len(images), len(given)), np.float32)
    for name, value in given.items():
        read[:, editor.attributes.index(name)] = value
    return read


def _targets(paths: Sequence[Path], out: Path, what: str) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        target = out / f"{path.stem}.{what}.png"
        if target.exists() or target in seen:
            raise UserError(f"{target}: this file would be overwritten; move it, or give another --out.")
        seen.add(target)
        yield target
