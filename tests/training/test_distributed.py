"""Splitting over devices, joining processes, and what is said when they cannot be joined."""

import os
import socket
import subprocess
import sys
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.errors import UserError
from faceattr_jax.training import distributed

ADDRESS = "10.0.0.1:8476"


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `jax.distributed.initialize` was called with, in a process without a cluster's variables."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    for name in list(os.environ):
        if name.startswith(("JAX_COORD", "JAX_NUM_P", "JAX_PROCESS", "SLURM", "TPU")):
            monkeypatch.delenv(name)
    return calls


def test_a_batch_is_split_in_order_over_all_devices() -> None:
    mesh = distributed.mesh()
    assert mesh.size == 8
    batch = {"images": np.arange(16 * 4, dtype=np.uint8).reshape(16, 2, 2), "labels": np.arange(16.0)}
    sharded = distributed.shard_batch(batch, mesh)
    for name, array in batch.items():
        np.testing.assert_array_equal(sharded[name], array)
        assert sharded[name].dtype == jnp.asarray(array).dtype
        assert sharded[name].sharding == distributed.batch_sharding(mesh)
        for place, device in enumerate(mesh.devices):
            (shard,) = (s for s in sharded[name].addressable_shards if s.device == device)
            np.testing.assert_array_equal(shard.data, array[2 * place : 2 * place + 2])


def test_replicated_is_whole_on_every_device() -> None:
    mesh = distributed.mesh(jax.devices()[:3])
    weight = jax.device_put(np.eye(3), distributed.replicated(mesh))
    assert [shard.data.shape for shard in weight.addressable_shards] == [(3, 3)] * 3


def test_the_gradient_of_a_split_batch_is_that_of_the_whole() -> None:
    mesh = distributed.mesh()
    x = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    w = np.linspace(-1, 1, 5, dtype=np.float32)
    gradient = jax.jit(jax.grad(lambda w, x: jnp.mean(jnp.tanh(x @ w) ** 2)))
    split = gradient(jax.device_put(w, distributed.replicated(mesh)), distributed.shard_batch(x, mesh))
    np.testing.assert_allclose(split, gradient(w, x), rtol=1e-5)


@pytest.mark.parametrize(("batch_size", "fitting"), [(12, 16), (3, 8), (33, 32)])
def test_an_uneven_batch_is_refused_with_a_size_that_fits(batch_size: int, fitting: int) -> None:
    mesh = distributed.mesh()
    with pytest.raises(UserError, match=rf"batch of {batch_size} .* 8 devices; a batch_size of {fitting} would"):
        distributed.check_batch_size(batch_size, mesh)
    with pytest.raises(UserError, match=f"batch of {batch_size}"):
        distributed.shard_batch(np.zeros((batch_size, 2)), mesh)


def test_the_processes_rows_make_up_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.local_rows(16) == slice(0, 16)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    rows = []
    for process in range(4):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        rows += list(range(16))[distributed.local_rows(16)]
    assert rows == list(range(16))


def test_one_process_joins_nothing(joined: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    distributed.initialize()
    distributed.initialize(ADDRESS, 1, 0)
    monkeypatch.setenv("SLURM_NTASKS", "4")  # inside sbatch, but not in a step that srun started
    distributed.initialize()
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    distributed.initialize()
    assert joined == []


def test_arguments_come_before_the_environment(joined: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", ADDRESS)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    distributed.initialize()
    distributed.initialize("other:1", 2, 0)
    for call, expected in zip(joined, [(ADDRESS, 4, 3), ("other:1", 2, 0)], strict=True):
        assert (call["coordinator_address"], call["num_processes"], call["process_id"]) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2"},
        {"TPU_WORKER_HOSTNAMES": "worker-0,worker-1"},
        {"JAX_COORDINATOR_ADDRESS": "auto"},
    ],
    ids=["slurm", "tpu", "auto"],
)
def test_clusters_are_left_to_jax(
    joined: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    distributed.initialize()
    assert [set(call) for call in joined] == [{"initialization_timeout"}]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((ADDRESS, 2, None), {}, r"also needs the process id \(JAX_PROCESS_ID\)"),
        ((None, 2, None), {}, r"needs the coordinator's host:port .* and the process id"),
        (("10.0.0.1", 2, 0), {}, r"'10\.0\.0\.1' has no port"),
        ((ADDRESS, 2, 2), {}, "Process id 2 is not one of 0 to 1"),
        ((ADDRESS, None, 0), {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two'"),
    ],
)
def test_an_impossible_description_is_refused(
    joined: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[Any, Any, Any],
    environment: dict[str, str],
    message: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        distributed.initialize(*arguments)
    assert joined == []


def test_a_missing_process_is_said_after_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: release.wait())
    with pytest.raises(UserError, match=rf"Process 1 of 2 has waited 0\.1 s .* others at {ADDRESS}"):
        distributed.initialize(ADDRESS, 2, 1, timeout=0.1)
    release.set()


def test_what_jax_finds_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(UserError, match=r"This process cannot join .*: coordinator_address should be defined"):
        distributed.initialize("auto")


ONE_OF_TWO = """
import sys
import jax, jax.numpy as jnp, numpy as np
from faceattr_jax.errors import UserError
from faceattr_jax.training import distributed

address, process, timeout = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
try:
    distributed.initialize(address, 2, process, timeout=timeout)
except UserError as error:
    sys.exit(str(error))
mesh = distributed.mesh()
batch = np.arange(8.0, dtype=np.float32)
sharded = distributed.shard_batch(batch[distributed.local_rows(8)], mesh)
w = jax.jit(lambda: jnp.float32(3.0), out_shardings=distributed.replicated(mesh))()
gradient = jax.jit(jax.grad(lambda w, x: jnp.sum(w * x * jnp.arange(8.0))))(w, sharded)
print(mesh.size, distributed.is_main_process(), float(gradient))
"""


def start(address: str, process: int, timeout: float) -> "subprocess.Popen[str]":
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-c", ONE_OF_TWO, address, str(process), str(timeout)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_two_processes_see_one_batch(address: str) -> None:
    first, second = start(address, 0, 60), start(address, 1, 60)
    (out, err), (out_second, err_second) = first.communicate(), second.communicate()
    gradient = float(np.sum(np.arange(8.0) ** 2))
    assert out.splitlines()[-1].split() == ["4", "True", str(gradient)], err
    assert out_second.splitlines()[-1].split() == ["4", "False", str(gradient)], err_second


@pytest.mark.parametrize("process", [0, 1])
def test_a_process_alone_ends_with_the_sentence(address: str, process: int) -> None:
    alone = start(address, process, 1)
    _, err = alone.communicate()
    assert alone.returncode == 1
    assert f"Process {process} of 2 has waited 1 s in vain for the others at {address}" in err
