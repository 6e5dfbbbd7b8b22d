"""Sheets of pictures, rows by columns, with a name over each column and beside each row.

Pictures are uint8 (R, C, H, W, 3): R rows of C pictures of H x W pixels.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faceattr_jax import files

CELL = 96  # small pictures are magnified, by a whole number, to at least this width: a name must fit above
GAP = 2
FONT = 12
PAPER, INK = (255, 255, 255), (0, 0, 0)


def compose(images: np.ndarray, column_names: Sequence[str] = (), row_names: Sequence[str] = ()) -> np.ndarray:
    """One picture, uint8 (H', W', 3), of uint8 images (R, C, H, W, 3) and the names of columns and rows, if any."""
    if images.ndim != 5 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"pictures must be uint8 (R, C, H, W, 3), not {images.dtype} {images.shape}")
    rows, columns, height, width, _ = images.shape
    for names, count, what in ((column_names, columns, "columns"), (row_names, rows, "rows")):
        if len(names) not in (0, count):
            raise ValueError(f"{len(names)} names for {count} {what}")
    scale = math.ceil(CELL / width)
    height, width = height * scale, width * scale
    above = [_caption(name, width) for name in column_names]
    beside = [_caption(name, CELL) for name in row_names]
    top = max((caption.height + 2 * GAP for caption in above), default=0)
    left = max((caption.width + 2 * GAP for caption in beside), default=0)

    sheet = Image.new("RGB", (left + columns * (width + GAP) - GAP, top + rows * (height + GAP) - GAP), PAPER)
    for column, caption in enumerate(above):
        x = left + column * (width + GAP) + (width - caption.width) // 2
        sheet.paste(caption, (x, top - caption.height - GAP))
    for row, caption in enumerate(beside):
        sheet.paste(caption, (left - caption.width - GAP, top + row * (height + GAP) + (height - caption.height) // 2))
    for row in range(rows):
        for column in range(columns):
            picture = images[row, column].repeat(scale, axis=0).repeat(scale, axis=1)
            sheet.paste(Image.fromarray(picture), (left + column * (width + GAP), top + row * (height + GAP)))
    return np.asarray(sheet)


def save_grid(
    path: str | Path, images: np.ndarray, column_names: Sequence[str] = (), row_names: Sequence[str] = ()
) -> None:
    """Write `compose` of the arguments as a PNG file, whole or not at all."""
    write_png(path, compose(images, column_names, row_names))


def write_png(path: str | Path, image: np.ndarray) -> None:
    """Write one uint8 (H, W, 3) picture; a reader finds the old file or the new one, never half of it."""
    files.write(path, png(image))


def png(image: np.ndarray) -> bytes:
    """The PNG file of one uint8 (H, W, 3) picture."""
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


def _caption(name: str, width: int) -> Image.Image:
    """`name`, underscores as spaces, in lines of at most `width` pixels; a longer word gets a smaller font."""
    words = name.replace("_", " ").split() or [""]
    font = ImageFont.load_default(FONT)
    longest = max(font.getlength(word) for word in words)
    if longest > width:
        font = ImageFont.load_default(max(1, int(FONT * width / longest)))
    lines = words[:1]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    text = "\n".join(lines)
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left, top, right, bottom = ruler.multiline_textbbox((0, 0), text, font, align="center", spacing=2)
    caption = Image.new("RGB", (math.ceil(right - left), math.ceil(bottom - top)), PAPER)
    ImageDraw.Draw(caption).multiline_text((-left, -top), text, INK, font, align="center", spacing=2)
    return caption
