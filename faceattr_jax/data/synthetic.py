"""Faces from no data: a source that draws every picture from (seed, index).

A set of `count` faces holds count / PER_PERSON people, PER_PERSON consecutive pictures each. A person keeps the
face (shape, skin, eyes, nose, mouth, natural hair), Male and Young; the other attributes, pose, light, background
and expression change from picture to picture.

Labels follow CelebA's correlations. Rates too low to learn from few pictures are raised: Bald from 2 to 6 per cent,
Gray_Hair 5 to 9, Mustache 4 to 9, Goatee 6 to 9, Wearing_Hat 5 to 9, Pale_Skin 4 to 11, Eyeglasses 8 to 19,
Rosy_Cheeks 6 to 12, Black_Hair 24 to 29, Blond_Hair 14 to 21, Bangs 15 to 20.
A label is always visible: hats leave the hair at the sides in view and are never worn by bald people here, bald
people have no hair colour and no bangs, at most one hair colour is set (none means red), and Mustache and Goatee come
with No_Beard = 0, which itself draws the beard along the jaw. `counterfactual` draws whatever it is asked to; only
the hair colour and the bangs of a bald head cannot be seen there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.attributes import CONFLICTS
from faceattr_jax.data.drawing import Array
from faceattr_jax.data.faces import (
    ATTRIBUTES,
    FREE_STYLES,
    ROW_OFFSET,
    STYLES_OF,
    TEMPLATE,
    Face,
    Person,
    Shot,
    Style,
    draw,
    landmarks,
)
from faceattr_jax.data.painting import render
from faceattr_jax.data.source import Table
from faceattr_jax.errors import UserError, nearest

__all__ = ["ATTRIBUTES", "PER_PERSON", "STYLES", "SyntheticSource", "landmarks", "region", "render", "sample_face"]

STYLES = 8  # streams that `counterfactual` can redraw the styles from
PER_PERSON = 5  # pictures of one identity
SIZES = (32, 256)  # smallest and largest side
SHIFT = Shot._field_defaults["shift_x"][1]  # how far faces are off the centre, as CelebA's aligned ones about
FARTHEST = 40.0  # a shift that leaves eyes and mouths in the picture


_KEPT = np.array([[float(b not in CONFLICTS.get(a, ())) for b in ATTRIBUTES] for a in ATTRIBUTES], np.float32)
"""_KEPT[a, b]: 0 where setting attribute a to 1 sets b to 0."""

_FREE = np.array([[field in FREE_STYLES.get(a, ()) for field in Style._fields] for a in ATTRIBUTES])
"""_FREE[a, f]: whether an edit of attribute a leaves field f of a face's style free."""

# --- one face -------------------------------------------------------------------------------------------------


def _labels(person: Array, shot: Array, natural: Array) -> Array:
    """Attributes (A,) of a shot: Male and Young from the person's key, the others from the shot's."""
    u = jax.random.uniform(person, (2,))
    male = u[0] < 0.43
    young = u[1] < jnp.where(male, 0.68, 0.84)
    coin = iter(jax.random.uniform(shot, (20,)))

    def happens(male_rate: float, female_rate: float) -> Array:
        return next(coin) < jnp.where(male, male_rate, female_rate)

    bald = happens(0.22, 0.0) & (~young | (next(coin) < 0.5))
    hat = happens(0.12, 0.08) & ~bald
    beard = happens(0.42, 0.0)
    mustache = happens(0.55, 0.0) & beard
    goatee = happens(0.55, 0.0) & beard
    smiling = happens(0.42, 0.53)
    # The hair is the person's own colour, or dyed; grey comes with age.
    dyed = next(coin) < 0.3
    tone = jnp.where(dyed, next(coin), natural)
    gray = next(coin) < jnp.where(young, 0.03, 0.34)
    edges = jnp.where(male, jnp.array([0.42, 0.76, 0.86]), jnp.array([0.27, 0.55, 0.86]))
    colour = jnp.where(bald, 9, jnp.where(gray, 4, jnp.searchsorted(edges, tone)))
    values = {
        "Bald": bald,
        "Bangs": happens(0.12, 0.26) & ~bald,
        "Black_Hair": colour == 0,
        "Brown_Hair": colour == 1,
        "Blond_Hair": colour == jnp.where(male, 3, 2),
        "Gray_Hair": colour == 4,
        "Bushy_Eyebrows": happens(0.28, 0.10),
        "Eyeglasses": happens(0.24, 0.12) | (~young & happens(0.12, 0.12)),
        "Goatee": goatee,
        "Male": male,
        "Mouth_Slightly_Open": next(coin) < jnp.where(smiling, 0.72, 0.27),
        "Mustache": mustache,
        "Narrow_Eyes": happens(0.13, 0.11),
        "No_Beard": ~beard,
        "Pale_Skin": happens(0.07, 0.13),
        "Rosy_Cheeks": happens(0.03, 0.18),
        "Smiling": smiling,
        "Wearing_Hat": hat,
        "Wearing_Lipstick": happens(0.02, 0.80),
        "Young": young,
    }
    return jnp.stack([values[name] for name in ATTRIBUTES]).astype(jnp.float32)


def sample_face(seed: Array | int, index: Array | int, style: Array | int = -1, shift: Array | float = SHIFT) -> Face:
    """Face `index` of the world `seed`; with `style` >= 0, all its within-attribute styles come from that stream.

    So does the skin's tone of a face that is labelled pale: nobody can tell which it would have otherwise. shift: how
    far faces are off the centre at most, along either axis, in pixels of the 178-pixel crop.

    A pure function of its arguments, scalars of any integer type; vmap for a batch.
    """
    world = jax.random.key(seed, impl="threefry2x32")
    one = jax.random.fold_in(jax.random.fold_in(world, 0), index // PER_PERSON)
    shot = jax.random.fold_in(jax.random.fold_in(world, 1), index)
    person = draw(Person, jax.random.fold_in(one, 0))
    labels = _labels(jax.random.fold_in(one, 1), jax.random.fold_in(shot, 0), person.natural)
    stream = jax.random.fold_in(jax.random.fold_in(shot, 1), style + 1)
    unknown = (style >= 0) & (labels[ATTRIBUTES.index("Pale_Skin")] > 0.5)
    tone = jnp.where(unknown, jax.random.uniform(jax.random.fold_in(stream, 0)), person.skin)
    taken = draw(Shot, jax.random.fold_in(shot, 2))
    farther = shift / SHIFT
    taken = taken._replace(shift_x=taken.shift_x * farther, shift_y=taken.shift_y * farther)
    return Face(person, taken, draw(Style, stream), labels, tone)


def _edited(
    seed: Array | int, index: Array | int, changed: Array, style: Array | int, shift: Array | float = SHIFT
) -> Face:
    """Face `index` where the attributes `changed`, bool (A,), leave its style free: from stream `style`, -1 its own."""
    face, redrawn = (sample_face(seed, index, stream, shift) for stream in (-1, style))
    bald = ATTRIBUTES.index("Bald")
    freeing = changed.at[bald].set(changed[bald] & (face.labels[bald] > 0.5))  # other people's hair is in view
    free = jnp.any(freeing[:, None] & _FREE, axis=0)
    styles = jnp.where(free, jnp.stack(redrawn.style), jnp.stack(face.style))
    tone = jnp.where(changed[ATTRIBUTES.index("Pale_Skin")], redrawn.tone, face.tone)
    return face._replace(style=Style(*styles), tone=tone)


def _eight_bit(image: Array) -> Array:
    return jnp.round((image + 1.0) * 127.5).astype(jnp.uint8)


def region(
    seed: Array | int, index: Array | int, attribute: Array | int, size: int, shift: Array | float = SHIFT
) -> Array:
    """Where an edit of the attribute may change the picture of face `index`: a soft mask (size, size) in [0, 1].

    The largest difference, over the face's own style and all STYLES streams for what the edit leaves free, between the
    pictures with the attribute 0 and 1, the other labels being the face's own, less those that the attribute excludes
    (`attributes.CONFLICTS`): 1 from a difference of 6/255 in any channel on, 0 for none. Then every pixel takes the
    largest value of its 3 x 3 neighbourhood.
    """
    labels = sample_face(seed, index).labels
    pair = jnp.stack([labels, labels * jnp.asarray(_KEPT)[attribute]]).at[:, attribute].set(jnp.array([0.0, 1.0]))
    changed = jnp.arange(len(ATTRIBUTES)) == attribute

    def picture(case: Array) -> Array:  # a loop compiles one renderer, not eighteen
        return render(_edited(seed, index, changed, case // 2 - 1, shift), pair[case % 2], size)

    pictures = jax.lax.map(picture, jnp.arange(2 * (STYLES + 1))).reshape(STYLES + 1, 2, size, size, 3)
    widest = jnp.abs(pictures[:, 1] - pictures[:, 0]).max((0, 3))
    mask = jnp.clip(widest * (127.5 / 6.0), 0.0, 1.0)
    return jax.lax.reduce_window(mask, 0.0, jax.lax.max, (3, 3), (1, 1), "SAME")


# --- chunks of faces ------------------------------------------------------------------------------------------


def _chunk(size: int) -> int:
    """Faces drawn by one call: a fixed number, so that one function is compiled for each size."""
    return max(1, min(64, 2**18 // size**2))


@lru_cache
def _renderer(size: int) -> Callable:
    def one(seed: Array, shift: Array, index: Array, labels: Array, style: Array) -> Array:
        changed = labels != sample_face(seed, index).labels
        return _eight_bit(render(_edited(seed, index, changed, style, shift), labels, size))

    return jax.jit(jax.vmap(one, (None, None, 0, 0, None)))


@lru_cache
def _wearer(size: int) -> Callable:
    def one(seed: Array, shift: Array, index: Array, labels: Array, owners: Array) -> Array:
        styles = jax.vmap(lambda owner: jnp.stack(sample_face(seed, owner).style))(owners)
        face = sample_face(seed, index, shift=shift)._replace(style=Style(*jnp.diagonal(styles)))
        return _eight_bit(render(face, labels, size))

    return jax.jit(jax.vmap(one, (None, None, 0, 0, 0)))


@lru_cache
def _masker(size: int, chunk: int) -> Callable:
    def one(seed: Array, shift: Array, index: Array, attribute: Array) -> Array:
        return region(seed, index, attribute, size, shift)

    # Compiled here, because several threads that call a new function would each compile it.
    of_chunk = jax.jit(jax.vmap(one, (None, None, 0, None)))
    return of_chunk.lower(np.uint32(0), np.float32(0), np.zeros(chunk, np.int32), np.int32(0)).compile()


@lru_cache
def _describer() -> Callable:
    def one(seed: Array, shift: Array, index: Array) -> tuple[Array, Array]:
        face = sample_face(seed, index, shift=shift)
        return face.labels, landmarks(face, int(TEMPLATE))

    return jax.jit(jax.vmap(one, (None, None, 0)))


def _chunked(chunk: int, *rows: np.ndarray) -> Iterator[tuple[list[np.ndarray], int]]:
    """Chunks of equal length with the number of entries to keep: the last is padded by repeating its last entry."""
    for start in range(0, len(rows[0]), chunk):
        parts = [array[start : start + chunk] for array in rows]
        short = chunk - len(parts[0])
        yield [np.concatenate([part, np.repeat(part[-1:], short, 0)]) for part in parts], chunk - short


class SyntheticSource:
    """`count` synthetic faces of `size` x `size` pixels (32 to 256) of the world `seed`: a `Source`.

    They are off the centre by up to `shift` pixels of the 178-pixel crop along either axis, 0 to 40; all else about a
    face is the same at every shift.

    Attributes:
      table: labels, identity, landmarks (in pixels of CelebA's 178 x 218 picture), and a split by identity of every
        twelve people: ten train, one valid, one test (12,000 faces: 10,000, 1,000 and 1,000).
      size: side of the pictures.
      crop: "center178", CelebA's square around the face, which the faces are drawn for.
    """

    crop = "center178"
    styles = STYLES

    def __init__(self, count: int = 12000, *, size: int, seed: int = 0, shift: float = SHIFT) -> None:
        if not SIZES[0] <= size <= SIZES[1]:
            raise UserError(
                f"synthetic faces of {size} pixels cannot be drawn; choose a size of {SIZES[0]} to {SIZES[1]}"
            )
        if not 1 <= count < 2**31:
            raise UserError(f"a set of {count} synthetic faces cannot be made; ask for 1 to {2**31 - 1}")
        if not 0 <= shift <= FARTHEST:
            raise UserError(f"synthetic faces cannot be {shift:g} pixels off the centre; choose 0 to {FARTHEST:g}")
        if not 0 <= seed < 2**32:
            raise UserError(f"the seed {seed} of synthetic faces is out of range; choose 0 to {2**32 - 1}")
        self.size, self.seed = size, seed
        self._world = np.uint32(seed), np.float32(shift)
        index = np.arange(count, dtype=np.int32)
        parts = [_describer()(*self._world, part) for (part,), _ in _chunked(4096, index)]
        labels, points = (np.concatenate(arrays)[:count] for arrays in zip(*parts, strict=True))
        identity = index.astype(np.int64) // PER_PERSON
        self.table = Table(
            attributes=ATTRIBUTES,
            labels=labels > 0.5,
            split=np.array([0] * 10 + [1, 2], np.int8)[identity % 12],
            names=[f"synthetic-{seed}-{i:06d}" for i in index],
            identity=identity,
            landmarks=points + np.array([0.0, ROW_OFFSET], np.float32),
        )

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Pictures (B, size, size, 3) uint8 of the faces at `indices` (B,)."""
        indices = self._checked(indices)
        return self._draw(indices, self.table.labels[indices], -1)

    def counterfactual(
        self,
        indices: np.ndarray,
        labels: np.ndarray,
        style: int | None = None,
        *,
        wearing: Mapping[str, np.ndarray] | None = None,
    ) -> np.ndarray:
        """The same faces with other attributes: uint8 (B, size, size, 3).

        `labels` (B, A) are 0 or 1 in the order of ATTRIBUTES. `style` None keeps each face's own styles, so that its
        own labels give its own picture, bit for bit; k in range(STYLES) draws what those that differ from its own leave
        free (`faces.FREE_STYLES`: frames, length of the bangs, shade of the hair, ...) anew from stream k, and nothing
        else. `wearing` names attributes (of `faces.STYLES_OF`) that are worn in other faces' own styles, each with
        those faces (B,), which need not have the attribute; `style` is None then.
        """
        indices, labels = self._checked(indices), np.asarray(labels)
        shape = (len(indices), len(ATTRIBUTES))
        if labels.shape != shape:
            raise UserError(f"labels of shape {labels.shape} do not fit; {len(indices)} faces need labels {shape}")
        if not np.isin(labels, (0, 1)).all():
            raise UserError("labels of a counterfactual must be 0 or 1")
        if style is not None and style not in range(STYLES):
            raise UserError(f"there is no style {style}; choose None or 0 to {STYLES - 1}")
        if wearing:
            if style is not None:
                raise UserError("styles are other faces' or drawn anew, not both")
            return self._draw(indices, labels, self._owners(indices, wearing))
        return self._draw(indices, labels, -1 if style is None else style)

    def region(self, indices: np.ndarray, attribute: str) -> np.ndarray:
        """Where `attribute` may change the pictures: (B, size, size) float32 in [0, 1], see `region`."""
        self.table.select([attribute])
        indices = self._checked(indices)
        number = np.int32(ATTRIBUTES.index(attribute))
        chunk = min(16, _chunk(self.size))
        masker = _masker(self.size, chunk)

        def masks(part: tuple[list[np.ndarray], int]) -> np.ndarray:
            (rows,), kept = part
            return np.asarray(masker(*self._world, rows, number))[:kept]

        with ThreadPoolExecutor(os.cpu_count()) as threads:  # XLA draws one chunk on one core
            parts = list(threads.map(masks, _chunked(chunk, indices)))
        return np.concatenate([np.zeros((0, self.size, self.size), np.float32), *parts])

    def _checked(self, indices: np.ndarray) -> np.ndarray:
        indices = np.asarray(indices)
        if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
            raise UserError(f"indices must be whole numbers (B,), not {indices.dtype} of shape {indices.shape}")
        wrong = indices[(indices < 0) | (indices >= len(self.table))]
        if len(wrong):
            raise UserError(f"there is no face {wrong[0]}; this set has faces 0 to {len(self.table) - 1}")
        return indices.astype(np.int32)

    def _owners(self, indices: np.ndarray, wearing: Mapping[str, np.ndarray]) -> np.ndarray:
        """Whose each field of a face's style is: (B, number of fields)."""
        owners = np.repeat(indices[:, None], len(Style._fields), axis=1)
        for attribute, faces in wearing.items():
            if attribute not in STYLES_OF:
                raise UserError(
                    f"{attribute} has no style of its own{nearest(attribute, STYLES_OF)}; {', '.join(STYLES_OF)} have"
                )
            faces = self._checked(faces)
            if faces.shape != indices.shape:
                raise UserError(f"{len(faces)} wearers of {attribute} do not fit {len(indices)} faces")
            owners[:, [Style._fields.index(name) for name in STYLES_OF[attribute]]] = faces[:, None]
        return owners

    def _draw(self, indices: np.ndarray, labels: np.ndarray, style: int | np.ndarray) -> np.ndarray:
        """`style`: a stream, or -1 for the faces' own; or the `_owners` of each face's."""
        draw_chunk = (_wearer if isinstance(style, np.ndarray) else _renderer)(self.size)
        labels, styles = np.asarray(labels, np.float32), np.asarray(style, np.int32)
        rows = (indices, labels, styles) if styles.ndim else (indices, labels)
        parts = [
            np.asarray(draw_chunk(*self._world, *row, *(() if styles.ndim else (styles,))))[:kept]
            for row, kept in _chunked(_chunk(self.size), *rows)
        ]
        return np.concatenate([np.zeros((0, self.size, self.size, 3), np.uint8), *parts])
