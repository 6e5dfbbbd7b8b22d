import threading
import time
from dataclasses import dataclass, field

import jax
import numpy as np
import pytest

from faceattr_jax.data import pipeline, sampling
from faceattr_jax.data.source import Table
from faceattr_jax.errors import UserError

KEY = jax.random.key(2)


@dataclass
class Counting:
    """Twenty pictures, each filled with its index; remembers what was asked for, and from which thread."""

    asked: list = field(default_factory=list)
    threads: set = field(default_factory=set)
    size: int = 4
    crop: str = "none"
    table: Table = field(
        default_factory=lambda: Table(
            attributes=("Male", "Young"),
            labels=np.arange(20)[:, None] % [2, 5] == 0,
            split=np.zeros(20, np.int8),
            names=[str(i) for i in range(20)],
        )
    )

    def images(self, indices):
        self.asked.append(np.asarray(indices).tolist())
        self.threads.add(threading.current_thread())
        return np.broadcast_to(np.asarray(indices, np.uint8)[:, None, None, None], (len(indices), 4, 4, 3)).copy()


def test_images_and_labels_are_of_the_drawn_rows():
    source = Counting()
    sampler = sampling.uniform(KEY, np.arange(20), 6)
    batch = pipeline.Pipeline(source, ["Young", "Male"], sampler).batch(3, 0)
    rows = np.asarray(sampler(3, 0))
    assert batch["images"].dtype == np.uint8
    assert batch["labels"].dtype == np.float32
    np.testing.assert_array_equal(batch["images"][:, 0, 0, 0], rows)
    np.testing.assert_array_equal(batch["labels"], np.stack([rows % 5 == 0, rows % 2 == 0], 1))


def test_a_batch_has_the_samplers_tree():
    source = Counting()
    sampler = sampling.opposite_pairs(KEY, np.arange(20), source.table.labels, 3)
    batch = pipeline.Pipeline(source, ["Male", "Young"], sampler).batch(0, 1)
    assert batch.keys() == {"positive", "negative"}
    assert batch["positive"]["labels"][:, 1].tolist() == [1, 1, 1]
    assert batch["negative"]["labels"][:, 1].tolist() == [0, 0, 0]


def test_people_come_along():
    sampler = sampling.opposite_pairs(KEY, np.arange(20), Counting().table.labels, 3)
    people = np.arange(20, dtype=np.int32) // 3
    batch = pipeline.Pipeline(Counting(), ["Male"], sampler, people=people).batch(1)
    for leaf in batch.values():
        assert leaf["identity"].dtype == np.int32
        np.testing.assert_array_equal(leaf["identity"], leaf["images"][:, 0, 0, 0] // 3)


def test_processes_take_their_shares_of_one_batch():
    sampler = sampling.uniform(KEY, np.arange(20), 6)
    whole = pipeline.Pipeline(Counting(), ["Male"], sampler).batch(3)
    shares = []
    for process in range(3):
        source = Counting()
        share = pipeline.Pipeline(
            source,
            ["Male"],
            sampler,
            lambda size, process=process: slice(process * size // 3, (process + 1) * size // 3),
        )
        shares.append(share.batch(3))
        assert [len(asked) for asked in source.asked] == [2]  # nothing is decoded for the others
    for name in ("images", "labels"):
        np.testing.assert_array_equal(np.concatenate([share[name] for share in shares]), whole[name])


def test_an_unknown_attribute_is_refused():
    with pytest.raises(UserError, match="did you mean 'Young'"):
        pipeline.Pipeline(Counting(), ["Yong"], sampling.uniform(KEY, np.arange(20), 6))


def test_batches_are_made_where_implicit_transfers_are_forbidden():
    made = pipeline.Pipeline(Counting(), ["Male"], sampling.uniform(KEY, np.arange(20), 6))
    with jax.transfer_guard("disallow"):
        made.batch(0, 0)
        made.batch(1, 0)


# --- prefetch ---


def prefetching(requests, depth=2, source=None):
    made = pipeline.Pipeline(source or Counting(), ["Male"], sampling.uniform(KEY, np.arange(20), 6))
    return made, made.prefetch(requests, depth)


def test_prefetched_batches_are_the_batches_in_order():
    made, batches = prefetching([(d, 0) for d in (5, 0, 2, 2, 9)], depth=3)
    for draw, batch in zip((5, 0, 2, 2, 9), batches, strict=True):
        np.testing.assert_array_equal(batch["images"], made.batch(draw, 0)["images"])


def test_one_thread_works_ahead_by_depth():
    source = Counting()
    _, batches = prefetching(((draw, 0) for draw in range(100)), depth=3, source=source)
    next(batches)
    deadline = time.monotonic() + 30
    while len(source.asked) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(source.asked) == 4  # the one that was taken and three ahead
    batches.close()
    [worker] = source.threads
    assert worker is not threading.current_thread()
    assert not worker.is_alive()
    assert len(source.asked) == 4


def test_an_exception_is_raised_at_its_batch():
    class Failing(Counting):
        def images(self, indices):
            if len(self.asked) == 2:
                raise UserError("picture 2 is damaged")
            return super().images(indices)

    _, batches = prefetching([(draw, 0) for draw in range(5)], source=Failing())
    next(batches)
    next(batches)
    with pytest.raises(UserError, match="picture 2 is damaged"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_an_exception_of_the_requests_is_raised():
    def requests():
        yield 0, 0
        raise ValueError("no more")

    _, batches = prefetching(requests(), depth=0)
    next(batches)
    with pytest.raises(ValueError, match="no more"):
        next(batches)


# --- cached ---


def test_cached_pictures_are_decoded_once():
    source = Counting()
    cached = pipeline.cached(source)
    assert sum(map(len, source.asked)) == 20
    source.asked.clear()
    np.testing.assert_array_equal(cached.images(np.array([3, 19, 3]))[:, 0, 0, 0], [3, 19, 3])
    assert not source.asked
    assert cached.table is source.table
    assert (cached.size, cached.crop) == (4, "none")


def test_pictures_that_are_not_cached_come_from_the_source():
    source = Counting()
    cached = pipeline.cached(source, np.array([10, 12, 11]))
    assert source.asked == [[10, 12, 11]]
    np.testing.assert_array_equal(cached.images(np.array([12, 4, 11, 0, 10]))[:, 2, 1, 1], [12, 4, 11, 0, 10])
    assert source.asked[1:] == [[4, 0]]
    images = cached.images(np.array([12]))
    images[:] = 0  # a caller's copy, not the cache
    assert cached.images(np.array([12])).all()
