"""Face networks for identity losses and identity metrics: one interface over published weights and one's own runs."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from faceattr_jax.errors import UserError, check_choice
from faceattr_jax.pretrained import dlib, vgg_face, weights

Apply = Callable[[Mapping[str, Any], jax.Array], jax.Array]


Square = tuple[float, float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class FaceNetwork:
    """A frozen network that turns faces into vectors, near each other where the person is the same.

    name: "dlib", "vgg_face" or "recognizer". sha256: of the weight file, or of the run's parameters. variables: its
    weights, to be passed to `features`. size: side of the pictures that it takes. apply: (variables, images
    (B, size, size, 3) in [-1, 1]) -> (B, D). square: (top, left, side) of what it looks at, in sides of the picture.
    before: `apply` without its last step, where that scales vectors to unit length.
    """

    name: str
    sha256: str
    variables: Mapping[str, Any]
    size: int
    apply: Apply
    square: Square = (0.0, 0.0, 1.0)
    before: Apply | None = None

    @property
    def unscaled(self) -> "FaceNetwork":
        """The network whose vectors have lengths of their own."""
        return dataclasses.replace(self, apply=self.before or self.apply)

    def features(self, variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
        """Vectors (B, D) of square RGB images (B, S, S, 3) in [-1, 1]; pure, and differentiable in the images.

        The network's square is resized bilinearly to what it takes, antialiased where that is smaller.
        """
        if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
            raise ValueError(f"a face network takes square images (B, S, S, 3), not {images.shape}")
        return self.apply(variables, cut(images, self.square, self.size))


def cut(images: jax.Array, square: Square, size: int) -> jax.Array:
    """A square of images (B, S, S, C), in their sides, resized bilinearly and antialiased to (B, size, size, C)."""
    top, left, side = square
    scale = jnp.full(2, size / (side * images.shape[1]))
    shift = jnp.array([-top, -left]) * (size / side)
    shape = (images.shape[0], size, size, images.shape[3])
    return jax.image.scale_and_translate(images, shape, (1, 2), scale, shift, "linear")


def face_network(face: ConfigDict, crop: str = "") -> FaceNetwork:
    """The network that a config names.

    face: `network`, "vgg_face", "dlib", "recognizer", or "auto": VGG-Face where its weights are given or in the cache,
    else dlib's; `path`, of the weight file, or "" to look for it where `pretrained.weights` does; of a recogniser the
    run's workdir. crop: the preset that the images will be cut with. A network that was trained on closer views looks
    at the face alone in crops of aligned CelebA pictures: dlib's then tells pairs of one person from pairs of two in
    99 % of cases, from the whole of center178 in 75 % (area under ROC, 128 px, 300 test faces of celeba-mini). Without
    `crop` it looks at the whole image.

    Raises UserError for another name, and where the weights are missing or damaged.
    """
    name = face.network
    if name == "auto":
        name = "vgg_face" if face.path or weights.cached(weights.VGG_FACE) else "dlib"
    check_choice("face.network", name, ("auto", *NETWORKS))
    return NETWORKS[name](face.path, crop)


def _published(file: weights.WeightFile, module: Any, read: Callable[[Any], Any], size: int, path: str) -> FaceNetwork:
    found, sha256 = weights.find(file, path)
    variables = {"params": jax.tree.map(jnp.asarray, read(found))}
    return FaceNetwork(file.name, sha256, variables, size, lambda held, x: module.apply(held, (x + 1.0) * 127.5))


def _dlib(path: str, crop: str) -> FaceNetwork:
    network = _published(weights.DLIB, dlib.FaceResNet(), dlib.read, dlib.SIZE, path)
    return dataclasses.replace(network, square=_within(dlib.SQUARE, _kept(crop)))


def _vgg_face(path: str, crop: str) -> FaceNetwork:
    return _published(weights.VGG_FACE, vgg_face.VGGFace(), vgg_face.read, vgg_face.SIZE, path)


def _recognizer(path: str, crop: str) -> FaceNetwork:
    from faceattr_jax.editor import hash_variables, load

    if not path:
        raise UserError("face.path is empty; for a recognizer it is the workdir of its run")
    model = load(path)
    if "embed" not in model.method.capabilities:
        raise UserError(f"'{path}' is a run of {model.config.method}; face.path should be one of recognizer")
    # The people's directions are of use in training alone.
    variables = {name: {"embedder": model.variables[name]["embedder"]} for name in ("params", "batch_stats")}
    square = part(model.crop, crop, path)
    method = model.method
    return FaceNetwork(
        "recognizer", hash_variables(variables), variables, model.size, method.embed, square, method.embed_unscaled
    )


def part(crop: str, of: str, whose: str) -> Square:
    """What a network that was trained on one crop looks at in pictures of another, in their sides.

    The whole where a crop is not for aligned CelebA pictures. Raises UserError where these show a part of it alone.
    """
    square = _within(_kept(crop), _kept(of))
    if min(square[:2]) < -1e-6 or max(square[:2]) + square[2] > 1 + 1e-6:
        raise UserError(f"'{whose}' looks at {crop} crops, of which {of} shows a part; train one on {of}")
    return square


def _kept(crop: str) -> Square | None:
    """The square (top, left, side) of aligned CelebA pictures that a crop keeps, None where it is not for these."""
    from faceattr_jax.data import crops

    return crops.kept(crop) if crop else None


def _within(square: Square | None, kept: Square | None) -> Square:
    """A square of a picture in sides of another one; the whole of it where either is unknown."""
    if square is None or kept is None:
        return (0.0, 0.0, 1.0)
    return ((square[0] - kept[0]) / kept[2], (square[1] - kept[1]) / kept[2], square[2] / kept[2])


NETWORKS: dict[str, Callable[[str, str], FaceNetwork]] = {
    "vgg_face": _vgg_face,
    "dlib": _dlib,
    "recognizer": _recognizer,
}
