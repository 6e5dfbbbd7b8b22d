"""An editor whose edits are known, faces without pictures of them, and detectors that see what they are told to."""

from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from faceattr_jax.data import align, crops
from faceattr_jax.editor import Editor
from faceattr_jax.errors import UserError
from faceattr_jax.photos import Change
from faceattr_jax.pretrained.detector import Face

SIZE = 24


class Painter:
    """Reconstructs a face as it is; Bangs lighten its upper half and Male reddens it. Reads Male off nothing."""

    config = ConfigDict({"image_size": SIZE, "crop": "center178", "method": "painter"})
    attributes = ("Bald", "Bangs", "Male")
    towards = MappingProxyType[str, int]({})

    def __init__(self, *capabilities):
        self.capabilities = frozenset(capabilities or ("edit", "reconstruct", "classify"))

    def own(self, variables, images):
        if "classify" not in self.capabilities:
            raise UserError("cannot read")
        return (self.classify(variables, images) > 0.5).astype(jnp.float32)

    def classify(self, variables, images):
        return jnp.broadcast_to(jnp.array([0.9, 0.1, 0.2]), (len(images), 3))

    def edit(self, variables, images, request):
        change = request.strength * (request.target - request.source)
        top = (jnp.arange(SIZE) < SIZE // 2).astype(jnp.float32)[None, :, None, None]
        red = jnp.array([1.0, 0.0, 0.0])
        bald, bangs, male = jnp.moveaxis(change[:, :, None, None, None], 1, 0)
        return images + 0.2 * bangs * top + 0.3 * male * red - 0.1 * bald

    def reconstruct(self, variables, images, labels=None):
        return images

    def swap(self, variables, images, references, mask):
        return images + jnp.where(mask[:, 1].any(), 0.2 * references[0].mean(), 0.0)


editor = Editor(Painter(), {})
change = Change(editor, "Male=1")


def face_at(x: float, y: float, scale: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """Landmarks of a mean face, eyes 39 pixels apart times `scale`, in the middle of an upright or turned picture."""
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (align.SHAPE - align.SHAPE.mean(axis=0)) @ turn + (x, y)


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture without fine detail, from 30 to 220."""
    coarse = np.random.default_rng(seed).integers(30, 220, (height // 20 + 2, width // 20 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(60, 190, (height, width, 3), dtype=np.uint8))


def seen_by(*landmarks: np.ndarray):
    """A detector that sees these faces in every picture, and counts how often it looked."""

    def detect(image):
        detect.looked += 1
        return [Face((*points.min(axis=0), *points.max(axis=0)), points, 0.9) for points in landmarks]

    detect.looked = 0
    return lambda: detect


def outside(image: Image.Image, landmarks: np.ndarray, crop: str = "center178") -> np.ndarray:
    """(H, W) bool: pixels whose centres are not in the face's crop, by a loop."""
    (a, b, c), (d, e, f) = crops.placement(crop, SIZE, landmarks)
    found = np.ones((image.height, image.width), bool)
    for y in range(image.height):
        for x in range(image.width):
            u, v = a * (x + 0.5) + b * (y + 0.5) + c, d * (x + 0.5) + e * (y + 0.5) + f
            found[y, x] = not (0 < u < SIZE and 0 < v < SIZE)
    return found
