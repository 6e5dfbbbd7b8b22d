"""The launch scripts: what they say, what they would run, and what they refuse."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.oracles.kernels import kernels

LAUNCH = Path(__file__).resolve().parent.parent / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh") if not path.name.startswith("_"))


def launch(name: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(LAUNCH / name), *arguments], env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_how_to_call_it(name):
    done = launch(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ")
    assert f"./launch/{name}" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("local_gpu.sh", ["--gpus", "0,1", "attgan_64", "runs/a"], "env CUDA_VISIBLE_DEVICES=0\\,1 "),
        ("local_gpu.sh", ["attgan_64", "runs/a", "--config.seed=1"], "train --config=attgan_64 --workdir=runs/a"),
        ("slurm.sh", ["--nodes", "2", "--gpus", "4", "attgan_64", "runs/a"], "--nodes=2 --ntasks-per-node=4"),
        ("slurm.sh", ["attgan_64", "runs/a"], "--signal=TERM@180 --requeue"),
        ("tpu_pod.sh", ["create"], "gcloud compute tpus tpu-vm create faceattr --zone=z --accelerator-type=t"),
        ("tpu_pod.sh", ["setup"], "gcsfuse"),
        ("tpu_pod.sh", ["run", "attgan_64", "a"], "--coordinator=auto"),
        ("tpu_pod.sh", ["status"], "tail"),
        ("tpu_pod.sh", ["delete"], "delete faceattr --zone=z --quiet"),
        ("gpu_checks.sh", ["somewhere"], "env JAX_DEFAULT_MATMUL_PRECISION=tensorfloat32 "),
        ("gpu_checks.sh", ["somewhere"], "--config=attgan_128 --device=cuda --mode=compiled --precision=tf32"),
    ],
)
def test_a_dry_run_shows_its_commands(script, arguments, expected):
    done = launch(script, "--dry-run", *arguments, ZONE="z", TYPE="t", BUCKET="b")
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


@pytest.mark.parametrize(
    ("kind", "flags", "resource", "selector"),
    [
        ("gpu", ["--per-host", "4"], {"nvidia.com/gpu": 4}, {}),
        (
            "tpu",
            ["--accelerator", "tpu-v5-lite-podslice", "--topology", "2x4"],
            {"google.com/tpu": 4},
            {
                "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
                "cloud.google.com/gke-tpu-topology": "2x4",
            },
        ),
    ],
)
def test_a_jobset_joins_its_pods(kind, flags, resource, selector):
    """By the variables that `distributed.initialize` reads; the command is as it was given."""
    yaml = pytest.importorskip("yaml")
    odd = '--config.data.path=/faceattr/my "own" faces & more'
    done = launch(
        "jobset.sh", "--dry-run", "--hosts", "2", *flags, kind, "attgan_64", "a", odd,
        IMAGE="registry/faceattr:1", CLAIM="runs", NAME="mine",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "${" not in done.stdout
    found = yaml.safe_load(done.stdout)
    assert (found["kind"], found["metadata"]["name"]) == ("JobSet", "mine")
    (job,) = found["spec"]["replicatedJobs"]
    hosts = job["template"]["spec"]
    assert (hosts["parallelism"], hosts["completions"], hosts["completionMode"]) == (2, 2, "Indexed")
    pod = hosts["template"]["spec"]
    assert pod["nodeSelector"] == selector
    (train,) = pod["containers"]
    assert train["image"] == "registry/faceattr:1"
    assert train["command"] == ["faceattr", "train", "--config=attgan_64", "--workdir=/faceattr/a", odd]
    assert train["resources"]["limits"] == resource
    variables = {variable["name"]: variable.get("value") for variable in train["env"]}
    assert variables["JAX_COORDINATOR_ADDRESS"] == f"mine-{job['name']}-0-0.mine:8476"
    assert variables["JAX_NUM_PROCESSES"] == "2"
    assert "JAX_PROCESS_ID" in variables
    mounted = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in train["volumeMounts"]} == mounted.keys()
    assert mounted["runs"]["persistentVolumeClaim"] == {"claimName": "runs"}


@pytest.mark.parametrize(("code", "queued"), [(75, True), (0, False), (1, False)])
def test_a_slurm_job_that_saved_goes_back_into_the_queue(tmp_path, code, queued):
    """By stand-ins for SLURM's commands; the job's script runs as sbatch would have it."""
    for name, body in {
        "sbatch": 'for last; do :; done; SLURM_JOB_ID=7 sh -c "${last#--wrap=}"',
        "srun": f"exit {code}",
        "scontrol": 'echo "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = launch("slurm.sh", "attgan_64", str(tmp_path / "run"), PATH=path)
    assert done.returncode == code, done.stderr
    assert done.stdout == "requeue 7\n" * queued


@pytest.mark.parametrize("script", ["local_gpu.sh", "slurm.sh", "tpu_pod.sh", "gpu_checks.sh", "jobset.sh"])
def test_an_unknown_argument_is_refused(script):
    done = launch(script, "--dry-runn", ZONE="z")
    assert done.returncode == 2
    assert "--dry-runn: there is no such argument" in done.stderr


def test_the_costliest_kernels_come_first(tmp_path):
    events = [
        {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}},
        {"ph": "M", "name": "process_name", "pid": 2, "args": {"name": "/host:CPU"}},
        {"ph": "X", "name": "conv", "pid": 1, "dur": 30.0},
        {"ph": "X", "name": "fusion", "pid": 1, "dur": 10.0},
        {"ph": "X", "name": "conv", "pid": 1, "dur": 40.0},
        {"ph": "X", "name": "python", "pid": 2, "dur": 900.0},
    ]
    with gzip.open(tmp_path / "a.trace.json.gz", "wt") as file:
        json.dump({"traceEvents": events}, file)
    _, first, second = (row.split() for row in kernels(tmp_path).splitlines())
    assert first == ["70", "87.5%", "35.0", "2", "conv"]
    assert second[-1] == "fusion"
