"""Faces whose every pixel is known: an index, and one square per attribute.

A picture is 16 x 16: row 0 tells the index; attribute j paints the square of rows 4..7 and columns 4j..4j+3, at
level OFF, or at the level of its style. Judge and editors read and paint these squares.
"""

import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.attributes import edited
from faceattr_jax.data.images import to_float, to_uint8

NAMES = ("Black_Hair", "Blond_Hair", "Eyeglasses", "Male")
OFF, STYLES, SIDE = 50, 2, 16
LEVELS = (200, 240, 180)  # of an added attribute: its own style, redrawn ones
AREA = 4 * 4 * 3


@pytest.fixture
def fake() -> ModuleType:
    """This module: test files cannot import each other."""
    return sys.modules[__name__]


def square(j: int) -> tuple[slice, slice]:
    return slice(4, 8), slice(4 * j, 4 * j + 4)


class Source:
    """`count` faces; LABELS cycle through all consistent combinations unless given."""

    size, crop = SIDE, "none"

    def __init__(self, labels: np.ndarray | None = None, count: int = 24, names: Sequence[str] = NAMES) -> None:
        if labels is None:
            every = np.array([[b, c, d, e] for b in (0, 1) for c in (0, 1 - b) for d in (0, 1) for e in (0, 1)], bool)
            labels = every[np.arange(count) % len(every)]
        self.table = SimpleNamespace(attributes=tuple(names), labels=labels.astype(bool), select=self._select)
        self.requested = 0

    def _select(self, names: Sequence[str]) -> np.ndarray:
        return self.table.labels[:, [self.table.attributes.index(n) for n in names]].astype(np.float32)

    def images(self, indices: np.ndarray) -> np.ndarray:
        self.requested += len(indices)
        return self._paint(indices, self.table.labels[indices], 0)

    def _paint(self, indices: np.ndarray, labels: np.ndarray, style: int) -> np.ndarray:
        pictures = np.full((len(indices), SIDE, SIDE, 3), 100, np.uint8)
        pictures[:, 0] = indices[:, None, None]
        for j in range(labels.shape[1]):
            pictures[:, *square(j)] = np.where(labels[:, j], LEVELS[style], OFF)[:, None, None, None]
        return pictures


class Drawn(Source):
    """With the truth of every edit. Styles change only what the face does not show yet."""

    styles = STYLES

    def counterfactual(self, indices: np.ndarray, labels: np.ndarray, style: int | None = None) -> np.ndarray:
        own = self.table.labels[indices]
        truth = self._paint(indices, labels, 0)
        if style is not None:
            redrawn = self._paint(indices, labels, style + 1)
            for j in range(labels.shape[1]):
                added = (labels[:, j] > own[:, j])[:, None, None, None]
                truth[:, *square(j)] = np.where(added, redrawn[:, *square(j)], truth[:, *square(j)])
        return truth

    def region(self, indices: np.ndarray, attribute: str) -> np.ndarray:
        mask = np.zeros((len(indices), SIDE, SIDE), np.float32)
        mask[:, *square(self.table.attributes.index(attribute))] = 1
        return mask


class Judge:
    """Reads the squares; on faces whose index is in `errs` it answers attribute `wrong` the other way round."""

    def __init__(self, names: Sequence[str] = NAMES, errs: Sequence[int] = (), wrong: str = "Male") -> None:
        self.attributes = tuple(names)
        self.errs, self.wrong = jnp.array(list(errs), jnp.int32), wrong
        self.classify = jax.jit(self._classify)

    def _classify(self, images: jax.Array) -> jax.Array:
        answers = []
        for name in self.attributes:
            answer = jnp.mean(images[:, *square(NAMES.index(name))], axis=(1, 2, 3)) > 0
            if name == self.wrong:
                index = to_uint8(images)[:, 0, 0, 0]
                answer ^= jnp.any(index[:, None] == self.errs[None], axis=1)
            answers.append(answer)
        return jnp.where(jnp.stack(answers, axis=1), 0.9, 0.1)


class Perfect:
    """Paints the truth, in `style`. Edits of the strength that is asked for blend it with the input."""

    def __init__(self, source: Drawn, names: Sequence[str] = NAMES, style: int | None = None) -> None:
        self.source, self.attributes, self.style = source, tuple(names), style
        self.shapes: set[tuple[int, ...]] = set()

    def edit(self, images: jax.Array, source: jax.Array, target: jax.Array, strength: float) -> jax.Array:
        self.shapes.add(images.shape)
        indices = np.asarray(to_uint8(images))[:, 0, 0, 0].astype(int)
        full = self.source.table.labels[indices].astype(np.float32)
        known = self.source.table.attributes
        for j, name in enumerate(self.attributes):
            added = np.asarray(source[:, j] < target[:, j])
            full[added] = edited(full[added], {name: 1}, known)
        full[:, [known.index(name) for name in self.attributes]] = target
        truth = to_float(jnp.asarray(self.source.counterfactual(indices, full, style=self.style)))
        return images + strength * (truth - images)

    def reconstruct(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        return self.edit(images, labels, labels, 1.0)


class Constant:
    """Always the same level, whatever is asked."""

    def __init__(self, level: float, names: Sequence[str] = NAMES) -> None:
        self.level, self.attributes = level, tuple(names)

    def edit(self, images: jax.Array, source: jax.Array, target: jax.Array, strength: float) -> jax.Array:
        return jnp.full_like(images, self.level / 127.5 - 1)

    def reconstruct(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        return self.edit(images, labels, labels, 0.0)
