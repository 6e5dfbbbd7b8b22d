"""From a source and a sampler to batches on the host, ahead of time and from memory where wanted."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from faceattr_jax.data.sampling import Sampler
from faceattr_jax.data.source import Source, Table

CHUNK = 512
"""Pictures decoded at a time where all are wanted."""


class Pipeline:
    """Batches of a source, each a pure function of its draw number and index.

    Args:
      source: where the pictures come from.
      attributes: the n attributes whose labels come with them; UserError where the source lacks one.
      sampler: which pictures make up a batch.
      people: (N,) int32 numbers to come along as "identity", such as `Table.people` gives.
      rows: which rows of a batch of the given size this process takes; all of them, or its share of several hosts'.
    """

    def __init__(
        self,
        source: Source,
        attributes: Iterable[str],
        sampler: Sampler,
        rows: Callable[[int], slice] = slice,
        *,
        people: np.ndarray | None = None,
    ) -> None:
        self.source, self.sampler, self.people = source, sampler, people
        self._local = rows
        self._labels = source.table.select(attributes)
        self._cpu = jax.local_devices(backend="cpu")[0]
        self._draw = jax.jit(sampler)

    def batch(self, draw: int, index: int = 0) -> Any:
        """The batch of draw number `draw` for `index`.

        Returns:
          The sampler's tree, with {"images": (B, size, size, 3) uint8, "labels": (B, n) float32, 0 or 1} in NumPy at
          each leaf, and "identity": (B,) int32 where people were given.
        """
        # On the CPU whatever the backend, and with transfers spelt out, so that a training loop may forbid others.
        with jax.default_device(self._cpu):
            rows = self._draw(*jax.device_put((np.int32(draw), np.int32(index)), self._cpu))
        return jax.tree.map(self._take, jax.device_get(rows))

    def _take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        indices = indices[self._local(len(indices))]
        known = {} if self.people is None else {"identity": self.people[indices]}
        return {"images": self.source.images(indices), "labels": self._labels[indices], **known}

    def prefetch(self, requests: Iterable[tuple[int, int]], depth: int = 2) -> Generator[Any, None, None]:
        """The batches of `requests` (draw, index) in their order, `depth` of them made ahead by one thread.

        What goes wrong in the thread is raised here, at the batch that it concerns. Closing the iterator ends the
        thread after the batch that it is making.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as worker:
            ahead = deque[Future[Any]]()
            try:
                for draw, index in requests:
                    ahead.append(worker.submit(self.batch, draw, index))
                    if len(ahead) > depth:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()


@dataclass(frozen=True, eq=False)
class Cached:
    """A Source whose pictures at some indices are in memory; the others come from the source below."""

    source: Source
    pixels: np.ndarray  # (M, size, size, 3) uint8
    place: np.ndarray  # (N,) row of `pixels`, or -1

    @property
    def table(self) -> Table:
        return self.source.table

    @property
    def size(self) -> int:
        return self.source.size

    @property
    def crop(self) -> str:
        return self.source.crop

    def images(self, indices: np.ndarray) -> np.ndarray:
        rows = self.place[indices]
        images = self.pixels[rows]
        absent = rows < 0
        if absent.any():
            images[absent] = self.source.images(np.asarray(indices)[absent])
        return images


def chunks(source: Source, indices: np.ndarray, what: str) -> Iterator[np.ndarray]:
    """The pictures at `indices`, CHUNK at a time, under a progress bar called `what` where it takes a while."""
    with tqdm(total=len(indices), desc=what, unit="img", unit_scale=True, delay=1, leave=False) as bar:
        for start in range(0, len(indices), CHUNK):
            images = source.images(indices[start : start + CHUNK])
            yield images
            bar.update(len(images))


def cached(source: Source, indices: np.ndarray | None = None) -> Source:
    """`source` with the pictures at `indices` (all, if left out) decoded now, once, into memory."""
    if indices is None:
        indices = np.arange(len(source.table))
    pixels = np.empty((len(indices), source.size, source.size, 3), np.uint8)
    end = 0
    for images in chunks(source, indices, "decoding"):
        pixels[end : end + len(images)] = images
        end += len(images)
    place = np.full(len(source.table), -1)
    place[indices] = np.arange(len(indices))
    return Cached(source, pixels, place)
