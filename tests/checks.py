"""What the tests of several methods look at."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax import config as configs
from faceattr_jax import editor
from faceattr_jax.training import distributed, loop
from faceattr_jax.training.state import TrainState, init_state
from faceattr_jax.training.step import Executor

# Tiny networks whose compilation takes most of the time: optimise nothing.
QUICK = {"xla_backend_optimization_level": 0}
quick = functools.partial(jax.jit, compiler_options=QUICK)


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """What is given to `jax.jit` in here is not optimised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick)
        yield


class Killed(BaseException):
    """Stands for a process that ends between two instructions."""


def kill_at(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    """Let whoever trains be killed at the start of that iteration of a stage."""
    iterate = Executor.iterate

    def dying(executor, state, batches, number):
        if number == iteration:
            raise Killed
        return iterate(executor, state, batches, number)

    monkeypatch.setattr(Executor, "iterate", dying)


def killed_and_resumed(monkeypatch: pytest.MonkeyPatch, config: Any, folder: Path, iteration: int = 3) -> Path:
    """Trains in one piece, and killed and resumed, with the same bits: the folder of the first, `folder`/whole."""
    whole = loop.train(config, folder / "whole")
    with monkeypatch.context() as patch:
        kill_at(patch, iteration)
        with pytest.raises(Killed):
            loop.train(config, folder / "parts")
    resumed = loop.train(config, folder / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(resumed))
    assert (folder / "whole" / "metrics.csv").read_text() == (folder / "parts" / "metrics.csv").read_text()
    return folder / "whole"


def one_device() -> jax.sharding.Mesh:
    return distributed.mesh(jax.local_devices()[:1])


@functools.cache
def _beginning(method: Any) -> Callable[[], TrainState]:
    """Compiled once, for all who want a state to donate."""
    placed = distributed.replicated(one_device())
    return jax.jit(lambda: init_state(method, 0), out_shardings=placed, compiler_options=QUICK)


def fresh(method: Any) -> TrainState:
    """The method's fresh state on one device."""
    return _beginning(method)()


@functools.cache
def executor(method: Any, stage: int = 0, *, scan: bool = False) -> Executor:
    """Of a stage of the method, on one device; whoever asks shares what it compiles, quickly."""
    with quickly():
        return Executor(method, method.stages[stage], seed=0, mesh=one_device(), scan=scan)


def share_compiled(patch: pytest.MonkeyPatch) -> None:
    """Let runs of equal configs have one executor, and loaded models one method: most runs here repeat another's.

    What they compile is a function of that config alone; weights, frozen ones too, are arguments.
    """
    executors: dict[Any, Executor] = {}
    methods: dict[str, Any] = {}
    build = editor.build

    def run_executor(method: Any, stage: Any, *, seed: int, mesh: Any, flip: bool, scan: bool | None) -> Executor:
        computed = {key: value for key, value in method.config.to_dict().items() if f"{key}." not in loop.WATCHING}
        key = json.dumps(computed, sort_keys=True), stage.name, seed, mesh, flip, scan
        with quickly():
            made = Executor(method, stage, seed=seed, mesh=mesh, flip=flip, scan=scan)
        shared = executors.setdefault(key, made)
        shared.frozen = made.frozen
        return shared

    def loaded_method(config: Any) -> Any:
        key = configs.to_json(config)
        if key not in methods:
            made = methods[key] = build(config)
            # A bound method is another object each time, and what JAX has traced goes with the one that it was given.
            calls = [name for name in ("own", *made.capabilities) if hasattr(made, name)]
            vars(made).update({name: getattr(made, name) for name in calls})
        return methods[key]

    patch.setattr(loop, "Executor", run_executor)
    patch.setattr(editor, "build", loaded_method)


def unshare_compiled(patch: pytest.MonkeyPatch, *, scan: bool | None = None) -> None:
    """Let every run from here on trace and compile its own programs, quickly, as a process that resumes one does."""

    def own(method: Any, stage: Any, **settings: Any) -> Executor:
        with quickly():
            return Executor(method, stage, **settings | ({} if scan is None else {"scan": scan}))

    patch.setattr(loop, "Executor", own)


def layer_outputs(module: nn.Module, *args: Any, **kwargs: Any) -> dict[str, tuple[int, ...]]:
    """Shape of what every layer of a module returns, at full width and without computing it."""

    def run(key):
        _, state = module.init_with_output(key, *args, **kwargs, capture_intermediates=True, mutable=True)
        return state["intermediates"]

    shapes = jax.eval_shape(run, jax.random.key(0))
    flat = jax.tree_util.tree_flatten_with_path(shapes)[0]
    return {"/".join(p.key for p in path if hasattr(p, "key")): leaf.shape[1:] for path, leaf in flat}


def changed(before: TrainState, after: TrainState) -> set[str]:
    """What differs in any bit between two states: "params/encoder", "optimizer/generator", "ema/encoder", "step"."""

    def parts(state: TrainState) -> dict[str, Any]:
        trees = {**state.variables, "optimizer": state.opt_states, "ema": state.ema}
        named = {f"{kind}/{name}": tree for kind, owned in trees.items() for name, tree in owned.items()}
        return {"step": state.step, **named}

    same = jax.tree.map(np.array_equal, parts(before), parts(after))
    return {name for name, tree in same.items() if not all(jax.tree.leaves(tree))}


def unmoved(before: TrainState, after: TrainState) -> set[str]:
    """Parameters that are the same in both states, of networks whose parameters differ: "discriminator/fc/bias"."""
    both = ({n: s.variables["params"][n] for n in before.variables["params"]} for s in (before, after))
    same: dict[str, Any] = jax.tree.map(np.array_equal, *both)
    return {
        "/".join((network, *(key.key for key in path)))
        for network, tree in same.items()
        for path, kept in jax.tree_util.tree_leaves_with_path(tree)
        if kept and not all(jax.tree.leaves(tree))
    }


def gradients(method: Any, data: Any, devices: int = 1, stage: int = 0, **options: Any) -> dict[str, Any]:
    """Phase -> optimizer -> gradients at the fresh state of a stage, `data` split over so many devices.

    What a phase carries reaches the later ones. Where JAX's x64 is enabled the same parameters are double, and so are
    their gradients.
    options: of `jax.jit`.
    """
    mesh = distributed.mesh(jax.devices()[:devices])
    executor = Executor(method, method.stages[stage], seed=0, mesh=mesh)
    everywhere, split = distributed.replicated(mesh), distributed.batch_sharding(mesh)
    with jax.enable_x64(False):
        state = jax.device_put(jax.device_get(fresh(method)), everywhere)
    double = jnp.zeros(0).dtype
    state = jax.tree.map(lambda x: x.astype(double) if x.dtype == jnp.float32 else x, state)
    compiled = functools.partial(
        jax.jit, in_shardings=(everywhere, split, None, everywhere), out_shardings=(everywhere, None), **options
    )
    found, carry = {}, {}
    for phase in method.stages[stage].phases:

        def both(state, batch, carry, frozen, phase=phase):
            gradient, out = executor.gradients(phase, state, batch, carry, jnp.zeros(3, jnp.int32), frozen)
            return gradient, out.carry

        gradient, handed_on = compiled(both)(state, data, carry, executor.frozen)
        found[phase.name], carry = jax.device_get(gradient), {**carry, **handed_on}
    return found


def executors_agree(
    host: Executor,
    scanned: Executor,
    batches: Sequence[Any],
    *,
    iterations: int = 1,
    rtol: float = 1e-4,
    atol: float = 0.0,
    share: float = 1e-2,
    least: float = 0.0,
) -> None:
    """Dispatched from the host or scanned, iterations on the same batches give the same metrics and the same state.

    rtol, atol: of the metrics. share: how far an array may be off, of how far it has moved, or of `least`.
    """
    before = jax.device_get(fresh(host.method))
    found = []
    for executor in (host, scanned):
        state = fresh(host.method)
        for i in range(iterations):
            state, metrics = executor.iterate(state, batches, i)
        found.append(jax.device_get((state, metrics)))
    (one, first), (other, second) = found
    assert first.keys() == second.keys()
    np.testing.assert_allclose([*first.values()], [second[name] for name in first], rtol=rtol, atol=atol)

    def close(old: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        # The first steps of Adam and RMSProp are the gradient's sign, which rounding decides where it is all but zero.
        assert np.linalg.norm(a - b) <= share * max(np.linalg.norm(a - old), least)

    jax.tree.map(close, before, one, other)


def devices_agree(
    method: Any, data: Any, *, share: float, least: float = 0.0, stage: int = 0, **options: Any
) -> dict[str, Any]:
    """One device and eight give the same `gradients`, each to `share` of its size or of `least`; returns the one's."""
    one, eight = (gradients(method, data, devices, stage, **options) for devices in (1, 8))

    def close(a: np.ndarray, b: np.ndarray) -> None:
        assert np.linalg.norm(a - b) <= share * max(np.linalg.norm(a), least)

    jax.tree.map(close, one, eight)
    return one
