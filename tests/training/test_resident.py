"""Batches from device memory are those of the host pipeline, on one device and on eight."""

import itertools
import re
from dataclasses import dataclass, field
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax.data import pipeline, sampling
from faceattr_jax.data.source import Table
from faceattr_jax.errors import UserError
from faceattr_jax.training import distributed, loop, resident, traffic
from faceattr_jax.training.state import init_state
from faceattr_jax.training.step import Executor, draws
from tests import checks, runs
from tests.training import dummies

COUNT = 67
KEY = jax.random.key(3)
INDICES = np.arange(3, COUNT)
RNG = np.random.default_rng(0)
LABELS = np.arange(COUNT)[:, None] // [8, 16] % 2 == 1  # every eighth has all of them
PEOPLE = (np.arange(COUNT) // 4).astype(np.int32)
SAMPLERS = {
    "uniform": lambda: sampling.uniform(KEY, INDICES, 16),
    "balanced": lambda: sampling.balanced(KEY, INDICES, LABELS[INDICES], 16),
    "pairs": lambda: sampling.opposite_pairs(KEY, INDICES, LABELS[INDICES], 8),
    "guided": lambda: sampling.source_guided(KEY, INDICES[:40], INDICES[9:], 8),
}


@dataclass
class Faces:
    """Pictures of noise."""

    size: int = 4
    crop: str = "none"
    pixels: np.ndarray = field(default_factory=lambda: RNG.integers(0, 256, (COUNT, 4, 4, 3), dtype=np.uint8))
    table: Table = field(
        default_factory=lambda: Table(
            ("Male", "Young"), LABELS, np.zeros(COUNT, np.int8), [str(i) for i in range(COUNT)]
        )
    )

    def images(self, indices):
        return self.pixels[indices]


FACES = Faces()


def settings(**data):
    config = configs.base()
    config.image_size = 4
    config.data.update(data)
    return config


def dealt(name: str, shards: int) -> sampling.Sampler:
    return sampling.dealt(SAMPLERS[name](), shards, sampling.homes(INDICES, COUNT, shards))


def held(devices: int = 1, **data) -> resident.Resident:
    mesh = distributed.mesh(jax.devices()[:devices])
    return resident.Resident(FACES, ["Young", "Male"], INDICES, settings(**data), mesh, people=PEOPLE)


def same(ours, theirs) -> None:
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert jax.tree.map(lambda x: x.dtype, ours) == jax.tree.map(lambda x: x.dtype, theirs)


@pytest.mark.parametrize(("name", "shards"), [("uniform", 1), ("pairs", 1), ("guided", 4), ("balanced", 4)])
def test_batches_are_those_of_the_host(name, shards):
    sampler = dealt(name, shards)
    host = pipeline.Pipeline(FACES, ["Young", "Male"], sampler, people=PEOPLE)
    requests = [(draw, draw // 2 % 2) for draw in range(4, 10)]  # a run that was resumed at iteration 2
    batches = list(held(shards=shards).batches(sampler, requests, 2, identity=True))
    assert [len(batch) for batch in batches] == [2, 2, 2]
    for request, batch in zip(requests, itertools.chain(*batches), strict=True):
        same(batch, host.batch(*request))


def test_one_device_and_eight_draw_the_same_and_no_image_crosses():
    sampler = dealt("pairs", 8)
    one, eight = held(1, shards=8), held(8, shards=8)
    requests = [(draw, 1) for draw in range(4)]
    for a, b in zip(one.batches(sampler, requests, 2), eight.batches(sampler, requests, 2), strict=True):
        same(a, b)
        for leaf in jax.tree.leaves(b):
            assert leaf.sharding == distributed.batch_sharding(eight.mesh)
    # Each device holds its own eighth and takes its part of a batch from there.
    drawing = eight.drawing(sampler, 2)
    images = drawing.arguments[0]["images"]
    assert [len(shard.data) for shard in images.addressable_shards] == [-(-len(INDICES) // 8)] * 8
    program = jax.jit(drawing.draw, out_shardings=distributed.batch_sharding(eight.mesh))
    compiled = program.lower(*drawing.arguments, jax.ShapeDtypeStruct((2,), np.int32)).compile()
    assert traffic.collectives(compiled.as_text()) == []


def test_devices_that_do_not_divide_the_shards_hold_everything():
    pictures = held(3, shards=8)
    images = pictures.drawing(dealt("uniform", 8), 1).arguments[0]["images"]
    assert {len(shard.data) for shard in images.addressable_shards} == {len(INDICES)}


@pytest.mark.parametrize("scan", [False, True])
def test_the_step_number_alone_crosses_to_the_device(scan):
    """Nothing is transferred but what is put there by name, and that is a number or two."""
    method = dummies.diat(repeats=(2, 2, 1))
    stage = method.stages[1]
    mesh = checks.one_device()
    pictures = held()
    executor = Executor(method, stage, seed=0, mesh=mesh, flip=True, scan=scan)
    state = jax.jit(lambda: init_state(method, 0), out_shardings=distributed.replicated(mesh))()
    batches = pictures.batches(SAMPLERS["uniform"](), draws(stage, 0), executor.draws_per_iteration)
    state, _ = executor.iterate(state, next(batches), 0)  # compiles
    with jax.transfer_guard("disallow"):
        for iteration, drawn in enumerate(batches, 1):
            state, metrics = executor.iterate(state, drawn, iteration)
    assert int(state.step) == stage.iterations
    assert all(np.isfinite(value) for value in metrics.values())


def test_several_iterations_in_one_call():
    """Equal to one at a time on the host's batches, and nothing at all crosses but the number of the first one."""
    method = dummies.elegant(attributes=2)
    stage, mesh, sampler = method.stages[0], distributed.mesh(), dealt("pairs", 8)
    host = pipeline.Pipeline(FACES, ["Young", "Male"], sampler)

    def beginning():
        return jax.jit(lambda: init_state(method, 0), out_shardings=distributed.replicated(mesh))()

    one = Executor(method, stage, seed=0, mesh=mesh, flip=True)
    expected, rows = beginning(), []
    for iteration, request in enumerate(draws(stage, 0)):
        expected, metrics = one.iterate(expected, [host.batch(*request)], iteration)
        rows.append(metrics)

    many = Executor(method, stage, seed=0, mesh=mesh, flip=True, scan=True)
    drawing = held(8, shards=8).drawing(sampler, many.draws_per_iteration)
    state, first = many.iterate_several(beginning(), drawing, 0, 3)  # compiles
    number = jax.device_put(np.int32(3), distributed.replicated(mesh))
    with jax.transfer_guard_host_to_device("disallow_explicit"):
        state, second = many.several(drawing.draw, 3, state, drawing.arguments, number, many.frozen)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), expected, state)
    for name in rows[0]:
        found = np.concatenate([first[name], second[name]])
        np.testing.assert_allclose(found, [row[name] for row in rows], rtol=1e-5, atol=1e-6)


def test_a_run_is_the_same_from_either_memory_killed_or_not(faces, tmp_path, monkeypatch):
    """By eight devices, each from its own shard; the killed one goes on from the host's memory."""
    few = {"model__widths": (4,), "train__evaluate_every": 0, "train__iterations": 4, "data__shards": 8}
    whole = loop.train(runs.classifier(faces, data__resident="on", **few), tmp_path / "whole")
    with monkeypatch.context() as patch:
        checks.kill_at(patch, 3)
        with pytest.raises(checks.Killed):
            loop.train(runs.classifier(faces, data__resident="on", **few), tmp_path / "parts")
    resumed = loop.train(runs.classifier(faces, data__resident="off", **few), tmp_path / "parts")
    same(jax.device_get(whole), jax.device_get(resumed))
    assert (tmp_path / "whole" / "metrics.csv").read_text() == (tmp_path / "parts" / "metrics.csv").read_text()


def mesh_of(platform: str, gib: float, devices: int = 1):
    device = SimpleNamespace(platform=platform, memory_stats=lambda: {"bytes_limit": int(gib * 2**30)} if gib else None)
    return SimpleNamespace(size=devices, local_devices=[device] * devices)


GIB = 2**30 // (4 * 4 * 3) + 1  # pictures of 4 px that take a GiB


@pytest.mark.parametrize(
    ("data", "mesh", "on_device", "reason"),
    [
        ({}, mesh_of("cpu", 0), False, "whose memory a CPU device shares"),
        ({"resident": "on"}, mesh_of("cpu", 0), True, "which holds all of them"),
        ({"resident": "off"}, mesh_of("gpu", 80), False, "is 'off'"),
        ({}, mesh_of("gpu", 3), True, "take 1.00 GiB of each of 1 devices, which holds all of them"),
        ({}, mesh_of("gpu", 2), False, r"more than the 0\.80 GiB that they may"),
        ({"resident_gib": 0.5}, mesh_of("gpu", 80), False, r"more than the 0\.50 GiB"),
        ({"shards": 8}, mesh_of("tpu", 2, 4), True, r"take 0\.25 GiB of each of 4 devices, which holds its own shards"),
        ({"shards": 6}, mesh_of("tpu", 2, 4), False, r"take 1\.00 GiB of each of 4"),
        ({}, mesh_of("gpu", 0), False, "does not tell how much memory"),
    ],
)
def test_what_is_chosen_and_why(data, mesh, on_device, reason):
    choice = resident.choose(settings(**data), GIB, mesh)
    assert choice.resident == on_device
    assert re.search(reason, choice.reason)


ON, OFF = resident.Choice(True, "They fit."), resident.Choice(False, "They do not fit.")


@pytest.mark.parametrize(
    ("backend", "where", "train", "many"),
    [
        ("gpu", ON, {"checkpoint_every": 1000, "evaluate_every": 2000}, 10),
        ("gpu", ON, {"checkpoint_every": 1000, "evaluate_every": 12}, 4),
        ("gpu", ON, {"checkpoint_every": 1000, "evaluate_every": 0}, 10),
        ("gpu", ON, {"checkpoint_every": 7}, 7),
        ("gpu", ON, {"checkpoint_every": 1000, "evaluate_every": 2543}, 10),
        ("gpu", ON, {"checkpoint_every": 1000, "evaluate_every": 3}, 3),
        ("gpu", ON, {"checkpoint_every": 1}, 1),
        ("gpu", ON, {"per_call": 3}, 3),
        ("gpu", OFF, {}, 1),
        ("cpu", ON, {}, 1),
        ("cpu", ON, {"per_call": 3}, 3),
    ],
)
def test_how_many_iterations_one_call_has(backend, where, train, many, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = settings()
    config.train.update(train)
    assert loop.per_call(config, where) == many


def test_processes_choose_by_the_least_of_their_devices(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(resident.multihost_utils, "process_allgather", lambda own: np.array([own, own / 2]))
    assert "more than the 0.80 GiB" in resident.choose(settings(), GIB, mesh_of("gpu", 4)).reason


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"data.resident is 'on', but .* 1\.00 GiB of each of 1 devices, of 0\.50"):
        resident.choose(settings(resident="on"), GIB, mesh_of("gpu", 0.5))
    with pytest.raises(UserError, match=r"data\.resident is 'yes'; it can be auto, on or off"):
        resident.choose(settings(resident="yes"), GIB, mesh_of("gpu", 80))
    config = settings()
    for many, where, reason in (
        (2, OFF, "draw from device memory. They do not fit."),
        (-1, ON, "is -1; it is a number"),
    ):
        config.train.per_call = many
        with pytest.raises(UserError, match=reason):
            loop.per_call(config, where)
