"""Which pictures make up a batch: pure functions of a key, a draw number and an index.

Every sampler reads endless streams in which each epoch is a pseudo-random permutation of the pictures to draw from,
computed rather than stored. Draw number d is the d-th batch, whichever came before, so a resumed run goes on with the
batches of an unbroken one. All of it is jax.numpy on 32-bit integers: the input pipeline runs it on the host, and it
can be traced into a training step. A stream is 2**32 pictures long.

A sampler is called with `draw` and `index`, int32 scalars that may be traced; `index` is the iteration's index within
the cycle of its stage (the attribute, in ELEGANT), and only `opposite_pairs` looks at it.

`dealt` has every batch drawn from a fixed number of shards, of which a device may hold its share: the training pictures
are dealt out in turn (`homes`), and a batch's rows lie in the order of the shards. One device and many draw the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from faceattr_jax.errors import UserError

ROUNDS = 8

Rows = jax.Array | dict[str, jax.Array]


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws batches of dataset indices.

    Attributes:
      batch_size: B, the number of pictures at each leaf.
      state: a pytree of NumPy arrays: keys, and what may be drawn.
      rows: (state, draw, index) -> a pytree of (B,) int32 dataset indices.
      part: (shard, shards, homes) -> the sampler of B / shards pictures, those that are at home in that shard.
    """

    batch_size: int
    state: Any
    rows: Callable[[Any, ArrayLike, ArrayLike], Rows]
    part: Callable[[int, int, np.ndarray], "Sampler"]

    def __call__(self, draw: ArrayLike, index: ArrayLike) -> Rows:
        return self.rows(self.state, draw, index)


def dealt(sampler: Sampler, shards: int, homes: np.ndarray) -> Sampler:
    """Batches of `sampler` of which each of `shards` gives an equal part, in order; 1 is the sampler itself.

    homes: of every picture of the data set, from the function of that name. Every shard has streams of its own. Raises
    UserError where the batch cannot be divided so, or a shard has nothing to draw.
    """
    if shards == 1:
        return sampler
    try:
        parts = [sampler.part(shard, shards, homes) for shard in range(max(shards, 0))]
    except UserError as error:
        raise UserError(f"data.shards is {shards}, too many for these data: in one of them {error}") from error
    if sum(part.batch_size for part in parts) != sampler.batch_size:
        raise UserError(f"data.shards is {shards}; it should divide what a batch of {sampler.batch_size} is made of")

    def rows(state: Any, draw: ArrayLike, index: ArrayLike) -> Rows:
        each = jax.vmap(lambda own: parts[0].rows(own, draw, index))(state)
        return jax.tree.map(lambda leaf: leaf.reshape(-1), each)

    state = jax.tree.map(_stacked, *[part.state for part in parts])
    return Sampler(sampler.batch_size, state, rows, sampler.part)


def homes(indices: np.ndarray, pictures: int, shards: int) -> np.ndarray:
    """The shard of every picture of a data set of so many, -1 for those not at `indices`, which are dealt in turn."""
    found = np.full(pictures, -1)
    found[indices] = np.arange(len(indices)) % max(shards, 1)
    return found


def _stacked(*leaves: np.ndarray) -> np.ndarray:
    """Arrays of one rank on a new first axis, filled up to the longest; what is filled in is never drawn."""
    longest = map(max, *[leaf.shape for leaf in leaves])
    stacked = np.zeros((len(leaves), *longest), leaves[0].dtype)
    for number, leaf in enumerate(leaves):
        place: Any = (number, *map(slice, leaf.shape))
        stacked[place] = leaf
    return stacked


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


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _Stream:
    """An endless stream of some pictures. key: its words. members: (M,). count: M, which padding does not count in."""

    key: np.ndarray
    members: np.ndarray
    count: np.ndarray

    def __call__(self, positions: jax.Array, *path: ArrayLike) -> jax.Array:
        return jnp.asarray(self.members)[permuted(_key(self.key, *path), positions, self.count)]


def _stream(key: jax.Array, indices: np.ndarray, what: str) -> _Stream:
    members = _members(indices, what)
    return _Stream(_words(key), members, np.asarray(len(members), np.int32))


def uniform(key: jax.Array, indices: np.ndarray, batch_size: int) -> Sampler:
    """Batches (B,) of `indices`, each index once an epoch; draw d takes positions d * B to d * B + B - 1.

    Raises UserError where there are no indices.
    """

    def rows(stream: _Stream, draw: ArrayLike, index: ArrayLike) -> jax.Array:
        return stream(_positions(draw, batch_size))

    def part(shard: int, shards: int, homes: np.ndarray) -> Sampler:
        own = homes[indices] == shard
        return uniform(jax.random.fold_in(key, shard), indices[own], batch_size // shards)

    return Sampler(batch_size, _stream(key, indices, "the split"), rows, part)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _Sides:
    """Two endless streams for each attribute: the pictures that have it and those that have not.

    key: of all streams. order: (n, M) pictures, of each attribute those that have it first. counts: (n,) of these.
    total: M, which padding does not count in.
    """

    key: np.ndarray
    order: np.ndarray
    counts: np.ndarray
    total: np.ndarray

    def __call__(self, attribute: ArrayLike, has: ArrayLike, positions: jax.Array) -> jax.Array:
        """(B,) pictures at (B,) `positions` of the stream of those with `attribute` (`has` is 1) or without it (0)."""
        count = jnp.asarray(self.counts)[attribute]
        size = jnp.where(has, count, jnp.asarray(self.total) - count)
        own = permuted(_key(self.key, attribute, has), positions, size)
        return jnp.asarray(self.order)[attribute, jnp.where(has, 0, count) + own]


def _sides(key: jax.Array, indices: np.ndarray, labels: np.ndarray) -> _Sides:
    has = np.asarray(labels).astype(bool)
    for i in range(has.shape[1]):
        _members(indices[has[:, i]], f"the class with attribute {i}")
        _members(indices[~has[:, i]], f"the class without attribute {i}")
    order = np.asarray(indices, np.int32)[np.argsort(~has, axis=0, kind="stable")].T
    return _Sides(_words(key), order, has.sum(axis=0, dtype=np.int32), np.asarray(len(indices), np.int32))


def balanced(key: jax.Array, indices: np.ndarray, labels: np.ndarray, batch_size: int) -> Sampler:
    """Batches (B,) of `indices` (M,) that go round the two sides of every attribute of `labels` (M, n).

    A picture with the first attribute, one without it, one with the second, and so on, from batch to batch; each of
    the 2n sides is a stream of its own, so rare ones come round more often. With one attribute every batch of even
    size is half and half, and so is every even slice of it, such as one device's; odd parts are refused. Raises
    UserError where an attribute has no pictures on one side.
    """
    n = np.shape(labels)[1]

    def rows(sides: _Sides, draw: ArrayLike, index: ArrayLike) -> jax.Array:
        turn = _positions(draw, batch_size)
        attribute, has = turn // jnp.uint32(2) % jnp.uint32(n), jnp.uint32(1) - turn % jnp.uint32(2)
        return jax.vmap(lambda a, h, p: sides(a, h, p[None])[0])(attribute, has, turn // jnp.uint32(2 * n))

    def part(shard: int, shards: int, homes: np.ndarray) -> Sampler:
        own = homes[indices] == shard
        if batch_size // shards % 2:
            raise UserError(f"{batch_size // shards} of a batch of {batch_size} are not half with and half without it")
        return balanced(jax.random.fold_in(key, shard), indices[own], labels[own], batch_size // shards)

    return Sampler(batch_size, _sides(key, indices, labels), rows, part)


def opposite_pairs(key: jax.Array, indices: np.ndarray, labels: np.ndarray, batch_size: int) -> Sampler:
    """{"positive", "negative"}: B of `indices` (M,) with attribute `index`, and B without, by `labels` (M, n).

    Both sides of every attribute are streams of their own, independently shuffled (ELEGANT's unpaired sets). Raises
    UserError where an attribute has no pictures on one side.
    """

    def rows(sides: _Sides, draw: ArrayLike, index: ArrayLike) -> dict[str, jax.Array]:
        positions = _positions(draw, batch_size)
        return {"positive": sides(index, 1, positions), "negative": sides(index, 0, positions)}

    def part(shard: int, shards: int, homes: np.ndarray) -> Sampler:
        own = homes[indices] == shard
        return opposite_pairs(jax.random.fold_in(key, shard), indices[own], labels[own], batch_size // shards)

    return Sampler(batch_size, _sides(key, indices, labels), rows, part)


def source_guided(key: jax.Array, source_indices: np.ndarray, guided_indices: np.ndarray, batch_size: int) -> Sampler:
    """{"source", "guided"}: B of each set, from independent streams (DIAT's source and guided sets).

    Raises UserError where a set is empty.
    """
    sets = {
        "source": _stream(key, source_indices, "the source set"),
        "guided": _stream(key, guided_indices, "the guided set"),
    }

    def rows(sets: dict[str, _Stream], draw: ArrayLike, index: ArrayLike) -> dict[str, jax.Array]:
        positions = _positions(draw, batch_size)
        # Numbered as above: JAX hands dictionaries back in the order of their names.
        return {name: sets[name](positions, number) for number, name in enumerate(("source", "guided"))}

    def part(shard: int, shards: int, homes: np.ndarray) -> Sampler:
        source, guided = (own[homes[own] == shard] for own in (source_indices, guided_indices))
        return source_guided(jax.random.fold_in(key, shard), source, guided, batch_size // shards)

    return Sampler(batch_size, sets, rows, part)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class _People:
    """key: of all streams. members: pictures (M,), those of each person in a row. starts, counts: of these (P,).

    people: P, which padding does not count in.
    """

    key: np.ndarray
    members: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    people: np.ndarray

    def pictures(self, person: jax.Array, visit: jax.Array, count: int) -> jax.Array:
        """The `count` pictures of a person's visit number `visit`."""
        own = permuted(_key(self.key, 1, person), _positions(visit, count), jnp.asarray(self.counts)[person])
        return jnp.asarray(self.members)[jnp.asarray(self.starts)[person] + own]


def by_identity(key: jax.Array, indices: np.ndarray, identity: np.ndarray, people: int, per_person: int) -> Sampler:
    """Batches (people * per_person,) of `indices` (M,), `per_person` pictures in a row of each person.

    Every person comes once in an epoch of people, and with each visit gets the next `per_person` of his or her own
    stream of pictures; who has fewer comes with repeated ones. `identity` is (M,). Raises UserError where there are
    fewer persons than `people`.
    """
    numbers, counts = np.unique(identity, return_counts=True)
    if people < 1 or len(numbers) < people:
        raise UserError(f"a batch of {people} people cannot be drawn from {len(numbers)}")
    members = np.asarray(indices, np.int32)[np.argsort(identity, kind="stable")]
    counts = counts.astype(np.int32)
    starts = np.cumsum(counts, dtype=np.int32) - counts

    def rows(everybody: _People, draw: ArrayLike, index: ArrayLike) -> jax.Array:
        positions = _positions(draw, people)
        number = jnp.asarray(everybody.people)
        person = permuted(_key(everybody.key, 0), positions, number)
        visits = positions // number.astype(jnp.uint32)
        return jax.vmap(lambda p, v: everybody.pictures(p, v, per_person))(person, visits).reshape(-1)

    def part(shard: int, shards: int, homes: np.ndarray) -> Sampler:
        own = homes[indices] == shard
        key_of_shard = jax.random.fold_in(key, shard)
        return by_identity(key_of_shard, indices[own], identity[own], people // shards, per_person)

    state = _People(_words(key), members, starts, counts, np.asarray(len(numbers), np.int32))
    return Sampler(people * per_person, state, rows, part)
