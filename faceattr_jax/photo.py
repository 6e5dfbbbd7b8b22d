"""A photo as its file has it, and an edit added to the place of its face.

A photo keeps its size, mode, colour profile and orientation. What an edit changes is added to it: finer detail than a
model sees stays, and outside the face's crop no pixel changes.
"""

import dataclasses
import io
import os
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from faceattr_jax.data import align, crops
from faceattr_jax.data.images import decode
from faceattr_jax.errors import UserError

NEAR = 1
"""Standard deviation, in pixels of the model, of the bell over which an edit is weighed against what was there."""

FIRM = 32
"""How much an edit's power counts in that, against what the reconstruction lacks."""

FALLOFF = 1 / 16
"""The part of a crop's side in which an edit fades out, to nothing at its border."""

ROWS = 256
"""Rows of a photo that are worked on at once, which bounds the memory that a large one takes."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""What red, green and blue are to grey, for Pillow and JPEG."""

MODES = ("RGB", "RGBA", "L", "LA", "I;16", "CMYK")
"""Modes of Pillow to which an edit can be added. Others become RGB: a palette has no room for new colours."""

FORMATS: dict[str, tuple[str, tuple[str, ...], dict[str, object]]] = {
    ".png": ("PNG", ("RGB", "RGBA", "L", "LA", "I;16"), {"compress_level": 3}),
    ".jpg": ("JPEG", ("RGB", "L", "CMYK"), {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", ("RGB", "L", "CMYK"), {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", ("RGB", "RGBA"), {"lossless": True, "exact": True}),
    ".tif": ("TIFF", MODES, {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", MODES, {"compression": "tiff_lzw"}),
}
"""By suffix: Pillow's format, the modes it holds, and how it is written: without loss, JPEG as well as may be."""

_PICTURES = (700, 34377)
"""EXIF's places for what programs note (XMP, Photoshop), previews of the photo included."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# All others undo themselves.
_BACK = _TURNS | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


@dataclasses.dataclass(frozen=True)
class Photo:
    """A picture, upright and in one of MODES, and what its file says besides.

    orientation: as EXIF counts the ways in which the file stores it, 1 to 8. profile: of its colours (ICC).
    """

    image: Image.Image
    orientation: int
    exif: Image.Exif
    profile: bytes | None

    @staticmethod
    def read(file: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> "Photo":
        """Raises UserError as `read_image` does, and for floating-point pixels, of which nobody knows the white."""

        def parts(image: Image.Image) -> Photo:
            image.load()  # a PNG may have its EXIF behind the pixels
            if image.mode == "F":
                raise UserError(f"'{name or file}' has floating-point pixels; give it with 8 or 16 bits.")
            exif = image.getexif()
            orientation = exif.get(_ORIENTATION, 1)
            known = orientation in _TURNS
            profile = image.info.get("icc_profile")
            stored = _editable(image)
            upright = stored.transpose(_TURNS[orientation]) if known else stored.copy()
            upright.info.clear()  # else Pillow would write comments from it
            return Photo(upright, orientation if known else 1, exif, profile)

        return decode(file, parts, name)

    @property
    def suffix(self) -> str:
        """Of a file that holds its every bit: PNG where that is possible."""
        return ".png" if self.image.mode in FORMATS[".png"][1] else ".tif"

    def encode(self, suffix: str, *, keep_exif: bool = False) -> bytes:
        """The file, stored as the original was, of the format that `suffix` (of FORMATS) names.

        Without `keep_exif` nothing is left of EXIF but the orientation: time, place and camera are nobody's business.
        What may hold a thumbnail, which would show the face as it was, is never kept: neither are maker notes and XMP.
        Raises UserError for a mode that the format lacks.
        """
        name, modes, options = FORMATS[suffix]
        mode = self.image.mode
        if mode not in modes:
            raise UserError(
                f"{name} has no pictures of mode {mode}, which this photo is; write a '{self.suffix}' file."
            )
        exif = Image.Exif()
        if keep_exif:
            exif.load(self.exif.tobytes())
            for tag in (_ORIENTATION, *_PICTURES):
                exif.pop(tag, None)
            if ExifTags.IFD.Exif in exif:
                exif.get_ifd(ExifTags.IFD.Exif).pop(ExifTags.IFD.MakerNote, None)
        if self.orientation != 1:
            exif[_ORIENTATION] = self.orientation
        stored = self.image.transpose(_BACK[self.orientation]) if self.orientation != 1 else self.image
        file = io.BytesIO()
        stored.save(file, name, exif=exif, icc_profile=self.profile, **options)
        return file.getvalue()


def _editable(image: Image.Image) -> Image.Image:
    """`image` in one of MODES: its own, or the nearest that holds all of its colours."""
    if image.mode.startswith("I"):  # other byte orders and 32 bits; of its transparency Pillow knows nothing
        image = Image.fromarray(np.asarray(image).clip(0, 65535).astype(np.uint16))
    if image.has_transparency_data and image.mode not in ("RGBA", "LA"):
        return image.convert("LA" if image.mode == "L" else "RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in MODES else image.convert("RGB")


def difference(seen: np.ndarray, plain: np.ndarray, edited: np.ndarray, crop: str) -> np.ndarray:
    """What an edit adds to the photo, for `paste`: float32 (S, S, 3) in grey levels.

    seen, plain, edited: the face as the photo shows it to the model, as that reconstructs it, and edited: (S, S, 3) in
    [-1, 1], cut by preset `crop` (`crops.placement`). It is the edit less the unedited reconstruction, so that nothing
    is added where nothing is edited, and the model's failings stay out of the photo's surroundings. What the
    reconstruction lacks, such as the line of closed lips, would show through an edit, or leave a face half its own: it
    goes as far as the edit is the stronger, of a pixel by its neighbours, of the face by all of it. Strength 0 adds
    nothing. Fine contrasts are raised by what enlarging takes of them.
    """
    seen, plain, edited = (127.5 * image.clip(-1, 1).astype(np.float32) for image in (seen, plain, edited))
    change, lacking = edited - plain, seen - plain
    strong, weak = ((each**2).mean(axis=-1) for each in (change, lacking))
    face = _nearby(crops.placed_region(crop, len(seen)).astype(np.float32))
    nearby = _share(_nearby(strong), _nearby(weak))
    inside = _share(np.average(strong, weights=face), np.average(weak, weights=face))
    change -= np.maximum(nearby, face * inside)[..., None] * lacking
    return change + (change - _seen_again(change))


def _share(strong: np.ndarray, weak: np.ndarray) -> np.ndarray:
    """The part of what a reconstruction lacks that goes with an edit, from the power of both, 0 to 1."""
    return FIRM * strong / np.maximum(FIRM * strong + weak, 1e-6)


def _seen_again(difference: np.ndarray) -> np.ndarray:
    """What is left of a difference that is enlarged for a photo, of which the face is cut again."""
    size, fine = len(difference), 4 * len(difference)
    channels = [Image.fromarray(channel) for channel in np.moveaxis(difference, 2, 0)]
    bicubic = Image.Resampling.BICUBIC
    again = [channel.resize((fine, fine), bicubic).resize((size, size), bicubic) for channel in channels]
    return np.stack([np.asarray(channel) for channel in again], axis=-1)


def _nearby(values: np.ndarray) -> np.ndarray:
    """The mean over a pixel's surroundings, (S, S)."""
    reach = 3 * NEAR
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1, dtype=np.float32) / NEAR) ** 2)
    for _ in range(2):
        padded = np.pad(values, ((reach, reach), (0, 0)), mode="edge")
        values = (np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0) @ (bell / bell.sum())).T
    return values


def paste(image: Image.Image, difference: np.ndarray, matrix: np.ndarray) -> None:
    """Add `difference`, float32 (S, S, 3) in grey levels, to the face that `matrix` (`crops.placement`) brings there.

    image: a picture in one of MODES, changed in place. Towards the crop's border the difference fades out (`mask`).
    """
    size = len(difference)
    left, top, right, bottom = align.bounds(matrix, size)
    left, top, right, bottom = max(0, left), max(0, top), min(image.width, right), min(image.height, bottom)
    channels = [Image.fromarray(channel) for channel in np.moveaxis(difference.astype(np.float32), 2, 0)]
    for start in range(top, bottom, ROWS):
        width, height = right - left, min(ROWS, bottom - start)
        if width <= 0:
            return
        here = matrix @ np.array([[1, 0, left], [0, 1, start], [0, 0, 1.0]])
        back = align.inverse(here)
        added = np.stack([np.asarray(align.warp(channel, back, (width, height))) for channel in channels], axis=-1)
        box = (left, start, right, start + height)
        image.paste(_added(image.crop(box), added * mask(here, size, width, height)[..., None]), box)


def mask(matrix: np.ndarray, size: int, width: int, height: int) -> np.ndarray:
    """How much of an edit is added to each pixel: float32 (height, width), 1 inside the crop and 0 outside.

    matrix: brings a picture of `width` and `height` to the crop of `size` pixels. From the border inwards, over
    FALLOFF of the side, it rises as 3t² - 2t³ does, without a step or an edge.
    """
    x, y = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    result = np.ones((height, width), np.float32)
    for a, b, c in matrix.astype(np.float32) / np.float32(size):
        place = a * x[None] + b * y[:, None] + c
        t = np.clip(np.minimum(place, 1 - place) / np.float32(FALLOFF), 0, 1)
        result *= t * t * (3 - 2 * t)
    return result


def _added(image: Image.Image, difference: np.ndarray) -> Image.Image:
    """The picture and a difference (H, W, 3) in grey levels of RGB. Where that rounds to 0 nothing changes."""
    values, mode = np.asarray(image), image.mode
    if mode == "I;16":
        result = (values + difference @ LUMA * 257).round().clip(0, 65535).astype(np.uint16)
    elif mode == "CMYK":
        result = _added_cmyk(values, difference)
    else:
        coloured = values if values.ndim == 3 else values[..., None]
        first = 3 if mode.startswith("RGB") else 1
        change = difference if first == 3 else (difference @ LUMA)[..., None]
        result = coloured.copy()
        result[..., :first] = (coloured[..., :first] + change).round().clip(0, 255).astype(np.uint8)
    return Image.frombytes(mode, image.size, result.tobytes())


def _added_cmyk(values: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """As Pillow sees CMYK: R = (255 - C) (255 - K) / 255. Black is kept, unless a pixel gets too light for it."""
    ink = values.astype(np.float32)
    light = 255 - ink[..., 3:]
    wanted = ((255 - ink[..., :3]) * light / 255 + difference).clip(0, 255)
    light = np.maximum(light, wanted.max(axis=-1, keepdims=True))
    colours = 255 - 255 * wanted / np.maximum(light, 1)
    result = np.concatenate([colours, 255 - light], axis=-1).round().clip(0, 255).astype(np.uint8)
    return np.where(np.abs(difference).max(axis=-1, keepdims=True) < 0.5, values, result)
