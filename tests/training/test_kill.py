"""`kill -9` at random moments of a real process: the run ends with the bits of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from faceattr_jax.methods.base import build
from faceattr_jax.training import checkpoint
from faceattr_jax.training.checkpoint import Checkpoints
from faceattr_jax.training.state import init_state
from tests import runs

ITERATIONS = 2000
EVERY = 40


def command(faces: Path, workdir: Path) -> list[str]:
    return [
        sys.executable, "-m", "faceattr_jax.cli", "train", "--config=attgan_quickstart", f"--workdir={workdir}",
        f"--config.data.path={faces}", f"--config.attributes={','.join(runs.ATTRIBUTES)}", "--config.crop=none",
        "--config.batch_size=4", "--config.model.width=2", "--config.critic_updates=1",
        f"--config.train.iterations={ITERATIONS}", f"--config.train.checkpoint_every={EVERY}",
        "--config.train.evaluate_every=500", "--config.train.log_every=10",
    ]  # fmt: skip


def final(workdir: Path):
    config = checkpoint.read_config(checkpoint.find(workdir))
    checkpoints = Checkpoints(workdir, config, keep=3)
    assert checkpoints.latest_step == ITERATIONS
    shapes = jax.eval_shape(lambda: init_state(build(config), 0))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    state = jax.device_get(checkpoints.restore(like))
    checkpoints.close()
    return state


def steps(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []


def rows(workdir: Path) -> int:
    metrics = workdir / "metrics.csv"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 1  # its header


@pytest.mark.slow
def test_twenty_kills(faces, tmp_path):
    environment = {**os.environ, "XLA_FLAGS": ""}
    subprocess.run(command(faces, tmp_path / "whole"), check=True, env=environment, capture_output=True)
    choose = random.Random(0)
    workdir = tmp_path / "killed"
    after_first = in_save = 0
    resumed = []
    for number in range(20):
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(command(faces, workdir), env=environment, stdout=log, stderr=log)
            during_save = number % 4 == 3
            # Until it has logged: the kill is to hit training, not the imports. A resumed one cuts the file back first.
            fewest = rows(workdir)
            while process.poll() is None and rows(workdir) <= fewest:
                fewest = min(fewest, rows(workdir))
                time.sleep(0.01)
            if during_save:
                while process.poll() is None and not list((workdir / "checkpoints").glob("*tmp*")):
                    time.sleep(0.0005)
            else:
                time.sleep(choose.uniform(0.0, 1.5))
            assert process.poll() is None, (tmp_path / "log").read_text()
            process.send_signal(signal.SIGKILL)
            process.wait()
        in_save += during_save and bool(list((workdir / "checkpoints").glob("*tmp*")))
        after_first += bool(steps(workdir))
        resumed += [line for line in (tmp_path / "log").read_text().splitlines() if "Resuming from step" in line]
    assert after_first >= 10
    assert in_save >= 3
    assert len(resumed) >= 10
    subprocess.run(command(faces, workdir), check=True, env=environment, capture_output=True)
    a, b = final(tmp_path / "whole"), final(workdir)
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (workdir / "metrics.csv").read_bytes()
    print(f"20 kills: {after_first} after the first checkpoint, {in_save} in a save, {len(resumed)} resumed")
