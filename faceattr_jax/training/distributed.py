"""One process or many: joining them, the mesh of all devices, and batches split over it.

The same code runs on one device and on N hosts: the state is replicated, the batch is split over the mesh's only
axis, "data", and XLA inserts the sums over devices. Each process loads its own rows of a global batch.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from faceattr_jax.errors import UserError

AXIS = "data"


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 300.0,
) -> None:
    """Join the other processes of this run, if it has any; to be called before the first computation.

    What is left out is read from JAX_COORDINATOR_ADDRESS (process 0's "host:port"), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. With none of them a SLURM step of several tasks (one task per GPU) and a TPU slice whose
    TPU_WORKER_HOSTNAMES lists several hosts are recognised; anything else is a run of one process.
    ``coordinator="auto"`` leaves it to JAX, which knows TPU slices by their metadata, Kubernetes and Open MPI.

    Raises `UserError` for an incomplete or impossible description, and where the others have not come after
    `timeout` seconds. The process should end then: a thread is left that still waits for them.
    """
    description = _describe(coordinator, num_processes, process_id, os.environ)
    if description is None:
        return
    where = description.get("coordinator_address", "the coordinator that the cluster names")
    who = f"Process {description['process_id']} of {description['num_processes']}" if description else "This process"
    failures: list[Exception] = []

    def join() -> None:
        try:
            # JAX's own timeout aborts the process from within C++, so ours has to come first.
            jax.distributed.initialize(**description, initialization_timeout=int(timeout) + 3600)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=join, name="jax.distributed.initialize", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise UserError(
            f"{who} has waited {timeout:g} s in vain for the others at {where}: each host must run the same "
            "command, with a process id of its own, and reach that address and port."
        )
    for error in failures:
        if isinstance(error, ValueError | jax.errors.JaxRuntimeError):
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise UserError(f"{who} cannot join the others at {where}: {reason}.") from error
        raise error
    if jax.process_count() > 1:
        _meet(who)


def _meet(who: str) -> None:
    """The devices add up a number each, now that all processes are here.

    They open their connections for it, and give up soon where another one does not: later one may still compile.
    """
    everyone = mesh()
    ones = jax.make_array_from_callback((everyone.size,), batch_sharding(everyone), lambda _: np.ones(1, np.float32))
    try:
        jax.block_until_ready(jax.jit(jnp.sum, out_shardings=replicated(everyone))(ones))
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(f"{who} has joined the others, but their devices do not reach each other: {reason}.") from error


def _describe(
    coordinator: str | None, num_processes: int | None, process_id: int | None, environ: Mapping[str, str]
) -> dict[str, Any] | None:
    """The arguments for `jax.distributed.initialize` ({}: JAX finds them), or None for a run of one process."""
    coordinator = coordinator or environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator == "auto":
        return {}
    if num_processes is None:
        num_processes = _number(environ, "JAX_NUM_PROCESSES")
    if process_id is None:
        process_id = _number(environ, "JAX_PROCESS_ID")
    given = {
        "the coordinator's host:port (JAX_COORDINATOR_ADDRESS)": coordinator,
        "the number of processes (JAX_NUM_PROCESSES)": num_processes,
        "the process id (JAX_PROCESS_ID)": process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        in_slurm_step = "SLURM_STEP_NODELIST" in environ and (_number(environ, "SLURM_NTASKS") or 1) > 1
        on_tpu_slice = "," in environ.get("TPU_WORKER_HOSTNAMES", "")
        return {} if in_slurm_step or on_tpu_slice else None
    if num_processes == 1:
        return None
    if coordinator is None or num_processes is None or process_id is None:
        raise UserError(f"A run of several processes also needs {' and '.join(missing)}.")
    if not coordinator.rpartition(":")[2].isdecimal():
        raise UserError(f"The coordinator '{coordinator}' has no port; give it as host:port, such as 10.0.0.1:8476.")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"Process id {process_id} is not one of 0 to {num_processes - 1}, of {num_processes} processes."
        )
    return {"coordinator_address": coordinator, "num_processes": num_processes, "process_id": process_id}


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name)
    if value is not None and not value.isdecimal():
        raise UserError(f"{name} is '{value}', which is not a number of processes or a process id.")
    return None if value is None else int(value)


def mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """`devices`, or all devices of all processes, in one line, each process's side by side."""
    if devices is None:
        devices = jax.devices()
    return Mesh(sorted(devices, key=lambda device: (device.process_index, device.id)), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises `UserError` unless every device gets the same number of rows."""
    if batch_size % mesh.size:
        fitting = max(mesh.size, round(batch_size / mesh.size) * mesh.size)
        raise UserError(
            f"A batch of {batch_size} does not split evenly over {mesh.size} devices; a batch_size of {fitting} would."
        )


def local_rows(batch_size: int) -> slice:
    """The rows of a global batch that this process loads and hands to `shard_batch`."""
    rows = batch_size // jax.process_count()
    return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """A pytree of NumPy arrays, this process's `local_rows`, as global arrays split over the mesh.

    Raises `UserError` unless the global batch splits evenly over the devices.
    """
    split = batch_sharding(mesh)

    def place(rows: Any) -> jax.Array:
        check_batch_size(rows.shape[0] * jax.process_count(), mesh)
        return jax.make_array_from_process_local_data(split, rows)

    return jax.tree.map(place, batch)


def is_main_process() -> bool:
    """Whether this is the process that writes pictures and metrics."""
    return jax.process_index() == 0
