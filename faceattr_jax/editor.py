"""A trained model, loaded from its checkpoint, for people and programs that want edited faces.

The functions of `editor.method` are pure and take the variables: use those under `jit`, `vmap` and `grad`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from faceattr_jax import DEFAULT_MODEL
from faceattr_jax import attributes as attribute_names
from faceattr_jax.data.images import to_float
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import EditRequest, Variables, build
from faceattr_jax.pretrained import safetensors_file
from faceattr_jax.training import checkpoint
from faceattr_jax.training.state import init_state

Edits = Mapping[str, int]


class Editor:
    """A method with the variables of a checkpoint; its functions compile once per shape.

    Images come in as (B, S, S, 3) or (S, S, 3), uint8 or float32 in [-1, 1], and go out as float32 in [-1, 1] of the
    same shape. They must have been cut with the crop preset `crop` at `size` pixels.
    """

    def __init__(self, method: Any, variables: Variables, path: Path | None = None):
        self.method, self.variables, self.path = method, variables, path
        self.config = method.config
        self._calls = {
            name: jax.jit(getattr(method, name))
            for name in (
                "own",
                "edit",
                "reconstruct",
                "classify",
                "mask",
                "generate",
                "slide",
                "swap",
                "linear",
                "matrix_of_references",
                "matrix_of_attributes",
            )
            if hasattr(method, name)
        }

    @property
    def attributes(self) -> tuple[str, ...]:
        """The names of the attributes, in the order of its labels."""
        return self.method.attributes

    @property
    def size(self) -> int:
        """Height and width of its images in pixels."""
        return self.config.image_size

    @property
    def crop(self) -> str:
        """The crop preset (`faceattr_jax.data.crops`) that its images were trained with."""
        return self.config.crop

    def edit(
        self, images: ArrayLike, edits: Edits, *, strength: ArrayLike = 1.0, source: ArrayLike | None = None
    ) -> jax.Array:
        """The faces with other attributes, such as ``{"Eyeglasses": 1, "Smiling": 0}``.

        strength: 0 is the unedited reconstruction, 1 what training showed the model, 2 twice that; one for all
        attributes, or (n,). source: the faces' own attributes, 0/1 (B, n); by default what the model reads off them.
        It misreads some, so beyond strength 1 models that take signed attributes draw what `edits` names even where
        they read it as there already.
        What an edit rules out goes too (`attributes.CONFLICTS`). Raises `UserError` for an unknown attribute or images
        of another size.

        >>> edited = editor.edit(faces, {"Eyeglasses": 1, "Male": 0}, strength=1.5)
        >>> edited.shape == faces.shape, edited.dtype
        (True, dtype('float32'))
        """
        self._require("edit")
        attribute_names.check_names(edits, self.attributes)
        for name, value in edits.items():
            if self.method.towards.get(name, value) != value:
                raise UserError(
                    f"{self.path or self.config.method}: this model was trained for {name}={1 - value} alone, so it "
                    f"cannot give {name}={value}; train another one for that."
                )
        x, single = self._images(images)
        own = self._own(x, source)
        target = attribute_names.edited(own, edits, self.attributes)
        named = self._mask(tuple(edits)) & (source is None)
        request = EditRequest(target, own, jnp.asarray(strength, jnp.float32), jnp.asarray(named))
        return self._out(self._calls["edit"](self.variables, x, request), single)

    @property
    def slider(self) -> tuple[float, ...]:
        """Strengths to `slide` through, for those who name none."""
        return (-1.0, -0.5, 0.0, 0.5, 1.0) if "slide" in self.method.capabilities else (0.0, 0.5, 1.0, 1.5, 2.0)

    def slide(
        self, images: ArrayLike, attribute: str, strengths: Sequence[float], *, source: ArrayLike | None = None
    ) -> jax.Array:
        """One attribute inverted at several strengths: (len(strengths), ...) of edited images.

        What the model cannot invert stays as it is. A model with sliders of its own takes their values for strengths,
        from -1, clearly absent, to 1, clearly present, whatever the face has; values beyond raise `UserError`.

        >>> editor.slide(faces, "Eyeglasses", (0.0, 0.5, 1.0)).shape[:2]
        (3, 8)
        """
        x, single = self._images(images)
        own = self._own(x, source)
        attribute_names.check_names([attribute], self.attributes)
        column = self.attributes.index(attribute)
        if "slide" in self.method.capabilities:
            beyond = [strength for strength in strengths if not -1 <= strength <= 1]
            if beyond:
                raise UserError(f"{beyond[0]:g} is not on this model's slider; give values from -1 to 1.")
            frames = [
                self._calls["slide"](self.variables, x, jnp.int32(column), jnp.float32(strength), own)
                for strength in strengths
            ]
            return jnp.stack([self._out(frame, single) for frame in frames])
        present = np.asarray(own[:, column]) > 0.5

        def towards(value: int, strength: float) -> jax.Array:
            able = self.method.towards.get(attribute, value) == value
            return self.edit(x, {attribute: value}, strength=strength, source=own) if able else x

        rows = [
            np.where(present[:, None, None, None], towards(0, strength), towards(1, strength)) for strength in strengths
        ]
        return jnp.stack([self._out(jnp.asarray(row), single) for row in rows])

    def reconstruct(self, images: ArrayLike, source: ArrayLike | None = None) -> jax.Array:
        """The faces as the model sees them, unedited.

        >>> editor.reconstruct(faces).shape == faces.shape
        True
        """
        self._require("reconstruct")
        x, single = self._images(images)
        own = None if source is None else self._own(x, source)
        return self._out(self._calls["reconstruct"](self.variables, x, own), single)

    def mask(self, images: ArrayLike) -> jax.Array:
        """Where the model would change the faces, 0 to 1: (B, S, S, 1) or (S, S, 1)."""
        self._require("mask")
        x, single = self._images(images)
        return self._out(self._calls["mask"](self.variables, x), single)

    def generate(self, labels: ArrayLike, *, seed: int = 0) -> jax.Array:
        """New faces (B, S, S, 3) with the attributes `labels`, 0/1 (B, n): nobody's, drawn from the model's prior.

        The same labels and seed give the same faces. Raises `UserError` for labels of another shape.

        >>> len(editor.generate([[1, 0, 1], [0, 0, 0]], seed=1))
        2
        """
        self._require("generate")
        wanted = jnp.asarray(labels, jnp.float32)
        if wanted.ndim != 2 or wanted.shape[1] != len(self.attributes):
            raise UserError(
                f"labels of shape {wanted.shape} do not fit; faces need (B, {len(self.attributes)}), in the order of "
                f"{', '.join(self.attributes)}."
            )
        return self._calls["generate"](self.variables, jax.random.key(seed), wanted)

    def swap(self, images: ArrayLike, references: ArrayLike, attributes: Sequence[str]) -> jax.Array:
        """The faces with `attributes` as other faces wear them, or lack them.

        references: a face for each face, of the images' shape, to take all attributes from; or one such for each
        attribute, (len(attributes), ...). Raises `UserError` where the numbers do not fit.

        >>> editor.swap(faces[:4], faces[4:], ["Eyeglasses"]).shape == faces[:4].shape
        True
        """
        self._require("swap")
        x, single = self._images(images)
        others, mask = self._taken(self._references(x, references, single), attributes)
        return self._out(self._calls["swap"](self.variables, x, others, mask), single)

    def linear(
        self, images: ArrayLike, references: ArrayLike, attributes: Sequence[str], steps: Sequence[float]
    ) -> jax.Array:
        """From the faces' own values (0) straight to those of the references (1): (len(steps), ...).

        The other arguments are as in `swap`; steps beyond 1 go on along the line.

        >>> editor.linear(faces[:4], faces[4:], ["Eyeglasses"], (0.0, 0.5, 1.0)).shape[:2]
        (3, 4)
        """
        self._require("swap")
        x, single = self._images(images)
        places = jnp.asarray(steps, jnp.float32)
        others, mask = self._taken(self._references(x, references, single), attributes)
        frames = self._calls["linear"](self.variables, x, others, mask, places)
        return frames[:, 0] if single else frames

    def matrix(
        self, images: ArrayLike, references: ArrayLike, attributes: Sequence[str], steps: Sequence[float]
    ) -> jax.Array:
        """What lies between the faces and several references: (len(steps) down, len(steps) to the right, ...).

        The upper left corner has the faces' own values. With one attribute, `references` (2 or 3, ...) are the
        corners upper right, lower left and lower right (halfway between two). With two attributes, the first goes
        to its reference's value downwards and the second rightwards; references as in `swap`.

        >>> editor.matrix(faces[0], faces[1:3], ["Eyeglasses"], (0.0, 1.0)).shape[:2]
        (2, 2)
        """
        self._require("swap")
        x, single = self._images(images)
        places = jnp.asarray(steps, jnp.float32)
        others = self._references(x, references, single)
        if len(attributes) == 1:
            if len(others) not in (2, 3):
                raise UserError(
                    f"a matrix of one attribute has two or three references at its corners, not {len(others)}; from "
                    "one reference there is a line."
                )
            kind, mask = "matrix_of_references", self._mask(attributes)
        elif len(attributes) == 2:
            others, mask = self._taken(others, attributes, each=True)
            kind = "matrix_of_attributes"
        else:
            raise UserError(f"a matrix is of one attribute or of two, not of {len(attributes)}.")
        frames = self._calls[kind](self.variables, x, others, mask, places, places)
        return frames[:, :, 0] if single else frames

    def classify(self, images: ArrayLike) -> jax.Array:
        """Probability of each attribute, (B, n) or (n,).

        >>> editor.classify(faces).shape == (8, len(editor.attributes))
        True
        """
        self._require("classify")
        x, single = self._images(images)
        return self._out(self._calls["classify"](self.variables, x), single)

    def _own(self, images: jax.Array, source: ArrayLike | None) -> jax.Array:
        """The given attributes of the faces as (B, n), or what the model reads off them."""
        if source is not None:
            return jnp.asarray(source, jnp.float32).reshape(len(images), -1)
        return self._calls["own"](self.variables, images)

    def _mask(self, attributes: Sequence[str]) -> np.ndarray:
        """(n,) bool."""
        attribute_names.check_names(attributes, self.attributes)
        return np.isin(self.attributes, attributes)

    def _taken(
        self, others: jax.Array, attributes: Sequence[str], *, each: bool = False
    ) -> tuple[jax.Array, np.ndarray]:
        """References (R, B, S, S, 3) and what is taken from each (R, n); with `each`, R is the number of attributes."""
        if len(others) == 1 and not each:
            return others, self._mask(attributes)[None]
        if len(others) not in (1, len(attributes)):
            raise UserError(
                f"there are {len(others)} references for {len(attributes)} attributes ({', '.join(attributes)}); give "
                "one for all of them, or one for each."
            )
        others = jnp.broadcast_to(others, (len(attributes), *others.shape[1:]))
        return others, np.stack([self._mask([name]) for name in attributes])

    def _references(self, images: jax.Array, references: ArrayLike, single: bool) -> jax.Array:
        """Faces to take from, as (R, B, S, S, 3)."""
        x = jnp.asarray(references)
        x = x[..., None, :, :, :] if single and x.ndim > 2 else x
        x = x[None] if x.ndim == 4 else x
        if x.shape[1:] != images.shape:
            raise UserError(
                f"references of shape {jnp.shape(references)} do not fit: each image needs one, of the images' shape, "
                "or one for each attribute."
            )
        return self._images(x.reshape(-1, *x.shape[2:]))[0].reshape(x.shape)

    def _require(self, capability: str) -> None:
        if capability not in self.method.capabilities:
            raise UserError(
                f"{self.path or self.config.method}: a {self.config.method} model cannot {capability}; it can "
                f"{', '.join(sorted(self.method.capabilities))}."
            )

    def _images(self, images: ArrayLike) -> tuple[jax.Array, bool]:
        x = jnp.asarray(images)
        single = x.ndim == 3
        x = x[None] if single else x
        if x.ndim != 4 or x.shape[1:] != (self.size, self.size, 3):
            raise UserError(
                f"images of shape {x.shape} do not fit: this model takes (B, {self.size}, {self.size}, 3), cut with "
                f"the crop preset '{self.crop}'."
            )
        return (to_float(x) if x.dtype == jnp.uint8 else x.astype(jnp.float32)), single

    @staticmethod
    def _out(x: jax.Array, single: bool) -> jax.Array:
        return x[0] if single else x


def hash_variables(variables: Any) -> str:
    """sha256 of a model's arrays in the order of its tree."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


MODELS = Path(__file__).parent / "models"
"""Models that come with the package: NAME.safetensors, and NAME.md, its card."""


def load(path: str | Path = DEFAULT_MODEL) -> Editor:
    """The model of a run's workdir (its best checkpoint, else the last), a step's folder, or a safetensors file.

    Everything about the model is read from there; the file is one that ``faceattr export`` wrote. The name of a model
    that comes with the package will do, too (`MODELS`). Raises `UserError` where there is none, or a damaged one.

    >>> fj.load("runs/attgan").attributes
    ('Bangs', 'Eyeglasses', 'Male')
    """
    path = Path(path)
    if not path.exists() and path.name == str(path) and (named := MODELS / f"{path}{safetensors_file.SUFFIX}").exists():
        path = named
    if path.suffix == safetensors_file.SUFFIX and not path.is_dir():
        config, variables = safetensors_file.read_model(path)
        return Editor(build(config), jax.tree.map(jnp.asarray, variables), path)
    folder = checkpoint.find(path)
    method = build(checkpoint.read_config(folder))
    like = jax.eval_shape(lambda: init_state(method, 0))
    return Editor(method, checkpoint.read_variables(folder, like).inference_variables, folder)
