"""Named tensors of other programs as the variables of our networks: every one of ours filled, by its place there."""

from collections.abc import Callable, Mapping, Sequence
from math import gcd, isqrt
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from faceattr_jax.errors import UserError
from faceattr_jax.pretrained import torch_file

Shape = tuple[int, ...]


class StateDict(NamedTuple):
    """The tensors of one network by their names in a file."""

    path: Path
    tensors: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, path: Path, held: Mapping[Any, Any]) -> "StateDict":
        """The tensors among what is held, by names without the prefix of PyTorch's `DataParallel`."""
        found = {str(name).removeprefix("module."): a for name, a in held.items() if isinstance(a, np.ndarray)}
        return cls(path, found)

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

    def side(self, name: str, channels: int) -> int:
        """Of the square maps of so many channels that the fully connected layer `name` reads."""
        inputs = self.shape(name, 2)[1]
        found = isqrt(inputs // channels)
        if found**2 * channels != inputs:
            raise UserError(
                f"'{self.path}': the tensor '{name}' reads {inputs} numbers, no square of {channels} channels"
            )
        return found


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
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
"""Flax's names of a layer's tensors and PyTorch's."""


def flattened(channels: int) -> Layout:
    """A fully connected layer that reads square maps: theirs by channel, row and column, ours with the channel last."""

    def turn(a: np.ndarray) -> np.ndarray:
        side = isqrt(a.shape[1] // channels)
        return a.reshape(len(a), channels, side, side).transpose(2, 3, 1, 0).reshape(-1, len(a))

    return Layout(DENSE.shape, turn)


def multiples(*widths: Sequence[int]) -> tuple[int, list[tuple[int, ...]]]:
    """The greatest width that all are multiples of, and lists of these multiples."""
    width = gcd(*(w for group in widths for w in group))
    return width, [tuple(w // width for w in group) for group in widths]


def layer(network: str, ours: str, theirs: str, leaves: Mapping[str, tuple[str, Layout]]) -> dict[str, Place]:
    """The places of one layer's tensors, by their paths among our variables.

    ours, theirs: the layer's names, such as "encoder/conv0" and "enc.0". leaves: of each of our tensors its name there
    and its layout.
    """
    collections = dict.fromkeys(("mean", "var"), "batch_stats")
    return {
        f"{collections.get(leaf, 'params')}/{ours}/{leaf}": Place(network, f"{theirs}.{name}", layout)
        for leaf, (name, layout) in leaves.items()
    }


def biased(layout: Layout) -> dict[str, tuple[str, Layout]]:
    """The leaves of a layer that has a kernel and a bias, for `layer`."""
    return {"kernel": ("weight", layout), "bias": ("bias", SAME)}


def variables(shapes: Any, places: Mapping[str, Place], states: Mapping[str, StateDict], *, spare: bool = False) -> Any:
    """Variables {collection: ...} shaped as `shapes`, as NumPy arrays.

    places: of each leaf, by its path joined by slashes. Raises UserError, which names the tensor, where one is missing,
    has another shape, or, unless some may be to `spare`, is left over.
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
        return np.array(place.layout.turn(found), wanted.dtype, order="C").reshape(wanted.shape)

    filled = jax.tree_util.tree_map_with_path(leaf, shapes)
    for network, names in left.items():
        # PyTorch's batch norm counts its batches; nothing reads that.
        unread = sorted(name for name in names if not name.endswith(".num_batches_tracked"))
        if unread and not spare:
            raise UserError(
                f"'{states[network].path}' has a tensor '{unread[0]}' that the model has no place for"
                + (f", and {len(unread) - 1} more" if len(unread) > 1 else "")
            )
    return filled


def read(
    path: Path,
    shapes: Any,
    names: Callable[[str], str] = lambda name: name,
    layouts: Mapping[str, Layout] | None = None,
) -> Any:
    """A Flax module's variables, shaped as `shapes`, out of PyTorch's file of one state dict, which may hold others.

    names: what the file calls a layer, of its path in the module joined by dots. layouts: of kernels, by the same path,
    that are not as PyTorch's layers have them. Raises UserError as `torch_file.read` and `variables` do.
    """
    usual = {4: CONV, 2: DENSE}

    def place(keys: Any, wanted: Any) -> tuple[str, Place]:
        _, *modules, leaf = (key.key for key in keys)
        ours = ".".join(modules)
        how = (layouts or {}).get(ours, usual[wanted.ndim]) if leaf == "kernel" else SAME
        return "/".join(key.key for key in keys), Place("", f"{names(ours)}.{LEAVES[leaf]}", how)

    places = dict(place(*item) for item in jax.tree_util.tree_leaves_with_path(shapes))
    return variables(shapes, places, {"": StateDict.of(path, torch_file.read(path))}, spare=True)
