"""The phase executor on schedules shaped like DIAT's, ELEGANT's and StarGAN's."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.methods.base import Out, Phase, Stage
from faceattr_jax.training import distributed
from faceattr_jax.training.state import init_state
from faceattr_jax.training.step import Executor, draws, draws_per_iteration, fold_in, prepare, schedule
from tests import checks
from tests.training import dummies, programs


def mesh(devices: int = 1) -> jax.sharding.Mesh:
    return distributed.mesh(jax.devices()[:devices])


def leaf(rng: np.random.Generator, batch: int = 8) -> dict[str, np.ndarray]:
    images = rng.integers(0, 256, (batch, dummies.SIZE, dummies.SIZE, 3), dtype=np.uint8)
    return {"images": images, "labels": rng.integers(0, 2, (batch, 2)).astype(np.float32)}


def batches(count: int, seed: int = 0, *, paired: bool = False) -> list:
    rng = np.random.default_rng(seed)
    return [{"positive": leaf(rng), "negative": leaf(rng)} if paired else leaf(rng) for _ in range(count)]


def run(method, stage: Stage, *, scan: bool, devices: int = 1, iterations: int | None = None):
    executor = Executor(method, stage, seed=3, mesh=mesh(devices), scan=scan)
    state = jax.jit(lambda: init_state(method, 0))()
    history = []
    paired = stage.cycle > 1
    for i in range(stage.iterations if iterations is None else iterations):
        drawn = batches(executor.draws_per_iteration, seed=i, paired=paired)
        state, metrics = executor.iterate(state, drawn, i)
        history.append({name: float(value) for name, value in metrics.items()})
    return state, history


SCHEDULES = {
    "diat": lambda: (m := dummies.diat(), m.stages[1]),
    "diat pretraining": lambda: (m := dummies.diat(), m.stages[0]),
    "elegant": lambda: (m := dummies.elegant(), m.stages[0]),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_host_dispatch_and_scan_give_the_same_numbers(name):
    method, stage = SCHEDULES[name]()
    one, first = run(method, stage, scan=False)
    other, second = run(method, stage, scan=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), one, other)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose([a[name] for name in b], [*b.values()], rtol=1e-5, atol=1e-6)


def test_one_device_and_eight_agree():
    method, stage = SCHEDULES["diat"]()
    one, _ = run(method, stage, scan=False)
    eight, _ = run(method, stage, scan=False, devices=8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, eight)


def test_batches_of_an_iteration():
    diat = dummies.diat().stages
    assert [u.slot for u in schedule(diat[1])] == [0] * 31
    assert [u.slot for u in schedule(diat[0])] == [0, 1]
    # StarGAN's: five critic updates on fresh batches, the generator on the last of them.
    nothing = lambda *_: Out()  # noqa: E731
    stage = Stage("s", 2, (Phase("d", (), nothing, repeats=5, draw="update"), Phase("g", (), nothing, draw="last")))
    assert [u.slot for u in schedule(stage)] == [0, 1, 2, 3, 4, 4]
    assert draws_per_iteration(stage) == 5
    assert [d for d, _ in draws(stage, 1)] == [5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="'g' reuses the last batch"):
        schedule(Stage("s", 1, (Phase("g", (), nothing, draw="last"),)))


def test_cycle_index_follows_the_iteration():
    method = dummies.elegant(iterations=5, attributes=3)
    _, history = run(method, method.stages[0], scan=False)
    assert [row["d/index"] for row in history] == [0, 1, 2, 0, 1]
    assert [index for _, index in draws(method.stages[0], 0)] == [0, 1, 2, 0, 1]


def test_every_loss_moves_its_own_networks_only():
    """One objective, two optimizers: the step of each is that of its own loss alone."""

    def joint(variables, batch, carry, ctx):
        a, b = variables["params"]["a"]["w"], variables["params"]["b"]["w"]
        return Out(losses={"a": jnp.sum((a - b) ** 2), "b": jnp.sum(a * b * 5.0)})

    method = dummies.Dummy(("a", "b", "c"), (Stage("s", 1, (Phase("p", ("a", "b"), joint),)),))
    executor = Executor(method, method.stages[0], seed=0, mesh=mesh())
    state = init_state(method, 0)
    a, b = (np.asarray(state.variables["params"][n]["w"]) for n in "ab")
    phase = method.stages[0].phases[0]
    gradients, _ = executor.gradients(phase, state, leaf(np.random.default_rng(0)), {}, jnp.zeros(3, jnp.int32), {})
    np.testing.assert_allclose(gradients["a"]["a"]["w"], 2 * (a - b), rtol=1e-6)
    np.testing.assert_allclose(gradients["b"]["b"]["w"], 5 * a, rtol=1e-6)
    assert set(gradients) == {"a", "b"}
    assert set(gradients["a"]) == {"a"}


@pytest.mark.parametrize("scan", [False, True])
def test_a_phase_changes_what_it_declares_and_nothing_else(scan):
    method, stage = SCHEDULES["diat"]()
    before = jax.device_get(jax.jit(lambda: init_state(method, 0))())
    only = dataclasses.replace(stage, phases=(stage.phases[3],))
    after, _ = run(method, only, scan=scan, iterations=1)
    for name in ("transform", "discriminator"):
        jax.tree.map(np.testing.assert_array_equal, before.variables["params"][name], after.variables["params"][name])
        jax.tree.map(np.testing.assert_array_equal, before.opt_states[name], after.opt_states[name])
    assert not np.array_equal(before.variables["params"]["mask"]["w"], after.variables["params"]["mask"]["w"])
    assert int(after.opt_states["mask"].count) == 6


@pytest.mark.parametrize("scan", [False, True])
def test_an_iteration_takes_its_states_memory(scan):
    """Donated, and so not copied: what is left of the old state cannot be read any more."""
    method, stage = SCHEDULES["diat"]()
    executor = Executor(method, stage, seed=0, mesh=mesh(), scan=scan)
    state = jax.jit(lambda: init_state(method, 0))()
    executor.iterate(state, batches(executor.draws_per_iteration), 0)
    assert all(old.is_deleted() for old in jax.tree.leaves(state))


def test_rematerialized_passes_have_the_same_gradients():
    """Computed twice, which the count of operations tells."""
    found, operations = [], []
    for remat in (False, True):
        method = programs.method("attgan", **{"train.remat": remat})
        batch = programs.pictures(method)
        with jax.enable_x64(True):
            found.append(checks.gradients(method, batch, compiler_options=checks.QUICK))
        executor = Executor(method, method.stages[0], seed=0, mesh=mesh())
        operations.append(executor.lower("generator", programs.state(method), batch).cost_analysis()["flops"])

    def close(a, b):
        assert np.linalg.norm(a - b) <= 1e-9 * np.linalg.norm(a)

    jax.tree.map(close, *found)
    assert operations[1] > 1.1 * operations[0]


@pytest.mark.parametrize("scan", [False, True])
def test_clipping_happens_once_after_the_last_repeat(scan):
    method, stage = SCHEDULES["diat"]()
    calls = []

    def clip(params):
        jax.debug.callback(lambda w: calls.append(float(np.abs(w).max())), params["discriminator"]["w"])
        return dummies.clip(params)

    phases = tuple(dataclasses.replace(p, project=clip) if p.project else p for p in stage.phases)
    state, _ = run(method, dataclasses.replace(stage, phases=phases), scan=scan, iterations=2)
    jax.effects_barrier()
    assert len(calls) == 2
    assert min(calls) > 0.01  # twelve updates ran before anything was clipped
    assert float(jnp.abs(state.variables["params"]["discriminator"]["w"]).max()) <= 0.01


def test_undeclared_changes_and_missing_losses_are_errors():
    def mutating(variables, batch, carry, ctx):
        return Out(mutated={"memory/pool": variables["memory"]["pool"] + 1.0})

    def silent(variables, batch, carry, ctx):
        return Out()

    def stage(*phases):
        return dummies.Dummy(("a",), (Stage("s", 1, phases),))

    method = stage(Phase("p", (), mutating))
    with pytest.raises(ValueError, match=r"'p' changed \['memory/pool'\]"):
        run(method, method.stages[0], scan=False)
    method = stage(Phase("p", (), mutating, mutates=("memory/pool",)))
    state, _ = run(method, method.stages[0], scan=False)
    np.testing.assert_array_equal(state.variables["memory"]["pool"], np.ones(3))
    method = stage(Phase("p", ("a",), silent))
    with pytest.raises(ValueError, match=r"'p' trains \['a'\]"):
        run(method, method.stages[0], scan=False)


def test_carry_hands_values_on_without_gradient():
    def first(variables, batch, carry, ctx):
        return Out(carry={"x": variables["params"]["a"]["w"] * 2.0})

    def second(variables, batch, carry, ctx):
        return Out(losses={"a": jnp.sum(carry["x"] * variables["params"]["a"]["w"])})

    method = dummies.Dummy(("a",), (Stage("s", 1, (Phase("f", (), first), Phase("g", ("a",), second))),))
    executor = Executor(method, method.stages[0], seed=0, mesh=mesh())
    state = init_state(method, 0)
    w = np.asarray(state.variables["params"]["a"]["w"])
    phase = method.stages[0].phases[1]
    carry = {"x": jnp.asarray(2.0 * w)}
    gradients, _ = executor.gradients(phase, state, leaf(np.random.default_rng(0)), carry, jnp.zeros(3, jnp.int32), {})
    np.testing.assert_allclose(gradients["a"]["a"]["w"], 2 * w, rtol=1e-6)  # 4 w if it flowed back


@pytest.mark.parametrize("scan", [False, True])
def test_frozen_weights_are_an_argument_and_no_part_of_the_state(scan):
    def towards(variables, batch, carry, ctx):
        return Out(losses={"a": jnp.sum((variables["params"]["a"]["w"] - variables["frozen"]["judge"]["w"]) ** 2)})

    method = dummies.Dummy(("a",), (Stage("s", 2, (Phase("p", ("a",), towards, repeats=2),)),))
    method.frozen = {"judge": SimpleNamespace(variables={"w": np.full(3, 5.0, np.float32)})}
    executor = Executor(method, method.stages[0], seed=0, mesh=mesh(), scan=scan)
    state, metrics = executor.iterate(init_state(method, 0), batches(1), 0)
    assert set(state.variables) == {"params", "memory", "batch_stats"}
    # Other weights go into the function that is compiled already.
    executor.frozen = {"judge": {"w": state.variables["params"]["a"]["w"] + 0}}
    state, metrics = executor.iterate(state, batches(1), 1)
    assert float(metrics["p/a"]) < 0.1


def test_a_stage_restarts_the_optimizers_it_names():
    method = dummies.diat()
    state, _ = run(method, method.stages[0], scan=False)
    mask = jax.device_get(state.opt_states["mask"])
    assert int(state.opt_states["transform"].count) == 4
    state = Executor(method, method.stages[1], seed=0, mesh=mesh()).begin(state)
    assert int(state.opt_states["transform"].count) == 0
    jax.tree.map(np.testing.assert_array_equal, mask, jax.device_get(state.opt_states["mask"]))


def test_average_of_the_parameters():
    """The average follows a + (1 - min(decay, t / (10 + t))) (p - a)."""
    method = dataclasses.replace(dummies.diat(), ema=0.5)
    executor = Executor(method, method.stages[0], seed=0, mesh=mesh())
    state = init_state(method, 0)
    average = np.asarray(state.ema["transform"]["w"])
    for i in range(15):
        state, _ = executor.iterate(state, batches(2, i), i)
        decay = min(0.5, (i + 1) / (10 + i + 1))
        average = decay * average + (1 - decay) * np.asarray(state.variables["params"]["transform"]["w"])
    np.testing.assert_allclose(state.ema["transform"]["w"], average, rtol=1e-5)
    assert state.inference_variables["params"]["transform"] is state.ema["transform"]


def test_prepare_scales_and_mirrors_whole_images():
    batch = {"positive": leaf(np.random.default_rng(0), 64), "negative": leaf(np.random.default_rng(1), 64)}
    plain = prepare(batch, jax.random.key(0), flip=False)
    np.testing.assert_allclose(plain["positive"]["images"], batch["positive"]["images"] / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(plain["positive"]["labels"], batch["positive"]["labels"])
    flipped = prepare(batch, jax.random.key(0), flip=True)
    mirrored = {}
    for side in ("positive", "negative"):
        x, y = np.asarray(plain[side]["images"]), np.asarray(flipped[side]["images"])
        same, mirror = (x == y).all((1, 2, 3)), (x[:, :, ::-1] == y).all((1, 2, 3))
        assert np.all(same ^ mirror)
        assert 15 < mirror.sum() < 49
        mirrored[side] = mirror
    assert (mirrored["positive"] != mirrored["negative"]).any()


def test_keys_differ_by_name_iteration_and_repeat():
    key = jax.random.key(0)
    paths = [("a", 0), ("a", 1), ("b", 0), (0, "a")]
    seen = {tuple(jax.random.key_data(fold_in(key, *path)).tolist()) for path in paths}
    assert len(seen) == 4
