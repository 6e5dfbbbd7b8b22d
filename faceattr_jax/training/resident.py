"""The training pictures in the devices' memory, and batches that are drawn there.

What the host hands over is the number of the iteration; the sampler that the host pipeline runs (`data.sampling`) is
traced into the step, or into a small program before it, and picks the same rows out of the resident ones. Where the
pictures are dealt to shards (`sampling.dealt`) whose number the devices divide, each device holds its own shards alone
and draws its own rows of the batch from them; otherwise each holds them all. No picture goes from one device to
another.
"""

import itertools
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from faceattr_jax.data import sampling
from faceattr_jax.data.pipeline import chunks
from faceattr_jax.data.sampling import Sampler
from faceattr_jax.data.source import Source
from faceattr_jax.errors import UserError, check_choice
from faceattr_jax.training import distributed
from faceattr_jax.training.step import Drawing

FRACTION = 0.4
"""Of a device's memory, what the pictures may take where the config names no limit."""

RESIDENT = ("auto", "on", "off")


@dataclass(frozen=True)
class Choice:
    """Whether the pictures are to be resident, and the sentence that says why."""

    resident: bool
    reason: str


def choose(config: ConfigDict, pictures: int, mesh: Mesh) -> Choice:
    """What `config.data.resident` comes to for so many pictures.

    ``"auto"`` keeps them on GPU and TPU where each device's share fits into `config.data.resident_gib`, or, where that
    is 0, into FRACTION of its memory. Raises UserError for another value, and where ``"on"`` cannot be.
    """
    wanted = config.data.resident
    check_choice("data.resident", wanted, RESIDENT)
    if wanted == "off":
        return Choice(False, "Batches come from the host: data.resident is 'off'.")
    device = mesh.local_devices[0]
    if wanted == "auto" and device.platform == "cpu":
        return Choice(False, "Batches come from the host, whose memory a CPU device shares.")
    share = _share(config, mesh)
    needed = -(-pictures // share) * config.image_size**2 * 3 / 2**30
    total = _least((device.memory_stats() or {}).get("bytes_limit", 0) / 2**30)
    limit = config.data.resident_gib or (FRACTION * total if wanted == "auto" else total)
    each = f"{pictures:,} pictures take {needed:.2f} GiB of each of {mesh.size} devices"
    if limit and needed > limit:
        if wanted == "on":
            raise UserError(
                f"data.resident is 'on', but {each}, of {limit:.2f} that they may: raise data.resident_gib, deal them "
                "to several devices by data.shards, or leave it 'auto'."
            )
        return Choice(False, f"Batches come from the host: {each}, more than the {limit:.2f} GiB that they may.")
    if not limit and wanted == "auto":
        return Choice(False, "Batches come from the host: the device does not tell how much memory it has.")
    held = "its own shards" if share > 1 else "all of them"
    return Choice(True, f"Batches come from device memory: {each}, which holds {held}.")


def _least(number: float) -> float:
    """Over all processes, which have to choose alike."""
    return float(np.min(multihost_utils.process_allgather(np.float32(number)))) if jax.process_count() > 1 else number


def _share(config: ConfigDict, mesh: Mesh) -> int:
    """Among how many devices the pictures are divided: all, or 1 where each holds them all."""
    return mesh.size if config.data.shards % mesh.size == 0 else 1


class Resident:
    """Pictures and what is known of them on the devices of a mesh.

    Args:
      source: where the pictures come from; read here, once.
      attributes: the n attributes whose labels come with them.
      indices: the pictures to hold (M,), of which samplers draw.
      config: its `data.shards` and the mesh say which device holds what.
      people: (N,) int32 numbers to come along as "identity" where a stage wants them.
    """

    def __init__(
        self,
        source: Source,
        attributes: Iterable[str],
        indices: np.ndarray,
        config: ConfigDict,
        mesh: Mesh,
        *,
        people: np.ndarray | None = None,
    ) -> None:
        self.mesh = mesh
        shards = config.data.shards if _share(config, mesh) > 1 else 1
        # As many rows for each shard as the fullest one has; -1 is a row without a picture.
        own = [np.flatnonzero(sampling.homes(indices, len(source.table), shards) == shard) for shard in range(shards)]
        rows = np.full((shards, max(map(len, own))), -1)
        for shard, some in enumerate(own):
            rows[shard, : len(some)] = some
        rows = rows.reshape(-1)
        place = np.full(len(source.table), -1, np.int32)
        place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
        sharding = distributed.batch_sharding(mesh) if shards > 1 else distributed.replicated(mesh)

        def put(shape: tuple[int, ...], dtype: Any, read: Any) -> jax.Array:
            """(rows, *shape), of which each process reads the rows of its own devices."""

            def of_device(index: tuple[slice, ...] | None) -> np.ndarray:
                assert index
                mine = rows[index[0]]
                values = np.zeros((len(mine), *shape), dtype)
                places, end = np.flatnonzero(mine >= 0), 0
                for part in read(mine[places]):  # in place: the pictures are in the host's memory once
                    values[places[end : end + len(part)]] = part
                    end += len(part)
                return values

            return jax.make_array_from_callback((len(rows), *shape), sharding, of_device)

        labels, side = source.table.select(attributes), source.size
        known = {"images": put((side, side, 3), np.uint8, lambda some: chunks(source, some, "decoding"))}
        known["labels"] = put(labels.shape[1:], np.float32, lambda some: [labels[some]])
        if people is not None:
            known["identity"] = put((), np.int32, lambda some: [people[some]])
        self._known, self._held = known, sharding.spec
        self._place = self._put(place)

    def batches(
        self, sampler: Sampler, requests: Iterable[tuple[int, int]], per_iteration: int, *, identity: bool = False
    ) -> Generator[list[Any], None, None]:
        """The `per_iteration` batches of each iteration: those of `requests` (draw, index), which come in a row.

        As `Pipeline.batch` makes them, but on the devices. Of each iteration the first draw and the index cross to
        them.
        """
        drawing = self.drawing(sampler, per_iteration, identity=identity)
        program = jax.jit(drawing.draw, out_shardings=distributed.batch_sharding(self.mesh))
        for first, index in itertools.islice(requests, 0, None, per_iteration):
            yield program(*drawing.arguments, self._put(np.array([first, index], np.int32)))

    def drawing(self, sampler: Sampler, per_iteration: int, *, identity: bool = False) -> Drawing:
        """How the batches of an iteration are drawn, to be traced."""

        def draw(known: Any, place: jax.Array, state: Any, request: jax.Array) -> list[Any]:
            first, index = request[0], request[1]
            slots = first + jnp.arange(per_iteration, dtype=jnp.int32)
            # Each device computes all rows: cheaper than agreeing with the others on when a permutation's walk ends.
            rows = jax.lax.with_sharding_constraint(
                jax.vmap(lambda slot: sampler.rows(state, slot, index))(slots), distributed.replicated(self.mesh)
            )
            taken = [jax.tree.map(lambda leaf, i=i: leaf[i], rows) for i in range(per_iteration)]
            return jax.tree.map(lambda leaf: self._take(known, place[leaf]), taken)

        known = {name: array for name, array in self._known.items() if identity or name != "identity"}
        state = jax.tree.map(self._put, sampler.state)
        return Drawing(draw, (known, self._place, state))

    def _put(self, value: np.ndarray) -> jax.Array:
        """On every device. Each process puts its own copy there: `jax.device_put` would first compare them all."""
        value = np.asarray(value)
        with jax.transfer_guard("allow"):  # what is meant to cross
            return jax.make_array_from_callback(
                value.shape, distributed.replicated(self.mesh), lambda index: value[index]
            )

    def _take(self, known: dict[str, jax.Array], places: jax.Array) -> dict[str, jax.Array]:
        """Rows of all arrays at places (B,), each device's from its own memory."""
        batch = distributed.batch_sharding(self.mesh).spec

        def of_device(known: dict[str, jax.Array], places: jax.Array) -> dict[str, jax.Array]:
            first = jax.lax.axis_index(distributed.AXIS) * len(known["images"]) if self._held == batch else 0
            return {name: array[places - first] for name, array in known.items()}

        return jax.shard_map(of_device, mesh=self.mesh, in_specs=(self._held, batch), out_specs=batch)(known, places)
