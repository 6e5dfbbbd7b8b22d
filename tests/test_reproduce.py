"""The plan of a paper's table: every command is one that `faceattr` takes, and its cost is the config's."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from faceattr_jax import cli, reproduce
from faceattr_jax import config as configs
from faceattr_jax.evaluation import protocol


@pytest.mark.parametrize("paper", protocol.names())
def test_every_command_is_understood(paper, tmp_path):
    found = reproduce.commands(paper, "celeba", tmp_path)
    assert [name for name in found if name not in {step.name for step in protocol.find(paper).steps}] == (
        ["evaluation", "augmentation"] if paper == "attgan" else ["evaluation"]
    )
    for arguments in found.values():
        _, rest = cli._parser().parse_known_args(arguments)
        assert all(argument.startswith("--config.") for argument in rest)
    models = [step.name for step in protocol.find(paper).steps if step.role == "model"]
    evaluation = found["evaluation"]
    assert [str(tmp_path / name) for name in models] == evaluation[2 : 2 + len(models)]
    assert f"--judge={tmp_path / 'judge'}" in evaluation
    assert f"--split={protocol.find(paper).split}" in evaluation


def test_a_dry_run_prints_steps_images_and_hours(tmp_path, capsys):
    (tmp_path / "cost").mkdir()
    measured = {"images_per_second": 1000.0, "devices": ["NVIDIA Z1"]}
    (tmp_path / "cost" / "slgan.json").write_text(json.dumps(measured))
    assert reproduce.main(["slgan", "celeba", str(tmp_path), "--dry-run"]) == 0
    text = capsys.readouterr().out
    config = configs.load("slgan_64")
    # Three phases, one update each.
    images = config.train.iterations * config.batch_size * 3
    hours = images / 1000 / 3600
    assert (
        f"slgan: {config.train.iterations:,} iterations, {images:,} images, {hours:,.1f} hours (measured: 1,000" in text
    )
    assert "judge: 50,000 iterations, 3,200,000 images" in text
    assert "hours (estimated: 10 forward passes of" in text
    assert reproduce.main(["attgan", "celeba", str(tmp_path), "--dry-run"]) == 0
    text = capsys.readouterr().out
    one = configs.load("classifier_128")
    study = (
        f"augmentation: {6 * one.train.iterations:,} iterations, {6 * one.train.iterations * one.batch_size:,} images"
    )
    assert study in text
    assert f"study augment {tmp_path / 'attgan'} --config=classifier_128 --seeds=3" in text
    assert reproduce.main(["slgna", "celeba", str(tmp_path), "--dry-run"]) == 2
    assert "did you mean 'slgan'?" in capsys.readouterr().err


def test_sigterm_reaches_the_training_and_what_it_left_unfinished_ends_the_plan(tmp_path, monkeypatch):
    """A script stands for Python: it stops for SIGTERM alone, with the code of a training that has saved."""
    python, begun = tmp_path / "python", tmp_path / "begun"
    python.write_text(f"#!/bin/sh\ntrap 'exit 75' TERM\ntouch {begun}\nfor i in $(seq 600); do sleep 0.1; done\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    before = signal.getsignal(signal.SIGTERM)

    def stop():
        while not begun.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=stop)
    asking.start()
    with pytest.raises(subprocess.CalledProcessError) as raised:
        reproduce.run_faceattr(["train"])
    asking.join()
    assert raised.value.returncode == 75
    assert signal.getsignal(signal.SIGTERM) == before
