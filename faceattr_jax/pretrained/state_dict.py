"""Named tensors of other programs as the variables of our networks: every one of ours filled, none of theirs left."""

from collections.abc import Callable, Mapping, Sequence
from math import gcd, isqrt
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from faceattr_jax.errors import UserError

Shape = tuple[int, ...]


class StateDict(NamedTuple):
    """The tensors of one network by their names in a file."""

    path: Path
    tensors: Mapping[str, np.ndarray]

    def shape(self, name: str, rank: int) -> Shape:
        """The shape of a tensor of so many axes, none of length 0; UserError where there is none."""
        found = self.tensors.get(name)
        if found is None or found.ndim != rank or found.size == 0:
            instead = "none" if found is None else f"one of {found.shape}"
            raise UserError(f"'{self.path}' should have a tensor '{name}' of {rank} axes, and has {instead}")
        return found.shape

    def shapes(self, name: str, rank: int = 4, step: int = 1) -> list[Shape]:
        """Of the tensors of layers 0, `step`, 2 `step`, ..., whose number stands in `name` for "{}".

        UserError where the first is missing, or one before the last layer of which there is any tensor.
        """
        prefix = name.partition("{}")[0]
        numbers = [key.removeprefix(prefix).partition(".")[0] for key in self.tensors if key.startswith(prefix)]
        last = max((int(number) for number in numbers if number.isdecimal()), default=0)
        return [self.shape(name.format(number), rank) for number in range(0, last + 1, step)]


class Layout(NamedTuple):
    """How a tensor of ours lies in the file: its shape there, of our shape, and how to turn it into ours."""

    shape: Callable[[Shape], Shape]
    turn: Callable[[np.ndarray], np.ndarray]


class Place(NamedTuple):
    """Where a tensor of ours is: in which network of the file, by which name, how."""

    network: str
    name: str
    layout: Layout


SAME = Layout(lambda shape: shape, lambda a: a)
SCALAR = Layout(lambda shape: (1,), lambda a: a[0])
DENSE = Layout(lambda shape: shape[::-1], np.transpose)
# Theirs are (out, in, kh, kw), of a transposed convolution (in, out, kh, kw) and mirrored.
CONV = Layout(lambda s: (s[3], s[2], s[0], s[1]), lambda a: a.transpose(2, 3, 1, 0))
TRANSPOSED = Layout(lambda s: (s[2], s[3], s[0], s[1]), lambda a: a.transpose(2, 3, 0, 1)[::-1, ::-1])


def flattened(channels: int) -> Layout:
    """A fully connected layer that reads square maps: theirs by channel, row and column, ours with the channel last."""

    def turn(a: np.ndarray) -> np.ndarray:
        side = isqrt(a.shape[1] // channels)
        return a.reshape(len(a), channels, side, side).transpose(2, 3, 1, 0).reshape(-1, len(a))

    return Layout(DENSE.shape, turn)


def tensors(held: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by names without the prefix of PyTorch's `DataParallel`."""
    return {str(name).removeprefix("module."): a for name, a in held.items() if isinstance(a, np.ndarray)}


def multiples(*widths: Sequence[int]) -> tuple[int, list[tuple[int, ...]]]:
    """The greatest width that all are multiples of, and lists of these multiples."""
    width = gcd(*(w for group in widths for w in group))
    return width, [tuple(w // width for w in group) for group in widths]


def side(state: StateDict, name: str, channels: int) -> int:
    """Of the square maps of so many channels that the fully connected layer `name` reads."""
    inputs = state.shape(name, 2)[1]
    found = isqrt(inputs // channels)
    if found**2 * channels != inputs:
        raise UserError(f"'{state.path}': the tensor '{name}' reads {inputs} numbers, no square of {channels} channels")
    return found


def variables(shapes: Any, places: Mapping[str, Place], states: Mapping[str, StateDict]) -> Any:
    """Variables {collection: {network: tree}} shaped as `shapes`.

    places: of each leaf, by its path joined by slashes. Raises UserError, which names the
    tensor, where one is missing, has another shape, or is left over.
    """
    left = {network: set(state.tensors) for network, state in states.items()}

    def leaf(keys: Any, wanted: Any) -> np.ndarray:
        place = places["/".join(key.key for key in keys)]
        state, shape = states[place.network], place.layout.shape(wanted.shape)
        found = state.tensors.get(place.name)
        if found is None or found.shape != shape:
            instead = "none" if found is None else f"one of {found.shape}"
            raise UserError(f"'{state.path}' should have a tensor '{place.name}' of {shape}, and has {instead}")
        left[place.network].discard(place.name)
        return np.ascontiguousarray(place.layout.turn(found)).astype(wanted.dtype).reshape(wanted.shape)

    filled = jax.tree_util.tree_map_with_path(leaf, shapes)
    for network, names in left.items():
        # PyTorch's batch norm counts its batches; nothing reads that.
        unread = sorted(name for name in names if not name.endswith(".num_batches_tracked"))
        if unread:
            raise UserError(
                f"'{states[network].path}' has a tensor '{unread[0]}' that the model has no place for"
                + (f", and {len(unread) - 1} more" if len(unread) > 1 else "")
            )
    return filled
