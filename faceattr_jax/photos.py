"""Pictures from files through an editor and back to files."""

import csv
import dataclasses
import functools
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from faceattr_jax import files, grids, photo
from faceattr_jax.attributes import edited, parse
from faceattr_jax.data import align, crops
from faceattr_jax.data.folder import FolderSource, decoders, read_pictures
from faceattr_jax.data.images import read_image, rgb, to_float, to_uint8
from faceattr_jax.data.source import Table, open_source
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.photo import Photo
from faceattr_jax.pretrained.detector import Detector, Face, yunet


@dataclasses.dataclass(frozen=True)
class Change:
    """An edit of faces, whichever picture they are in.

    edits: as ``Eyeglasses=1,Smiling=0``. source: the attributes that the faces have, where they are misread. judge: a
    classifier that reads the others, instead of the model itself. reference: a face, cut as the model's, from which the
    attributes that `edits` names are taken over, for a model that swaps; then nothing else may be given.
    Raises `UserError` where something else is, and for a bad attribute.
    """

    editor: Editor
    edits: str
    strength: float = 1.0
    source: str = ""
    judge: Editor | None = None
    reference: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.reference is None:  # a misspelt attribute is said before anybody looks for faces
            parse(self.edits, self.editor.attributes)
            return
        given = {"--strength": self.strength != 1, "--source": self.source, "--judge": self.judge}
        given |= {item: item.partition("=")[2].strip() not in ("", "1") for item in self.edits.split(",")}
        if idle := [name for name, there in given.items() if there]:
            raise UserError(f"--reference gives attributes as that face has them; leave out {', '.join(idle)}.")

    def __call__(self, look: Callable[[Editor], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """A face unedited, as the model reconstructs it, and edited: (S, S, 3) float32 in [-1, 1].

        look: gives the face cut for a model, uint8. Raises `UserError` for a bad attribute.
        """
        editor, image = self.editor, look(self.editor)
        if self.reference is not None:
            names = [item.partition("=")[0].strip() for item in self.edits.split(",")]
            return np.asarray(editor.reconstruct(image)), np.asarray(editor.swap(image, self.reference, names))
        wanted = parse(self.edits, editor.attributes)
        judge = (self.judge, look(self.judge)[None]) if self.judge else None
        own = _source(editor, image[None], self.source, judge)
        plain, edited_ = (editor.edit(image, wanted, strength=s, source=own) for s in (0.0, self.strength))
        return np.asarray(plain), np.asarray(edited_)


def edit_photo(change: Change, picture: Image.Image, faces: Sequence[np.ndarray]) -> Image.Image:
    """A picture, in one of `photo.MODES`, with the faces that have these landmarks (5, 2) changed.

    Added to it is what the edit changes (`photo.difference`); strength 0 is therefore the picture itself.
    """
    view, result = rgb(picture), picture.copy()
    for landmarks in faces:
        look = functools.partial(_cut, view, landmarks)
        place = crops.placement(change.editor.crop, change.editor.size, landmarks)
        added = photo.difference(to_float(look(change.editor)), *change(look), change.editor.crop)
        photo.paste(result, added, place)
    return result


def edit_files(
    change: Change,
    paths: Sequence[Path],
    out: Path,
    *,
    face: int | Literal["largest", "all"] = "largest",
    landmarks: Sequence[float] = (),
    aligned: bool = False,
    strip: bool = False,
    keep_exif: bool = False,
    detector: Callable[[], Detector] = yunet,
) -> list[Path]:
    """Edit faces in photos and write ``out/NAME.edited.png``, of the photo's size and mode; returns what was written.

    out: a folder, or for one photo a file with a suffix of `photo.FORMATS`. face: which one of a photo's, counted from
    the left from 1. landmarks: x and y of five, instead of looking for faces. aligned: the pictures are nothing but a
    face, and so is the result, of the model's size; an aligned CelebA picture always is. strip: write
    ``out/NAME.strip.png``, too, with the faces before and after. keep_exif: as in `Photo.encode`.
    Nothing is written before all is edited. Raises `UserError` for a bad picture, attribute or face, and rather than
    overwrite a file.
    """
    named, by_hand = out.suffix.lower() in photo.FORMATS, len(landmarks) > 0
    if not named and out.suffix.lower() in (*Image.registered_extensions(), ".heic", ".heif"):
        raise UserError(f"--out={out}: {out.suffix} files are not written, but {', '.join(photo.FORMATS)} ones are.")
    if len(paths) > 1 and (named or by_hand):
        what = f"--out={out} is one file" if named else "--landmarks are of one picture"
        raise UserError(f"{what}, and there are {len(paths)} pictures; edit them one by one.")
    find = functools.cache(detector)
    contents: dict[Path, bytes] = {}
    for path in paths:
        before = Photo.read(path)
        whole = not by_hand and (aligned or before.image.size == crops.ALIGNED)
        target = out if named else out / f"{path.stem}.edited{'.png' if whole else before.suffix}"
        sheet = target.parent / f"{path.stem}.strip.png"
        files.check_new(target, *[sheet] * strip, besides=contents)
        view = rgb(before.image)
        if whole:
            image = np.asarray(to_uint8(change(functools.partial(cut_aligned, view))[1]))
            after = Photo(Image.fromarray(image), 1, before.exif, None)
            cells = [[cut_aligned(view, change.editor), image]]
        else:
            faces = (
                [_by_hand(landmarks, view)]
                if by_hand
                else [f.landmarks for f in _choose(find()(view), face, str(path))]
            )
            after = dataclasses.replace(before, image=edit_photo(change, before.image, faces))
            cells = [[_portrait(picture, f) for picture in (view, rgb(after.image))] for f in faces if strip]
        contents[target] = after.encode(target.suffix.lower(), keep_exif=keep_exif)
        if strip:
            contents[sheet] = grids.png(grids.compose(np.array(cells), ["Before", "After"]))
    for target, content in contents.items():
        files.write(target, content)
    return list(contents)


def read_face(editor: Editor, path: Path, detector: Callable[[], Detector] = yunet) -> np.ndarray:
    """The largest face of a photo in a file, cut for the model: uint8 (S, S, 3). Raises `UserError` as `faces_in`."""
    return faces_in(editor, read_image(path), str(path), detector)[0].image


class Cut(NamedTuple):
    """A face of a photo, cut for a model: image, uint8 (S, S, 3), and the similarity (2, 3) that brings it there."""

    image: np.ndarray
    place: np.ndarray


def faces_in(editor: Editor, view: Image.Image, what: str, detector: Callable[[], Detector] = yunet) -> list[Cut]:
    """The faces of an RGB photo, the largest first; of an aligned CelebA picture its only one.

    Raises `UserError`, which names the photo as `what` does, where no face is seen.
    """
    if view.size == crops.ALIGNED:
        return [Cut(cut_aligned(view, editor), crops.placement(editor.crop, editor.size, align.SHAPE))]
    faces = sorted(detector()(view), key=_area, reverse=True)
    if not faces:
        raise UserError(f"'{what}': no face is seen well enough.")
    return [
        Cut(_cut(view, face.landmarks, editor), crops.placement(editor.crop, editor.size, face.landmarks))
        for face in faces
    ]


def _area(face: Face) -> float:
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)


def _choose(faces: Sequence[Face], which: int | Literal["largest", "all"], what: str) -> list[Face]:
    faces = sorted(faces, key=lambda found: found.box[0] + found.box[2])
    if not faces:
        raise UserError(
            f"'{what}': no face is seen well enough; --landmarks says where one is, --aligned that the picture is one."
        )
    if which == "all":
        return faces
    if which == "largest":
        return [max(faces, key=_area)]
    if not 1 <= which <= len(faces):
        seen = "1 is" if len(faces) == 1 else f"{len(faces)} are"
        raise UserError(f"'{what}': there is no face {which}; {seen} seen, and the leftmost is 1.")
    return [faces[which - 1]]


def _by_hand(numbers: Sequence[float], picture: Image.Image) -> np.ndarray:
    expected = "x,y of the left eye, right eye, nose, left and right corner of the mouth, left as seen in the picture"
    if len(numbers) != 10:
        raise UserError(f"--landmarks has {len(numbers)} numbers instead of 10: {expected}.")
    points = np.array(numbers, np.float64).reshape(5, 2)
    if not ((points >= 0) & (points < picture.size)).all():
        raise UserError(f"--landmarks lie outside the picture of {picture.width}x{picture.height} pixels: {expected}.")
    eyes, mouth = points[1] - points[0], points[3:].mean(axis=0) - points[:2].mean(axis=0)
    if eyes[0] * mouth[1] - eyes[1] * mouth[0] <= 0:
        raise UserError(f"--landmarks are those of no face, or in another order; they are {expected}.")
    return points


def _cut(view: Image.Image, landmarks: np.ndarray, editor: Editor) -> np.ndarray:
    place = crops.placement(editor.crop, editor.size, landmarks)
    return align.cut(view, place, editor.size, crops.preset(editor.crop).resample)


def _portrait(picture: Image.Image, landmarks: np.ndarray, size: int = 256) -> np.ndarray:
    """The face and what is around it, for people to look at."""
    return align.cut(picture, crops.placement("center178", size, landmarks), size, Image.Resampling.BICUBIC)


def slide_files(
    editor: Editor,
    paths: Sequence[Path],
    attribute: str,
    out: Path,
    *,
    strengths: Sequence[float] = (),
    source: str = "",
    judge: Editor | None = None,
) -> list[Path]:
    """Write ``out/NAME.slide.png`` for each picture: the input, then one attribute at each strength.

    strengths: as in `Editor.slide`; none for `Editor.slider`. source, judge: as in `Change`.
    """
    strengths = strengths or editor.slider
    images = np.stack([_cropped(editor, path) for path in paths])
    targets = _targets(paths, out, "slide")
    judged = (judge, np.stack([_cropped(judge, path) for path in paths])) if judge else None
    slid = editor.slide(images, attribute, strengths, source=_source(editor, images, source, judged))
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
    files.check_new(*filter(None, (out, probabilities)))
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
    files.check_new(out)
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
    targets = _targets([path], out, what)
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
    return cut_aligned(read_image(path), editor)


def cut_aligned(image: Image.Image, editor: Editor) -> np.ndarray:
    """An RGB picture that is nothing but a face, cut for the model: uint8 (S, S, 3).

    One that is not an aligned CelebA picture has no place for the preset's box: its largest centred square is taken.
    """
    name = editor.crop if image.size == crops.ALIGNED else "center"
    return crops.crop(image, name, editor.size)


def _source(
    editor: Editor, images: np.ndarray, source: str, judge: tuple[Editor, np.ndarray] | None = None
) -> np.ndarray | None:
    """The attributes that faces have, 0/1 (B, n), or None where the model is to read all of them itself.

    judge: a classifier, and the same faces cut for it.
    """
    if not source and judge is None:
        return None
    given = parse(source, editor.attributes) if source else {}
    if judge is None and "classify" in editor.method.capabilities:
        judge = editor, images
    readable = judge[0].attributes if judge else ()
    if missing := [name for name in editor.attributes if name not in given and name not in readable]:
        who = "this judge" if judge else f"this {editor.config.method} model"
        what = "read all of its attributes" if judge else "read attributes off a face"
        raise UserError(
            f"--source={source}: {who} cannot {what}, so give those that it cannot; {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing."
        )
    own = np.zeros((len(images), len(editor.attributes)), np.float32)
    if judge:
        read = np.asarray(judge[0].classify(judge[1]) > 0.5, np.float32)
        for i, name in enumerate(editor.attributes):
            if name in readable:
                own[:, i] = read[:, readable.index(name)]
    for name, value in given.items():
        own[:, editor.attributes.index(name)] = value
    return own


def _targets(paths: Sequence[Path], out: Path, what: str) -> list[Path]:
    targets = [out / f"{path.stem}.{what}.png" for path in paths]
    files.check_new(*targets)
    return targets
