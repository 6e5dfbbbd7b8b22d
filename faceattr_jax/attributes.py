"""Attribute names: CelebA's forty, the papers' lists, and what an edit of some means for the others.

Attribute values are 0 or 1 here, as at every public door; a method scales them itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import jax
import numpy as np

from faceattr_jax.errors import UserError, nearest

Array = TypeVar("Array", np.ndarray, jax.Array)

# fmt: off
CELEBA: tuple[str, ...] = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips",
    "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby",
    "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male",
    "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose",
    "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair",
    "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)
"""CelebA's attributes in the order of `list_attr_celeba.txt`."""

ATTGAN: tuple[str, ...] = (
    "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses", "Male",
    "Mouth_Slightly_Open", "Mustache", "No_Beard", "Pale_Skin", "Young",
)
"""The thirteen attributes that AttGAN edits, in its order."""
# fmt: on

_HAIR_COLOURS = frozenset({"Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"})

CONFLICTS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "Bald": frozenset({"Bangs"}),
        "Receding_Hairline": frozenset({"Bangs"}),
        "Bangs": frozenset({"Bald", "Receding_Hairline"}),
        "Straight_Hair": frozenset({"Wavy_Hair"}),
        "Wavy_Hair": frozenset({"Straight_Hair"}),
        **{colour: _HAIR_COLOURS - {colour} for colour in _HAIR_COLOURS},
    }
)
"""Setting an attribute to 1 sets these to 0 (AttGAN's `data.py`, where a Mustache/No_Beard rule is off)."""


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Raise UserError for the first of `names` that is not in `known`, with the nearest one that is."""
    known = tuple(known)
    for name in names:
        if name not in known:
            raise UserError(f"unknown attribute '{name}'{nearest(name, known)}; known are {', '.join(known)}")


def parse(text: str, known: Iterable[str]) -> dict[str, int]:
    """Read a request such as "Eyeglasses=1,Smiling=0" about attributes in `known`.

    Raises UserError for an item that is not NAME=0 or NAME=1, an unknown name, and requests that contradict
    each other: one attribute set to both values, or two set to 1 that exclude each other (CONFLICTS).
    """
    known = tuple(known)
    edits: dict[str, int] = {}
    for item in text.split(","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not name or not equals or value not in ("0", "1"):
            raise UserError(f"'{item.strip()}' in '{text}' is not an edit; write NAME=0 or NAME=1, separated by commas")
        check_names([name], known)
        if edits.setdefault(name, int(value)) != int(value):
            raise UserError(f"'{text}' sets {name} to both 0 and 1; keep one of them")
    added = [name for name, value in edits.items() if value]
    for i, name in enumerate(added):
        for other in added[i + 1 :]:
            if other in CONFLICTS.get(name, ()):
                raise UserError(f"'{text}' sets {name}=1 and {other}=1, which exclude each other; keep one of them")
    return edits


def edited(source: Array, edits: Mapping[str, int], names: Iterable[str]) -> Array:
    """The target labels of an edit: `source` with `edits` applied and conflicting attributes set to 0.

    Args:
      source: (..., n) labels, 0 or 1, of any dtype; may be traced.
      edits: attribute -> 0 or 1 (Python numbers). A requested value is kept, whatever it conflicts with.
      names: the n attributes that the last axis of `source` stands for.

    Returns:
      Labels of `source`'s shape and dtype.

    Raises UserError for an unknown name or a value other than 0 and 1.
    """
    names = tuple(names)
    check_names(edits, names)
    if source.shape[-1:] != (len(names),):
        raise ValueError(f"labels of shape {source.shape} do not end in {len(names)} attributes")
    values = dict[str, int]()
    for name, value in edits.items():
        if value not in (0, 1):
            raise UserError(f"{name}={value} is not an edit; an attribute is set to 0 or 1")
        values[name] = int(value)
        if value:
            values.update(dict.fromkeys((CONFLICTS.get(name, frozenset()) & set(names)) - set(edits), 0))
    # Arithmetic rather than `where`: NumPy stays NumPy. Equal ranks and dtypes: strict promotion holds.
    shape = (1,) * (source.ndim - 1) + (len(names),)
    keep = np.array([name not in values for name in names]).reshape(shape).astype(source.dtype)
    put = np.array([values.get(name, 0) for name in names]).reshape(shape).astype(source.dtype)
    return source * keep + put


def conflict_matrix(names: Sequence[str]) -> np.ndarray:
    """(n, n) float32: 1 at [i, j] where setting attribute i to 1 sets attribute j to 0 (CONFLICTS)."""
    return np.array([[other in CONFLICTS.get(name, ()) for other in names] for name in names], np.float32)
