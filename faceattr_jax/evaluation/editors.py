"""What an evaluation asks of an editor and of a judge, and the ones it brings along.

Images are NHWC float32 in [-1, 1]; labels, sources and targets are 0/1 over the editor's attributes.
"""

import copy
import itertools
import random
from collections.abc import Sequence
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from faceattr_jax import attributes
from faceattr_jax.data.images import to_float
from faceattr_jax.methods.base import EditRequest, Variables
from faceattr_jax.training import distributed


class Editor(Protocol):
    """Edits batches of one shape; compiles for itself if it likes to."""

    @property
    def attributes(self) -> tuple[str, ...]: ...

    def edit(self, images: jax.Array, source: jax.Array, target: jax.Array, strength: float) -> jax.Array:
        """Images (B, S, S, 3) with attributes `source` (B, n) turned into ones with `target`."""
        ...

    def reconstruct(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        """The images decoded with their own labels (B, n)."""
        ...


class Exchanger(Protocol):
    """Gives faces the attributes of reference faces."""

    @property
    def attributes(self) -> tuple[str, ...]: ...

    def swap(self, images: jax.Array, references: jax.Array, mask: jax.Array) -> jax.Array:
        """Images (B, S, S, 3) with what is chosen in each row of `mask` (R, n), bool, from references (R, B, ...)."""
        ...

    def reconstruct(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        """As an Editor's."""
        ...


class Generator(Protocol):
    """Draws new faces."""

    @property
    def attributes(self) -> tuple[str, ...]: ...

    def draw_latents(self, keys: jax.Array) -> jax.Array:
        """z from the prior, (B, d), each by its own of `keys` (B,), so that it does not depend on its batch."""
        ...

    def generate(self, keys: jax.Array, labels: jax.Array) -> jax.Array:
        """Faces (B, S, S, 3) with attributes `labels` (B, n) and the z that `draw_latents` draws with the same keys."""
        ...


class Slider(Protocol):
    """Has a slider from -1 to 1 for each attribute, and knows where faces stand."""

    @property
    def attributes(self) -> tuple[str, ...]: ...

    def intensities(self, images: jax.Array) -> jax.Array:
        """How strong each attribute, or its absence, is: (B, n) in [0, 1]."""
        ...

    def slide(self, images: jax.Array, column: int, value: float, source: jax.Array) -> jax.Array:
        """Images (B, S, S, 3) with attributes `source` (B, n) and the slider of one attribute at `value`."""
        ...


class Judge(Protocol):
    """An attribute classifier that had no part in the editor's training."""

    @property
    def attributes(self) -> tuple[str, ...]: ...

    def classify(self, images: jax.Array) -> jax.Array:
        """Probabilities (B, A) of its own attributes."""
        ...


def floats(pixels: np.ndarray) -> jax.Array:
    """Pictures uint8 (B, S, S, 3) as models see them, float32 in [-1, 1]: a batch, split over the devices."""
    return split(to_float(jnp.asarray(pixels)))


def split(batch: jax.Array) -> jax.Array:
    """Rows (B, ...) in equal parts over all devices, where their number divides B; else as they are."""
    mesh = _devices()
    if mesh is None or len(batch) % mesh.size:
        return batch
    return jax.device_put(batch, distributed.batch_sharding(mesh))


def everywhere(variables: Any) -> Any:
    """On each of the devices, where there are several."""
    mesh = _devices()
    return variables if mesh is None else jax.device_put(variables, distributed.replicated(mesh))


def _devices() -> Mesh | None:
    """All devices, where that is worth while: a host's CPU devices share its cores; processes evaluate apart."""
    if jax.default_backend() == "cpu" or jax.process_count() > 1:
        return None
    mesh = distributed.mesh()
    return mesh if mesh.size > 1 else None


class CopyingEditor:
    """Returns its input: the baseline that keeps everything and edits nothing.

    Its accuracy is the judge's own error on the real labels.
    """

    def __init__(self, attributes: Sequence[str]) -> None:
        self.attributes = tuple(attributes)

    def edit(self, images: jax.Array, source: jax.Array, target: jax.Array, strength: float) -> jax.Array:
        return images

    def swap(self, images: jax.Array, references: jax.Array, mask: jax.Array) -> jax.Array:
        return images

    def reconstruct(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        return images


class ReferenceEditor(CopyingEditor):
    """Returns the reference itself: it has the attribute in the reference's style, and keeps nothing of the face."""

    def swap(self, images: jax.Array, references: jax.Array, mask: jax.Array) -> jax.Array:
        return references[0]


class Compiled:
    """A method with its variables as an Editor or a Judge, compiled once for every set of variables."""

    def __init__(self, method: Any, variables: Variables) -> None:
        self.attributes: tuple[str, ...] = tuple(method.attributes)
        self.variables = everywhere(variables)
        self.embeds = hasattr(method, "features")
        self._edit = jax.jit(
            lambda variables, images, source, target, strength: method.edit(
                variables, images, EditRequest(target=target, source=source, strength=strength)
            )
        )
        self._reconstruct = jax.jit(lambda *arguments: method.reconstruct(*arguments))
        self._swap = jax.jit(lambda *arguments: method.swap(*arguments))
        self._classify = jax.jit(lambda *arguments: method.classify(*arguments))
        self._features = jax.jit(lambda *arguments: method.features(*arguments))
        self._generate = jax.jit(
            jax.vmap(lambda variables, key, labels: method.generate(variables, key, labels[None])[0], (None, 0, 0))
        )
        self._intensities = jax.jit(lambda *arguments: method.intensities(*arguments))
        self._slide = jax.jit(lambda *arguments: method.slide(*arguments))
        self._latents = jax.jit(lambda *arguments: method.latents(*arguments))
        self._draw_latents = jax.jit(jax.vmap(lambda key: method.draw_latents(key, 1)[0]))

    def at(self, variables: Variables) -> Self:
        """The same compiled functions with other variables: an untrained model, a later checkpoint."""
        other = copy.copy(self)
        other.variables = everywhere(variables)
        return other

    def edit(self, images: jax.Array, source: jax.Array, target: jax.Array, strength: float) -> jax.Array:
        return self._edit(self.variables, images, source, target, strength)

    def reconstruct(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        return self._reconstruct(self.variables, images, labels)

    def swap(self, images: jax.Array, references: jax.Array, mask: jax.Array) -> jax.Array:
        return self._swap(self.variables, images, references, mask)

    def classify(self, images: jax.Array) -> jax.Array:
        return self._classify(self.variables, images)

    def features(self, images: jax.Array) -> jax.Array:
        return self._features(self.variables, images)

    def latents(self, images: jax.Array) -> jax.Array:
        return self._latents(self.variables, images)

    def intensities(self, images: jax.Array) -> jax.Array:
        return self._intensities(self.variables, images)

    def slide(self, images: jax.Array, column: int, value: float, source: jax.Array) -> jax.Array:
        return self._slide(self.variables, images, np.int32(column), np.float32(value), source)

    def generate(self, keys: jax.Array, labels: jax.Array) -> jax.Array:
        return self._generate(self.variables, keys, labels)

    def draw_latents(self, keys: jax.Array) -> jax.Array:
        return self._draw_latents(keys)


class Widened:
    """An editor that is asked with more attributes than it knows, of which the judge then tells what became."""

    def __init__(self, editor: Compiled, attributes: Sequence[str]) -> None:
        self.attributes = tuple(attributes)
        self._editor, self._columns = editor, np.array([self.attributes.index(name) for name in editor.attributes])

    def edit(self, images: jax.Array, source: jax.Array, target: jax.Array, strength: float) -> jax.Array:
        return self._editor.edit(images, source[:, self._columns], target[:, self._columns], strength)

    def swap(self, images: jax.Array, references: jax.Array, mask: jax.Array) -> jax.Array:
        return self._editor.swap(images, references, mask[:, self._columns])

    def reconstruct(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        return self._editor.reconstruct(images, labels[:, self._columns])


def invert(labels: np.ndarray, names: Sequence[str], group: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Every row of `labels` with the attributes of `group` inverted, conflicts resolved.

    Args:
      labels: (B, n) of 0 and 1, of any dtype.
      names: the n attributes of its columns.
      group: those to invert.

    Returns:
      target: (B, n), as `labels`.
      touched: (B, n) bool, the attributes whose outcome the request fixes: those of the group and those that
        `attributes.CONFLICTS` rules out (Blond_Hair = 1 fixes Black_Hair = 0). The others are untouched.
    """
    target, touched = np.array(labels), np.zeros(labels.shape, bool)
    columns = [list(names).index(name) for name in group]
    ends = np.stack([np.zeros(len(names), np.int8), np.ones(len(names), np.int8)])
    for values in itertools.product((0, 1), repeat=len(group)):
        rows = np.all(labels[:, columns] == values, axis=1)
        if rows.any():
            request = {name: 1 - value for name, value in zip(group, values, strict=True)}
            target[rows] = attributes.edited(labels[rows], request, names)
            from_zeros, from_ones = attributes.edited(ends, request, names)
            touched[rows] = from_zeros == from_ones
    return target, touched


def choose_combinations(
    names: Sequence[str], *, count: int = 3, sizes: Sequence[int] = (2, 3), seed: int = 0
) -> tuple[tuple[str, ...], ...]:
    """At most `count` combinations of each size for simultaneous edits (AttGAN figure 5).

    The same ones for the same names and seed. No two members exclude each other: a face with neither would be
    asked for both.
    """
    chosen: list[tuple[str, ...]] = []
    for size in sizes:
        fitting = [
            group
            for group in itertools.combinations(names, size)
            if not any(b in attributes.CONFLICTS.get(a, ()) for a, b in itertools.permutations(group, 2))
        ]
        picks = random.Random(f"{seed}/{size}").sample(range(len(fitting)), min(count, len(fitting)))
        chosen += [fitting[i] for i in sorted(picks)]
    return tuple(chosen)
