"""Which pictures make up a batch: pure functions of a key, a draw number and an index.

Every sampler reads endless streams in which each epoch is a pseudo-random permutation of the pictures to draw from,
computed rather than stored. Draw number d is the d-th batch, whichever came before, so a resumed run goes on with the
batches of an unbroken one. All of it is jax.numpy on 32-bit integers: the input pipeline runs it on the host, and it
can be traced into a training step. A stream is 2**32 pictures long.

A sampler is called with `draw` and `index`, int32 scalars that may be traced; `index` is the iteration's index within
the cycle of its stage (the attribute, in ELEGANT), and only `opposite_pairs` looks at it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from faceattr_jax.errors import UserError

ROUNDS = 8


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws batches of dataset indices.

    Attributes:
      batch_size: B, the number of pictures at each leaf.
      rows: (draw, index) -> a pytree of (B,) int32 dataset indices.
    """

    batch_size: int
    rows: Callable[[ArrayLike, ArrayLike], jax.Array | dict[str, jax.Array]]

    def __call__(self, draw: ArrayLike, index: ArrayLike) -> jax.Array | dict[str, jax.Array]:
        return self.rows(draw, index)


def permuted(key: jax.Array, position: ArrayLike, n: ArrayLike) -> jax.Array:
    """Element `position` of an endless stream whose every n elements are a permutation of range(n).

    Epoch e of the stream, positions e * n to e * n + n - 1, is permuted by a Feistel network keyed with `key` and e
    over the smallest power of four that holds n; numbers outside range(n) are walked on along their cycle until they
    are back inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).

    Args:
      key: a key; may be traced.
      position: (B,) 32-bit integers, taken modulo 2**32.
      n: scalar, 1 <= n <= 2**31; may be traced.

    Returns:
      (B,) int32 in [0, n).
    """
    n = jnp.asarray(n).astype(jnp.uint32)
    position = jnp.asarray(position).astype(jnp.uint32)
    epoch, offset = position // n, position % n
    keys = jax.vmap(lambda e: jax.random.bits(jax.random.fold_in(key, e), (ROUNDS,), jnp.uint32))(epoch)
    bits = jnp.uint32(32) - jax.lax.clz(n - jnp.uint32(1))
    half = jnp.maximum((bits + jnp.uint32(1)) // jnp.uint32(2), jnp.uint32(1))
    mask = (jnp.uint32(1) << half) - jnp.uint32(1)

    def permute(x: jax.Array) -> jax.Array:
        left, right = x >> half, x & mask
        for r in range(ROUNDS):
            left, right = right, left ^ (_mix(right ^ keys[:, r]) & mask)
        return left << half | right

    inside = jax.lax.while_loop(lambda x: jnp.any(x >= n), lambda x: jnp.where(x >= n, permute(x), x), permute(offset))
    return inside.astype(jnp.int32)


def _mix(x: jax.Array) -> jax.Array:
    """A hash of uint32 in which every input bit reaches every output bit (MurmurHash3's last step)."""
    x = (x ^ x >> jnp.uint32(16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ x >> jnp.uint32(13)) * jnp.uint32(0xC2B2AE35)
    return x ^ x >> jnp.uint32(16)


def _words(key: jax.Array) -> np.ndarray:
    """The key as plain numbers, which any backend and any process can hold."""
    return np.asarray(jax.random.key_data(key)).reshape(-1)[:2]


def _key(words: np.ndarray, *path: ArrayLike) -> jax.Array:
    """The key of `words`, folded with each number of `path`.

    Always threefry: other generators give other bits under `vmap`, and a permutation has to be the same at each use.
    """
    key = jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")
    for number in path:
        key = jax.random.fold_in(key, number)
    return key


def _positions(draw: ArrayLike, count: int) -> jax.Array:
    """Positions of draw number `draw` in a stream that gives `count` a draw; wraps at 2**32."""
    return jnp.asarray(draw).astype(jnp.uint32) * jnp.uint32(count) + jnp.arange(count, dtype=jnp.uint32)


def _members(indices: np.ndarray, what: str) -> np.ndarray:
    if len(indices) == 0:
        raise UserError(f"{what} is empty; there is nothing to draw a batch from")
    return np.asarray(indices, np.int32)


def uniform(key: jax.Array, indices: np.ndarray, batch_size: int) -> Sampler:
    """Batches (B,) of `indices`, each index once an epoch; draw d takes positions d * B to d * B + B - 1.

    Raises UserError where there are no indices.
    """
    words, members = _words(key), _members(indices, "the split")

    def rows(draw: ArrayLike, index: ArrayLike) -> jax.Array:
        return jnp.asarray(members)[permuted(_key(words), _positions(draw, batch_size), len(members))]

    return Sampler(batch_size, rows)


@dataclass(frozen=True, eq=False)
class _Sides:
    """Two endless streams for each attribute: the pictures that have it and those that have not.

    key: of all streams. order: (n, M) pictures, of each attribute those that have it first. counts: (n,) of these.
    """

    key: np.ndarray
    order: np.ndarray
    counts: np.ndarray

    def __call__(self, attribute: ArrayLike, has: ArrayLike, positions: jax.Array) -> jax.Array:
        """(B,) pictures at (B,) `positions` of the stream of those with `attribute` (`has` is 1) or without it (0)."""
        count = jnp.asarray(self.counts)[attribute]
        size = jnp.where(has, count, self.order.shape[1] - count)
        own = permuted(_key(self.key, attribute, has), positions, size)
        return jnp.asarray(self.order)[attribute, jnp.where(has, 0, count) + own]


def _sides(key: jax.Array, indices: np.ndarray, labels: np.ndarray) -> _Sides:
    has = np.asarray(labels).astype(bool)
    for i in range(has.shape[1]):
        _members(indices[has[:, i]], f"the class with attribute {i}")
        _members(indices[~has[:, i]], f"the class without attribute {i}")
    order = np.asarray(indices, np.int32)[np.argsort(~has, axis=0, kind="stable")].T
    return _Sides(_words(key), order, has.sum(axis=0, dtype=np.int32))


def balanced(key: jax.Array, indices: np.ndarray, labels: np.ndarray, batch_size: int) -> Sampler:
    """Batches (B,) of `indices` (M,) that go round the two sides of every attribute of `labels` (M, n).

    A picture with the first attribute, one without it, one with the second, and so on, from batch to batch; each of
    the 2n sides is a stream of its own, so rare ones come round more often. With one attribute every batch of even
    size is half and half, and so is every even slice of it, such as one device's. Raises UserError where an attribute
    has no pictures on one side.
    """
    sides, n = _sides(key, indices, labels), np.shape(labels)[1]

    def rows(draw: ArrayLike, index: ArrayLike) -> jax.Array:
        turn = _positions(draw, batch_size)
        attribute, has = turn // jnp.uint32(2) % jnp.uint32(n), jnp.uint32(1) - turn % jnp.uint32(2)
        return jax.vmap(lambda a, h, p: sides(a, h, p[None])[0])(attribute, has, turn // jnp.uint32(2 * n))

    return Sampler(batch_size, rows)


def opposite_pairs(key: jax.Array, indices: np.ndarray, labels: np.ndarray, batch_size: int) -> Sampler:
    """{"positive", "negative"}: B of `indices` (M,) with attribute `index`, and B without, by `labels` (M, n).

    Both sides of every attribute are streams of their own, independently shuffled (ELEGANT's unpaired sets). Raises
    UserError where an attribute has no pictures on one side.
    """
    sides = _sides(key, indices, labels)

    def rows(draw: ArrayLike, index: ArrayLike) -> dict[str, jax.Array]:
        positions = _positions(draw, batch_size)
        return {"positive": sides(index, 1, positions), "negative": sides(index, 0, positions)}

    return Sampler(batch_size, rows)


def source_guided(key: jax.Array, source_indices: np.ndarray, guided_indices: np.ndarray, batch_size: int) -> Sampler:
    """{"source", "guided"}: B of each set, from independent streams (DIAT's source and guided sets).

    Raises UserError where a set is empty.
    """
    words = _words(key)
    sets = {
        "source": _members(source_indices, "the source set"),
        "guided": _members(guided_indices, "the guided set"),
    }

    def rows(draw: ArrayLike, index: ArrayLike) -> dict[str, jax.Array]:
        positions = _positions(draw, batch_size)
        return {
            name: jnp.asarray(members)[permuted(_key(words, number), positions, len(members))]
            for number, (name, members) in enumerate(sets.items())
        }

    return Sampler(batch_size, rows)


def by_identity(key: jax.Array, indices: np.ndarray, identity: np.ndarray, people: int, per_person: int) -> Sampler:
    """Batches (people * per_person,) of `indices` (M,), `per_person` pictures in a row of each person.

    Every person comes once in an epoch of people, and with each visit gets the next `per_person` of his or her own
    stream of pictures; who has fewer comes with repeated ones. `identity` is (M,). Raises UserError where there are
    fewer persons than `people`.
    """
    words = _words(key)
    numbers, counts = np.unique(identity, return_counts=True)
    if len(numbers) < people:
        raise UserError(f"a batch of {people} people cannot be drawn from {len(numbers)}")
    # The pictures of each person in a row.
    members = np.asarray(indices, np.int32)[np.argsort(identity, kind="stable")]
    counts = counts.astype(np.int32)
    starts = np.cumsum(counts, dtype=np.int32) - counts

    def pictures(person: jax.Array, visit: jax.Array) -> jax.Array:
        own = permuted(_key(words, 1, person), _positions(visit, per_person), jnp.asarray(counts)[person])
        return jnp.asarray(members)[jnp.asarray(starts)[person] + own]

    def rows(draw: ArrayLike, index: ArrayLike) -> jax.Array:
        positions = _positions(draw, people)
        person = permuted(_key(words, 0), positions, len(numbers))
        return jax.vmap(pictures)(person, positions // jnp.uint32(len(numbers))).reshape(-1)

    return Sampler(people * per_person, rows)
