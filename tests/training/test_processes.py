"""Two processes of two devices each on the loopback address: one is killed, or asked to stop."""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests import checks, runs
from tests.conftest import FLAGS
from tests.training import programs

pytestmark = pytest.mark.slow
DEADLINE = 900  # seconds, for the slowest machine


def launch(*command: str, devices: int = 2) -> "subprocess.Popen[str]":
    """Python on so many devices."""
    flags = " ".join([f"--xla_force_host_platform_device_count={devices}", *(f for f in FLAGS if "_device_" not in f)])
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = (sys.executable, *command)
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def train(faces: Path, workdir: Path, iterations: int, *more: str, devices: int = 2) -> "subprocess.Popen[str]":
    return launch(
        "-m", "faceattr_jax.cli", "train", "--config=attgan_quickstart", f"--workdir={workdir}",
        f"--config.data.path={faces}", f"--config.attributes={','.join(runs.ATTRIBUTES)}", "--config.crop=none",
        "--config.batch_size=8", "--config.model.width=2", "--config.critic_updates=1", "--config.train.log_every=1",
        f"--config.train.iterations={iterations}", "--config.train.checkpoint_every=4", "--config.evaluation.images=8",
        *more, devices=devices,
    )  # fmt: skip


@contextlib.contextmanager
def together(start: "Callable[[str, int], subprocess.Popen[str]]") -> "Iterator[list[subprocess.Popen[str]]]":
    """Two processes, each of a coordinator's address and its number, killed in the end if they still run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = [start(address, process) for process in range(2)]
    try:
        yield both
    finally:
        for process in both:
            process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()


def pair(faces: Path, workdir: Path, iterations: int, *more: str) -> Any:
    """Two that train together."""

    def start(address: str, process: int) -> "subprocess.Popen[str]":
        cluster = (f"--coordinator={address}", "--processes=2", f"--process={process}")
        return train(faces, workdir, iterations, *cluster, *more)

    return together(start)


def finish(*processes: "subprocess.Popen[str]", code: int = 0) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == code, errors


def steps(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def until_saved(workdir: Path, processes: "list[subprocess.Popen[str]]") -> None:
    """Until there is a checkpoint."""
    end = time.monotonic() + DEADLINE
    while not steps(workdir):
        assert all(process.poll() is None for process in processes), [p.communicate()[1] for p in processes]
        assert time.monotonic() < end
        time.sleep(0.1)


def losses(workdir: Path) -> dict[tuple[int, str], float]:
    rows = [row.split(",") for row in (workdir / "metrics.csv").read_text().splitlines()[1:]]
    return {(int(step), name): float(value) for step, name, value in rows}


SEVERAL = ("--config.data.resident=on", "--config.data.shards=4", "--config.train.per_call=2")


@pytest.mark.parametrize("more", [(), SEVERAL], ids=["one-a-call", "two-a-call"])
def test_sigterm_to_one_saves_what_one_process_restores(faces, tmp_path, more):
    with pair(faces, tmp_path, 100_000, *more) as both:
        until_saved(tmp_path, both)
        both[1].send_signal(signal.SIGTERM)
        finish(*both, code=75)
    last = steps(tmp_path)[-1]
    # As many devices, of one process; then the metrics have every step once.
    finish(train(faces, tmp_path, last + 2, *more, devices=4))
    assert steps(tmp_path)[-1] == last + 2
    assert [step for step, name in losses(tmp_path) if name == "generator/reconstruction"] == [*range(1, last + 3)]


def test_a_killed_one_and_a_restart_end_like_one_process(faces, tmp_path):
    with pair(faces, tmp_path / "two", 8) as both:
        until_saved(tmp_path / "two", both)
        both[1].kill()
        both[1].communicate()
        assert both[1].returncode == -signal.SIGKILL
        assert steps(tmp_path / "two")[-1] < 8
        # The other waits for it, as a cluster's scheduler would not let it, and is killed, too.
    with pair(faces, tmp_path / "two", 8) as both:
        finish(*both)
    finish(train(faces, tmp_path / "one", 8, devices=4))
    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert two.keys() == one.keys()
    for key, value in one.items():
        if key[0] == 1:  # later ones have been through Adam, which amplifies
            np.testing.assert_allclose(two[key], value, rtol=1e-4, atol=1e-5, err_msg=str(key))
        else:
            np.testing.assert_allclose(two[key], value, rtol=0.05, atol=0.05, err_msg=str(key))


GRADIENTS = """
import pickle, sys
from pathlib import Path
import jax
from faceattr_jax.training import distributed
from tests import checks
from tests.training import programs

address, process, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
distributed.initialize(address, 2, process)
batch = pickle.loads((folder / "batch").read_bytes())
rows = distributed.local_rows(len(batch["images"]))
own = jax.tree.map(lambda leaf: leaf[rows], batch)
data = distributed.shard_batch(own, distributed.mesh())
with jax.enable_x64(True):
    found = checks.gradients(programs.method("attgan"), data, devices=4, compiler_options=checks.QUICK)
(folder / f"gradients{process}").write_bytes(pickle.dumps(found))
"""


def test_gradients_are_those_of_one_process(tmp_path):
    method = programs.method("attgan")
    batch = programs.pictures(method)
    (tmp_path / "batch").write_bytes(pickle.dumps(batch))
    with together(lambda address, process: launch("-c", GRADIENTS, address, str(process), str(tmp_path))) as both:
        finish(*both)
    with jax.enable_x64(True):  # in single precision sums round by their order, 2e-5 of a bias's
        one = checks.gradients(method, batch, devices=4, compiler_options=checks.QUICK)

    def close(a, b):
        assert a.dtype == b.dtype == np.float64
        assert np.linalg.norm(a - b) <= 1e-9 * np.linalg.norm(a)

    for process in range(2):
        jax.tree.map(close, one, pickle.loads((tmp_path / f"gradients{process}").read_bytes()))
