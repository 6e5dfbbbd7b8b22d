"""Reading a picture file, and the two value ranges of an image.

Inside the package an image is float32 in [-1, 1]; at the edges (files, arrays on disk, the input pipeline) it
is uint8 in [0, 255]. The layout is height, width, channel, with any leading axes.
"""

import os
from collections.abc import Callable
from typing import BinaryIO, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from faceattr_jax.errors import UserError

Array = TypeVar("Array", np.ndarray, jax.Array)
Result = TypeVar("Result")

MIN_SIDE = 16
"""A picture with a side shorter than this (pixels) shows no face that can be edited, and is refused."""

MAX_PIXELS = 89_478_485
"""Larger pictures are refused before they are decoded (Pillow's limit against decompression bombs)."""

HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""What a HEIC file, as iPhones make them, has behind ``ftyp``, its bytes 4 to 8."""


def read_image(file: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> Image.Image:
    """Decode a picture file as the viewer of a photo sees it: upright, in RGB.

    The EXIF orientation is applied. Grayscale, 16-bit, palette and CMYK pictures are converted; transparent
    pixels are laid over white.

    Args:
      file: a path, or a binary stream.
      name: what to call the picture in an error; the path if left out.

    Returns:
      A loaded RGB picture.

    Raises UserError, naming the file, where it is missing, not a picture, damaged or truncated, has a side
    shorter than MIN_SIDE or more than MAX_PIXELS pixels.
    """
    return decode(file, lambda image: rgb(ImageOps.exif_transpose(image)), name)


def decode(
    file: str | os.PathLike[str] | BinaryIO, read: Callable[[Image.Image], Result], name: str | None = None
) -> Result:
    """What `read` makes of a picture file that is open and not decoded yet; the errors are `read_image`'s."""
    if not name:  # a path has a `name` too, without its folder
        name = str(file) if isinstance(file, str | os.PathLike) else str(getattr(file, "name", file))
    try:
        with _opened(file, name) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UserError(_too_large(name, f"{width}x{height}, "))
            if min(width, height) < MIN_SIDE:
                raise UserError(
                    f"'{name}' is {width}x{height}, too small to show a face; "
                    f"a picture has at least {MIN_SIDE} pixels per side"
                )
            return read(image)
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(_too_large(name)) from None
    except Image.UnidentifiedImageError:
        raise UserError(f"'{name}' is not a picture that can be read; give a JPEG or PNG file") from None
    # Pillow's decoders raise nearly anything on damaged bytes: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        if isinstance(error, FileNotFoundError):
            raise UserError(f"there is no picture '{name}'") from None
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"the picture '{name}' cannot be read ({error.strerror})") from None
        raise UserError(f"'{name}' cannot be decoded ({error}); the file is damaged or cut short") from error


def _opened(file: str | os.PathLike[str] | BinaryIO, name: str) -> Image.Image:
    """Pillow's, which learns to read HEIC from the first such file."""
    try:
        return Image.open(file)
    except Image.UnidentifiedImageError:
        if isinstance(file, str | os.PathLike):
            with open(file, "rb") as stream:
                start = stream.read(12)
        else:
            file.seek(0)
            start = file.read(12)
        if start[4:8] != b"ftyp" or start[8:] not in HEIC:
            raise
    try:
        import pillow_heif
    except ImportError:
        raise UserError(
            f"'{name}' is a HEIC picture, which needs pillow-heif: pip install 'faceattr_jax[heic]', or save it as JPEG"
        ) from None
    pillow_heif.register_heif_opener()
    return Image.open(file)


def _too_large(name: str, size: str = "") -> str:
    return f"'{name}' is too large to decode ({size}more than {MAX_PIXELS:,} pixels); scale it down first"


def rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode in RGB, transparent pixels over white; the picture itself where it is RGB."""
    if image.mode.startswith("I"):  # 16-bit grayscale, which Pillow would clip to 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        return image.convert("RGB")
    image.load()
    return image


def to_float(images: Array) -> Array:
    """uint8 in [0, 255] to float32 in [-1, 1]; NumPy or JAX, any shape."""
    # Not x / 127.5 - 1, which inside jit makes more than 1 of 255.
    return (images.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)


def to_uint8(images: Array) -> Array:
    """[-1, 1] to the nearest uint8 in [0, 255], values outside clipped; NumPy or JAX, any shape."""
    xp = jnp if isinstance(images, jax.Array) else np
    return xp.round(xp.clip(images * 127.5 + 127.5, 0, 255)).astype(np.uint8)
