"""What the page of `faceattr demo` shows, made without it: files, faces and numbers in, pictures out.

A photo that is dropped is decoded to find its faces, and let go. What is kept of it (`Dropped`) is the file, a copy to
look at and each face close up: 40 MB at most, however large it is. An edit is of one cut-out face, which the model
draws (`Edit`), and what it changes is added to the photo as `faceattr edit` does it: to the copies at once, so that
sliders stay lively (`compared`), and at the photo's own size when somebody asks for that (`finished`), which takes
seconds for a large one.

A drawn face, which is nothing but a face, is shown as the model draws it.
"""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import numpy as np
from jax.typing import ArrayLike
from PIL import Image

from faceattr_jax import photo, photos
from faceattr_jax.attributes import CONFLICTS, parse
from faceattr_jax.data import align
from faceattr_jax.data.images import rgb, to_float, to_uint8
from faceattr_jax.data.synthetic import PER_PERSON, SIZES, SyntheticSource
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.photo import FORMATS, Photo
from faceattr_jax.pretrained.detector import yunet

MAX_PIXELS = 50_000_000
"""Larger photos are refused before they are decoded."""

SIDE = 1024
"""Longest side, in pixels, of the copy of a photo that is kept to look at."""

CLOSE = 384
"""Side of the close-ups of its faces."""

FACES = 20
"""Of how many of a photo's faces, the largest, people may choose one."""

DRAWN = 8
"""Drawn faces to choose from at a time."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Hair": (
        "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Receding_Hairline", "Straight_Hair",
        "Wavy_Hair",
    ),
    "Beard": ("5_o_Clock_Shadow", "Goatee", "Mustache", "No_Beard", "Sideburns"),
    "Eyes, nose and mouth": (
        "Arched_Eyebrows", "Bags_Under_Eyes", "Big_Lips", "Big_Nose", "Bushy_Eyebrows", "Mouth_Slightly_Open",
        "Narrow_Eyes", "Pointy_Nose", "Smiling",
    ),
    "Skin and shape": ("Chubby", "Double_Chin", "High_Cheekbones", "Oval_Face", "Pale_Skin", "Rosy_Cheeks"),
    "Worn": (
        "Eyeglasses", "Heavy_Makeup", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace",
        "Wearing_Necktie",
    ),
}  # fmt: skip
"""Attributes that lie together on the page; all others come last."""

Edit = tuple[np.ndarray, np.ndarray]
"""An edited face as the model draws it, in [-1, 1], and what that adds to the photo, in grey levels: (S, S, 3) each."""


# Pictures to edit.


@dataclasses.dataclass(frozen=True)
class Dropped:
    """What is kept of a photo.

    size: its width and height, upright. small: all of it, with a side of at most SIDE pixels. places: for each face,
    the largest first, the similarity (2, 3) that brings the photo to the cut-out face. near: the faces, (CLOSE, CLOSE).
    """

    file: bytes
    size: tuple[int, int]
    small: Image.Image
    places: Sequence[np.ndarray]
    near: Sequence[Image.Image]


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What a person has chosen to edit: one of the faces, uint8 (S, S, 3), which are a photo's or drawn.

    name: of files that are made of it.
    """

    faces: Sequence[np.ndarray]
    at: int = 0
    name: str = "face"
    photo: Dropped | None = None

    @property
    def face(self) -> np.ndarray:
        """The chosen one."""
        return self.faces[self.at]


def dropped(editor: Editor, file: bytes, name: str = "photo") -> tuple[Chosen, str]:
    """A photo's largest face, to begin with, and ""; FACES of its faces, at most, are there to choose from.

    Where none is seen, or the extra that looks for faces is not there: the largest centred square; and why. Raises
    `UserError` for a file that is no photo, or has more than MAX_PIXELS.
    """
    whole, reason = _read(file), ""
    view = rgb(whole.image)
    try:
        cuts = photos.faces_in(editor, view, "the photo", _detector)[:FACES]
    except UserError as error:
        cuts, reason = [_middle(editor, view)], f"{str(error).rstrip('.')}."
    scale = min(1, SIDE / max(view.size))
    width, height = (max(1, round(scale * side)) for side in view.size)
    small = view.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    closer = CLOSE / editor.size
    near = [align.cut(view, closer * cut.place, CLOSE, Image.Resampling.BICUBIC) for cut in cuts]
    copies = [small, *map(Image.fromarray, near)]
    if whole.profile and whole.image.mode.startswith("RGB"):
        for copy in copies:
            copy.info["icc_profile"] = whole.profile
    kept = Dropped(file, view.size, copies[0], [cut.place for cut in cuts], copies[1:])
    return Chosen([cut.image for cut in cuts], name=name, photo=kept), reason


def _read(file: bytes) -> Photo:
    pixels = 0
    with contextlib.suppress(Exception), Image.open(io.BytesIO(file)) as image:  # `Photo.read` says what is wrong
        pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise UserError(f"the photo has {pixels:,} pixels; this page takes up to {MAX_PIXELS:,}, so scale it down.")
    return Photo.read(io.BytesIO(file), "the photo")


_detector = functools.cache(yunet)


def _middle(editor: Editor, view: Image.Image) -> photos.Cut:
    side = min(view.size)
    left, top = ((length - side) // 2 for length in view.size)
    place = editor.size / side * np.array([[1.0, 0, -left], [0, 1, -top]])
    return photos.Cut(photos.cut_aligned(view, editor), place)


def drawn_faces(editor: Editor, page: int) -> list[np.ndarray]:
    """DRAWN faces of as many drawn people; every page from 0 on has others."""
    size = min(max(editor.size, SIZES[0]), SIZES[1])
    people = np.arange(page * DRAWN, (page + 1) * DRAWN) % (len(_drawer(size).table) // PER_PERSON)
    return [photos.cut_aligned(Image.fromarray(image), editor) for image in _drawer(size).images(people * PER_PERSON)]


@lru_cache
def _drawer(size: int) -> SyntheticSource:
    return SyntheticSource(4096, size=size)


# What the model does.


def owned(editor: Editor, face: np.ndarray) -> list[str]:
    """The attributes that a face has, as far as the model can tell."""
    if "classify" in editor.method.capabilities:
        read = np.asarray(editor.classify(face)) > 0.5
        return [name for name, has in zip(editor.attributes, read, strict=True) if has]
    # One that edits in one direction only is made for faces that lie at the other end.
    return [name for name, value in editor.method.towards.items() if not value]


def inverts(editor: Editor, own: Collection[str], name: str) -> bool:
    """Whether the model can invert that attribute of a face that has `own`."""
    value = int(name not in own)
    return editor.method.towards.get(name, value) == value


def changed(editor: Editor, face: np.ndarray, own: Collection[str], strengths: Mapping[str, float]) -> Edit:
    """The face, with each attribute of `strengths` inverted so strongly, if above 0.

    own: the attributes that it has. What an added attribute rules out goes as strongly as that one comes. Raises
    `UserError` for two added attributes that exclude each other.
    """
    edits = {name: int(name not in own) for name, strength in strengths.items() if strength > 0}
    if edits:
        parse(",".join(f"{name}={value}" for name, value in edits.items()), editor.attributes)

    def strength(name: str) -> float:
        causes = [name] if name in edits else [by for by in edits if edits[by] and name in CONFLICTS.get(by, ())]
        return max((strengths[by] for by in causes), default=1.0)

    source = np.isin(editor.attributes, list(own))
    each = np.array([strength(name) for name in editor.attributes])
    plain, edited = (
        np.asarray(editor.edit(face, edits, strength=s, source=source)) for s in (np.zeros_like(each), each)
    )
    return edited, photo.difference(to_float(face), plain, edited, editor.crop)


def swapped(editor: Editor, face: np.ndarray, reference: np.ndarray, names: Sequence[str], step: float) -> Edit:
    """The face, with the named attributes on the way, from 0 to 1, to how the reference wears them."""
    if not names:
        raise UserError("choose at least one attribute to take over.")
    plain, edited = np.asarray(editor.linear(face, reference, names, [0.0, step]))
    return edited, photo.difference(to_float(face), plain, edited, editor.crop)


def generated(editor: Editor, names: Sequence[str], count: int, seed: int) -> list[np.ndarray]:
    """`count` new faces that have the named attributes and no others: uint8 (S, S, 3)."""
    if names:
        parse(",".join(f"{name}=1" for name in names), editor.attributes)
    labels = np.tile(np.isin(editor.attributes, list(names)), (count, 1))
    return list(eight_bit(editor.generate(labels, seed=seed)))


# What is shown of it.


def compared(chosen: Chosen, edit: Edit, *, whole: bool) -> tuple[Image.Image, Image.Image]:
    """Before and after: of the whole photo or of its face, by the copies; of a drawn face, as the model draws it."""
    if chosen.photo is None:
        return enlarged(chosen.face), enlarged(eight_bit(edit[0]))
    if whole:
        before, size = chosen.photo.small, chosen.photo.size
        larger = np.diag([size[0] / before.width, size[1] / before.height, 1.0])
        place = chosen.photo.places[chosen.at] @ larger
    else:
        before, place = chosen.photo.near[chosen.at], len(chosen.face) / CLOSE * np.eye(2, 3)
    after = before.copy()
    photo.paste(after, edit[1], place)
    return before, after


def beside(chosen: Chosen, *, whole: bool) -> float:
    """Where the line between before and after leaves the face to the side of after, in percent of the width."""
    if chosen.photo is None or not whole:
        return 12.0
    left, *_ = align.bounds(chosen.photo.places[chosen.at], len(chosen.face))
    return float(np.clip(100 * left / chosen.photo.size[0], 4, 96))


def finished(chosen: Chosen, edit: Edit) -> bytes:
    """The whole photo with the edit, as a PNG of its own size and, where PNG has that, mode; upright, without EXIF."""
    assert chosen.photo is not None
    whole = _read(chosen.photo.file)
    if whole.image.mode not in FORMATS[".png"][1]:  # nor does its profile fit
        whole = dataclasses.replace(whole, image=rgb(whole.image), profile=None)
    photo.paste(whole.image, edit[1], chosen.photo.places[chosen.at])
    return dataclasses.replace(whole, orientation=1).encode(".png")


def masked(editor: Editor, face: np.ndarray) -> np.ndarray:
    """The face, tinted where the model would change it: uint8."""
    tint = 0.6 * np.asarray(editor.mask(face))
    return np.rint((1 - tint) * face + tint * np.array([255, 0, 90])).astype(np.uint8)


def enlarged(picture: np.ndarray, side: int = 512) -> Image.Image:
    """A picture to look at: one with shorter sides than `side` is magnified to it."""
    image = Image.fromarray(picture)
    scale = max(1.0, side / max(image.size))
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def groups(attributes: Sequence[str]) -> dict[str, list[str]]:
    """The attributes under the headings of GROUPS, those that no heading has under a last one; none is empty."""
    found = {title: [name for name in attributes if name in names] for title, names in GROUPS.items()}
    placed = {name for names in found.values() for name in names}
    found["The whole face" if placed else "Attributes"] = [name for name in attributes if name not in placed]
    return {title: names for title, names in found.items() if names}


def eight_bit(images: ArrayLike) -> np.ndarray:
    """[-1, 1] to uint8, in NumPy."""
    return to_uint8(np.asarray(images))
