import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data import sampling
from faceattr_jax.errors import UserError

KEY = jax.random.key(5)
PERMUTED = jax.jit(sampling.permuted)

pytestmark = pytest.mark.usefixtures("strict_promotion")


@pytest.fixture(autouse=True)
def no_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield


def stream(n, epochs, key=KEY):
    return np.asarray(PERMUTED(key, jnp.arange(n * epochs, dtype=jnp.int32), n)).reshape(epochs, n)


def draws(sampler, count, index=0, start=0):
    rows = jax.jit(sampler)
    batches = [rows(jnp.int32(draw), jnp.int32(index)) for draw in range(start, start + count)]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *batches)


# --- permuted ---


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 1000, 4096, 4097])
def test_every_epoch_is_a_permutation(n):
    epochs = stream(n, 3)
    np.testing.assert_array_equal(np.sort(epochs), np.broadcast_to(np.arange(n), (3, n)))


def test_epochs_and_keys_differ_and_the_same_key_repeats():
    first = stream(1000, 3)
    # Two unrelated permutations agree in one place on average.
    assert (first[0] == first[1]).sum() < 8
    assert (first[0] == np.arange(1000)).sum() < 8
    assert (first == stream(1000, 3, jax.random.key(6))).sum() < 20
    np.testing.assert_array_equal(first, stream(1000, 3))


def test_a_position_does_not_depend_on_its_batch():
    whole = stream(1000, 2).reshape(-1)
    scattered = np.array([1999, 3, 1000, 999, 0], np.int32)
    np.testing.assert_array_equal(PERMUTED(KEY, jnp.asarray(scattered), 1000), whole[scattered])


def chi_square(counts, expected):
    """Deviations from the expectation: about 0 for chance, with standard deviation 1."""
    degrees = counts.size - 1
    return (((counts - expected) ** 2).sum() / expected - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize("n", [3, 10, 37])
def test_every_place_is_uniform(n):
    count = 4000
    epochs = stream(n, count)
    places = np.stack([np.bincount(epochs[:, i], minlength=n) for i in range(n)])
    assert abs(chi_square(places, count / n)) < 5


def test_neighbours_are_independent():
    n, count = 10, 20_000
    epochs = stream(n, count)
    pairs = np.bincount(epochs[:, 0] * n + epochs[:, 1], minlength=n * n).reshape(n, n)
    assert not pairs.diagonal().any()
    assert abs(chi_square(pairs[~np.eye(n, dtype=bool)], count / (n * (n - 1)))) < 5


def test_large_n_and_late_positions_fit_into_32_bits():
    n = 2**31 - 1
    position = jnp.uint32(2**32 - 64) + jnp.arange(64, dtype=jnp.uint32)
    late = np.asarray(PERMUTED(KEY, position, n))
    assert late.dtype == np.int32
    assert (late >= 0).all()
    assert len(set(late.tolist())) == 64
    # Spread over the whole range: the mean of 64 uniform numbers is within 5 of its standard deviations.
    assert abs(late.mean() / n - 0.5) < 5 / math.sqrt(12 * 64)


# --- samplers ---

INDICES = np.arange(100, 137)


def test_uniform_batches_are_the_stream_in_pieces():
    sampler = sampling.uniform(KEY, INDICES, 8)
    assert sampler.batch_size == 8
    rows = draws(sampler, 37)
    assert rows.shape == (37, 8)
    epochs = rows.reshape(8, 37)  # 37 draws of 8 are 8 epochs of 37
    np.testing.assert_array_equal(np.sort(epochs), np.broadcast_to(INDICES, (8, 37)))
    np.testing.assert_array_equal(draws(sampler, 3, start=20), rows[20:23])


def test_the_index_matters_to_pairs_alone():
    sampler = sampling.uniform(KEY, INDICES, 8)
    np.testing.assert_array_equal(draws(sampler, 2, index=0), draws(sampler, 2, index=3))


def test_keys_matter():
    assert (
        draws(sampling.uniform(KEY, INDICES, 8), 1) != draws(sampling.uniform(jax.random.key(1), INDICES, 8), 1)
    ).any()


def test_balanced_is_half_and_half_in_every_slice():
    labels = np.zeros((37, 1))
    labels[[3, 5, 20]] = 1
    rows = draws(sampling.balanced(KEY, INDICES, labels, 8), 34)
    given = labels[rows - 100, 0]
    np.testing.assert_array_equal(given.reshape(-1, 2).sum(1), 1)
    # Oversampled: each class is a stream of whole epochs (34 draws of 4 are 4 epochs of the 34 without).
    without = rows[given == 0]
    np.testing.assert_array_equal(np.sort(without.reshape(4, 34)), np.broadcast_to(INDICES[labels[:, 0] == 0], (4, 34)))
    thrice = rows[given == 1][: 3 * 45].reshape(45, 3)
    np.testing.assert_array_equal(np.sort(thrice), np.broadcast_to([103, 105, 120], (45, 3)))


LABELS = np.random.default_rng(0).random((37, 3)) < [0.2, 0.5, 0.9]


def test_balanced_goes_round_the_sides_of_every_attribute():
    turns = draws(sampling.balanced(KEY, INDICES, LABELS, 4), 37 * 3 * 3).reshape(-1, 6)  # batches of 4, rounds of 6
    for attribute in range(3):
        for place, members in enumerate((LABELS[:, attribute], ~LABELS[:, attribute])):
            side, size = turns[:, 2 * attribute + place], members.sum()
            epochs = side[: len(side) // size * size].reshape(-1, size)
            np.testing.assert_array_equal(np.sort(epochs), np.broadcast_to(INDICES[members], epochs.shape))


def test_pairs_have_opposite_labels_and_cover_each_side():
    sampler = sampling.opposite_pairs(KEY, INDICES, LABELS, 4)
    for attribute in range(3):
        rows = draws(sampler, 60, index=attribute)
        for side, value in (("positive", True), ("negative", False)):
            assert (LABELS[rows[side] - 100, attribute] == value).all()
            members = INDICES[LABELS[:, attribute] == value]
            epochs = rows[side].reshape(-1)[: 240 // len(members) * len(members)].reshape(-1, len(members))
            np.testing.assert_array_equal(np.sort(epochs), np.broadcast_to(members, epochs.shape))


def test_pairs_are_shuffled_independently():
    # Both sides have eight: were they shuffled alike, each positive would always meet the same negative.
    labels = np.arange(16)[:, None] < 8
    rows = draws(sampling.opposite_pairs(KEY, np.arange(16), labels, 8), 100)
    met = {(p, n) for p, n in zip(rows["positive"].flat, rows["negative"].flat, strict=True)}
    assert len(met) == 64


def test_source_and_guided_sets_are_independent_streams():
    source, guided = np.arange(5), np.arange(50, 57)
    rows = draws(sampling.source_guided(KEY, source, guided, 5), 7)
    np.testing.assert_array_equal(np.sort(rows["source"]), np.broadcast_to(source, (7, 5)))
    np.testing.assert_array_equal(np.sort(rows["guided"].reshape(5, 7)), np.broadcast_to(guided, (5, 7)))


def test_by_identity_gives_each_person_a_share():
    identity = np.repeat([30, 10, 20, 40, 50], [1, 2, 3, 6, 7])[np.random.default_rng(1).permutation(19)]
    indices = np.arange(200, 219)
    sampler = sampling.by_identity(KEY, indices, identity, people=5, per_person=3)
    assert sampler.batch_size == 15
    rows = draws(sampler, 14)
    people = identity[rows - 200].reshape(14, 5, 3)
    assert (people == people[:, :, :1]).all()
    # Five people a draw are one epoch of five: each of them comes once a draw ...
    np.testing.assert_array_equal(np.sort(people[:, :, 0]), np.broadcast_to([10, 20, 30, 40, 50], (14, 5)))
    # ... in another order, and goes through his or her own pictures before one comes again.
    assert len({tuple(draw) for draw in people[:, :, 0]}) > 5
    for person in (10, 20, 30, 40, 50):
        own = indices[identity == person]
        shown = rows[identity[rows - 200] == person][: 42 // len(own) * len(own)].reshape(-1, len(own))
        np.testing.assert_array_equal(np.sort(shown), np.broadcast_to(own, shown.shape))


def test_samplers_trace_into_a_larger_function():
    sampler = sampling.opposite_pairs(KEY, INDICES, LABELS, 4)

    def step(carry, draw):
        return carry, sampler(draw, draw % 3)

    _, rows = jax.lax.scan(step, 0, jnp.arange(6, dtype=jnp.int32))
    for draw in range(6):
        np.testing.assert_array_equal(rows["negative"][draw], draws(sampler, 1, draw % 3, draw)["negative"][0])


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: sampling.uniform(KEY, INDICES[:0], 8), "the split is empty"),
        (lambda: sampling.balanced(KEY, INDICES, np.ones((37, 1)), 8), "without attribute 0 is empty"),
        (lambda: sampling.opposite_pairs(KEY, INDICES, LABELS * [1, 0, 1], 8), "with attribute 1 is empty"),
        (lambda: sampling.source_guided(KEY, INDICES, INDICES[:0], 8), "the guided set is empty"),
        (lambda: sampling.by_identity(KEY, INDICES, INDICES % 3, 4, 2), "4 people cannot be drawn from 3"),
    ],
)
def test_what_cannot_be_drawn_is_refused(build, says):
    with pytest.raises(UserError, match=says):
        build()


# --- dealt ---

MANY = np.arange(5, 205)
MANY_LABELS = np.stack([MANY % 3 == 0, MANY % 7 < 3], 1)
BUILT = {
    "uniform": lambda: sampling.uniform(KEY, MANY, 8),
    "balanced": lambda: sampling.balanced(KEY, MANY, MANY_LABELS, 8),
    "opposite_pairs": lambda: sampling.opposite_pairs(KEY, MANY, MANY_LABELS, 8),
    "source_guided": lambda: sampling.source_guided(KEY, MANY[:120], MANY[70:], 8),
    "by_identity": lambda: sampling.by_identity(KEY, MANY, MANY // 12, people=4, per_person=2),
}


@pytest.mark.parametrize("name", BUILT)
def test_every_shard_gives_its_part_of_a_batch(name):
    whole = BUILT[name]()
    homes = sampling.homes(MANY, 205, 4)
    assert sampling.dealt(whole, 1, homes) is whole
    rows = draws(sampling.dealt(whole, 4, homes), 6, index=1)
    for leaf in jax.tree.leaves(rows):
        assert leaf.shape == (6, 8)
        np.testing.assert_array_equal(homes[leaf], np.tile(np.repeat(np.arange(4), 2), (6, 1)))
        assert np.isin(leaf, MANY).all()
    # A shard's rows are those of a sampler of its own pictures.
    alone = draws(whole.part(2, 4, homes), 6, index=1)
    jax.tree.map(lambda leaf, own: np.testing.assert_array_equal(leaf[:, 4:6], own), rows, alone)


def test_an_epoch_of_a_shard_is_a_permutation_of_its_pictures():
    homes = sampling.homes(INDICES, INDICES.max() + 1, 4)
    rows = draws(sampling.dealt(sampling.uniform(KEY, INDICES, 4), 4, homes), 10)  # shards of 9 and 10 pictures
    for shard in range(4):
        own = np.flatnonzero(homes == shard)
        np.testing.assert_array_equal(np.sort(rows[: len(own), shard]), own)


@pytest.mark.parametrize(
    ("sampler", "shards", "message"),
    [
        (
            lambda: sampling.uniform(KEY, INDICES, 8),
            3,
            "data.shards is 3; it should divide what a batch of 8 is made of",
        ),
        (lambda: sampling.uniform(KEY, INDICES, 8), 0, "data.shards is 0"),
        (
            lambda: sampling.uniform(KEY, INDICES[:2], 8),
            4,
            "too many for these data: in one of them the split is empty",
        ),
        (
            lambda: sampling.balanced(KEY, INDICES, LABELS, 12),
            4,
            "in one of them 3 of a batch of 12 are not half with and half without it",
        ),
        (lambda: BUILT["by_identity"](), 3, "divide what a batch of 8"),
    ],
)
def test_shards_that_cannot_be_are_refused(sampler, shards, message):
    with pytest.raises(UserError, match=message):
        sampling.dealt(sampler(), shards, sampling.homes(np.arange(300), 300, shards))
