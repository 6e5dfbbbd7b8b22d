"""The phase executor: one compiled function per phase update, and the schedule that runs them.

On the CPU the schedule is dispatched from the host, because XLA runs convolutions inside a while loop very
slowly there; on GPU and TPU the repeats are scanned and a whole iteration is one compiled function, or several
iterations are, where their batches are drawn on the devices, too. The numbers are the same either way. State is donated
and replicated over the mesh, as are a method's frozen weights, which are an argument of every update but no part of the
state; batches are sharded along their first axis, so batch statistics are those of the global batch.
"""

import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from faceattr_jax.data.images import to_float
from faceattr_jax.methods.base import Batch, Carry, Ctx, Method, Phase, Stage
from faceattr_jax.nn.precision import computing
from faceattr_jax.training.state import TrainState, trained_params

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """How the batches of an iteration are drawn on the devices: `draw(*arguments, [first draw, index])`, traced.

    first draw: the number of the iteration's first one, of which others follow. index: of the stage's cycle.
    """

    draw: Callable[..., list[Batch]]
    arguments: tuple[Any, ...]


def fold_in(key: jax.Array, *data: str | jax.Array | int) -> jax.Array:
    """Fold names and counters into a key, so that no key is ever carried through the loop."""
    for item in data:
        key = jax.random.fold_in(key, zlib.crc32(item.encode()) if isinstance(item, str) else item)
    return key


@dataclasses.dataclass(frozen=True)
class Update:
    """One entry of an iteration's schedule. slot: which of the iteration's distinct batches it uses."""

    phase: Phase
    repeat: int
    slot: int


def schedule(stage: Stage) -> tuple[Update, ...]:
    """The updates of one iteration in order, each with the slot of the batch it uses."""
    updates: list[Update] = []
    slots = itertools.count()
    shared = last = None
    for phase in stage.phases:
        for repeat in range(phase.repeats):
            if phase.draw == "update":
                last = next(slots)
            elif phase.draw == "iteration":
                shared = next(slots) if shared is None else shared
                last = shared
            elif last is None:
                raise ValueError(f"Phase '{phase.name}' reuses the last batch, but no phase before it draws one.")
            updates.append(Update(phase, repeat, last))
    return tuple(updates)


def draws_per_iteration(stage: Stage) -> int:
    """How many distinct batches one iteration of the stage uses."""
    return 1 + max(update.slot for update in schedule(stage))


def draws(stage: Stage, start: int) -> Iterator[tuple[int, int]]:
    """(draw number, cycle index) of every batch of the stage from iteration `start` on, in the order of use."""
    per_iteration = draws_per_iteration(stage)
    for iteration in range(start, stage.iterations):
        for slot in range(per_iteration):
            yield iteration * per_iteration + slot, iteration % stage.cycle


def prepare(batch: Batch, key: jax.Array, *, flip: bool) -> Batch:
    """uint8 pictures to float32 in [-1, 1], mirrored with probability one half where `flip`; labels as they are.

    A leaf of the batch is `{"images": (B, S, S, 3), ...}`; each leaf of a nested batch mirrors on its own.
    """
    if "images" not in batch:
        return {name: prepare(leaf, fold_in(key, name), flip=flip) for name, leaf in batch.items()}
    images = to_float(batch["images"])
    if flip:
        mirrored = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
        images = jnp.where(mirrored, images[:, :, ::-1], images)
    return {**batch, "images": images}


class Executor:
    """Runs the iterations of one stage.

    method, stage: what to run. seed: of all randomness. mesh: its axis is ``data``. flip: mirror the training
    images at random. scan: one compiled function an iteration instead of host dispatch; by default where the
    backend is not the CPU.
    """

    def __init__(
        self,
        method: Method,
        stage: Stage,
        *,
        seed: int,
        mesh: Mesh,
        flip: bool = False,
        scan: bool | None = None,
    ):
        self.method, self.stage, self.seed, self.flip = method, stage, seed, flip
        self.dtype = method.config.get("dtype", "float32")
        self.schedule = schedule(stage)
        self.draws_per_iteration = draws_per_iteration(stage)
        self.scan = jax.default_backend() != "cpu" if scan is None else scan
        everywhere = NamedSharding(mesh, PartitionSpec())
        frozen = {role: network.variables for role, network in method.frozen.items()}
        self.frozen = jax.device_put(frozen, everywhere)
        split = NamedSharding(mesh, PartitionSpec("data"))
        update = functools.partial(jax.jit, donate_argnums=0, out_shardings=(everywhere, None, None))
        whole = functools.partial(jax.jit, donate_argnums=0, out_shardings=everywhere)
        self.updates = {
            phase.name: update(
                functools.partial(self._update, phase), in_shardings=(everywhere, split, None, None, everywhere)
            )
            for phase in stage.phases
        }
        self._projections = {
            phase.name: whole(functools.partial(self._project, phase)) for phase in stage.phases if phase.project
        }
        self._finish = whole(self._finish_iteration)
        self.iteration = whole(self._scanned_iteration, in_shardings=(everywhere, split, None, everywhere))
        self.several = jax.jit(
            self._several_iterations, static_argnums=(0, 1), donate_argnums=2, out_shardings=everywhere
        )
        self._restart = whole(self._reset_optimizers)

    def begin(self, state: TrainState) -> TrainState:
        """The state at the start of the stage: the optimizers that it resets start anew."""
        return self._restart(state) if self.stage.reset else state

    def iterate(self, state: TrainState, batches: Sequence[Batch], iteration: int) -> tuple[TrainState, Metrics]:
        """One iteration of the stage on its distinct batches; `state` is consumed.

        Returns the new state and the metrics, named ``phase/metric``, of each phase's last repeat.
        """
        if self.scan:
            return self.iteration(state, list(batches), jax.device_put(np.int32(iteration)), self.frozen)
        carry: Carry = {}
        metrics: Metrics = {}
        for phase in self.stage.phases:
            state, carry, scalars = self.run_phase(phase, state, batches, carry, iteration)
            metrics.update(scalars)
        return self._finish(state), metrics

    def iterate_several(
        self, state: TrainState, drawing: Drawing, iteration: int, count: int
    ) -> tuple[TrainState, Metrics]:
        """`count` iterations from `iteration` on, with the batches that they draw, in one call; `state` is consumed.

        Returns the new state and the metrics of `iterate` of each, (count,).
        """
        first = jax.device_put(np.int32(iteration))
        return self.several(drawing.draw, count, state, drawing.arguments, first, self.frozen)

    def run_phase(
        self, phase: Phase, state: TrainState, batches: Sequence[Batch], carry: Carry, iteration: int
    ) -> tuple[TrainState, Carry, Metrics]:
        """All repeats of one phase, dispatched from the host; `state` is consumed, `carry` grows by the phase's."""
        handed_on, scalars = carry, {}
        for update in self.schedule:
            if update.phase is phase:
                where = jax.device_put(np.array([iteration, update.repeat, update.slot], np.int32))
                state, handed_on, scalars = self.updates[phase.name](
                    state, batches[update.slot], carry, where, self.frozen
                )
        if phase.project:
            state = self._projections[phase.name](state)
        return state, {**carry, **handed_on}, scalars

    def lower(self, phase: str, state: TrainState, batch: Batch, carry: Carry | None = None) -> Any:
        """The lowered update of the phase called `phase`, for cost analysis and ahead-of-time compilation."""
        return self.updates[phase].lower(state, batch, carry or {}, jnp.zeros(3, jnp.int32), self.frozen)

    def gradients(
        self, phase: Phase, state: TrainState, batch: Batch, carry: Carry, where: jax.Array, frozen: Any
    ) -> Any:
        """(optimizer -> gradients of its networks, Out) of one update.

        where: [iteration, repeat, slot]. frozen: role -> weights, as in `self.frozen`.
        """
        iteration, repeat, slot = where[0], where[1], where[2]
        key = jax.random.key(self.seed)
        draw = iteration * self.draws_per_iteration + slot
        batch = prepare(batch, fold_in(key, "flip", self.stage.name, draw), flip=self.flip)
        ctx = Ctx(
            iteration=iteration,
            index=iteration % self.stage.cycle,
            repeat=repeat,
            key=fold_in(key, self.stage.name, phase.name, iteration, repeat),
        )
        params = {
            network: tree
            for name in phase.trains
            for network, tree in trained_params(self.method, name, state.variables).items()
        }

        def losses(params: Any) -> Any:
            variables = {**state.variables, "params": {**state.variables["params"], **params}, "frozen": frozen}
            with computing(self.dtype):
                out = phase.objective(variables, batch, carry, ctx)
            if set(out.losses) != set(phase.trains):
                raise ValueError(
                    f"Phase '{phase.name}' trains {sorted(phase.trains)} but its objective returned losses for "
                    f"{sorted(out.losses)}."
                )
            return dict(out.losses), out

        if not phase.trains:
            return {}, losses({})[1]
        values, pullback, out = jax.vjp(losses, params, has_aux=True)
        gradients = {}
        for name in phase.trains:
            # Every loss is differentiated with respect to its own optimizer's networks only; XLA drops the rest.
            pull = {other: jnp.ones_like(v) if other == name else jnp.zeros_like(v) for other, v in values.items()}
            (all_networks,) = pullback(pull)
            gradients[name] = {n: all_networks[n] for n in self.method.optimizers[name].networks}
        return gradients, out

    def _update(
        self, phase: Phase, state: TrainState, batch: Batch, carry: Carry, where: jax.Array, frozen: Any
    ) -> tuple[TrainState, Carry, Metrics]:
        gradients, out = self.gradients(phase, state, batch, carry, where, frozen)
        undeclared = sorted(set(out.mutated) - set(phase.mutates))
        if undeclared:
            raise ValueError(f"Phase '{phase.name}' changed {undeclared}, which its `mutates` does not declare.")
        variables, opt_states = dict(state.variables), dict(state.opt_states)
        for name, gradient in gradients.items():
            optimizer = self.method.optimizers[name]
            old = trained_params(self.method, name, state.variables)
            direction, opt_states[name] = optimizer.transform.update(gradient, opt_states[name], old)
            rate = optimizer.schedule(where[0])
            new = jax.tree.map(lambda p, d, rate=rate: p - (rate * d).astype(p.dtype), old, direction)
            variables["params"] = {**variables["params"], **new}
        for path, tree in out.mutated.items():
            collection, network = path.split("/")
            variables[collection] = {**variables[collection], network: tree}
        metrics = {f"{phase.name}/{name}": value for name, value in {**out.losses, **out.metrics}.items()}
        return (
            state.replace(variables=variables, opt_states=opt_states),
            jax.lax.stop_gradient(dict(out.carry)),
            metrics,
        )

    def _project(self, phase: Phase, state: TrainState) -> TrainState:
        assert phase.project is not None
        variables = dict(state.variables)
        for name in phase.trains:
            projected = phase.project(trained_params(self.method, name, variables))
            variables["params"] = {**variables["params"], **projected}
        return state.replace(variables=variables)

    def _finish_iteration(self, state: TrainState) -> TrainState:
        step = state.step + 1
        # The average warms up, so that it forgets the initial parameters within a few iterations.
        decay = jnp.minimum(self.method.ema, step / (10.0 + step))
        ema = {
            network: jax.tree.map(lambda a, p: a + (1.0 - decay) * (p - a), old, state.variables["params"][network])
            for network, old in state.ema.items()
        }
        return state.replace(step=step, ema=ema)

    def _reset_optimizers(self, state: TrainState) -> TrainState:
        fresh = {
            name: self.method.optimizers[name].transform.init(trained_params(self.method, name, state.variables))
            for name in self.stage.reset
        }
        return state.replace(opt_states={**state.opt_states, **fresh})

    def _scanned_iteration(
        self, state: TrainState, batches: list[Batch], iteration: jax.Array, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        carry: Carry = {}
        metrics: Metrics = {}
        for phase, group in itertools.groupby(self.schedule, key=lambda update: update.phase):
            updates = list(group)
            wheres = jnp.stack([jnp.array([0, u.repeat, u.slot], jnp.int32) for u in updates])
            wheres = wheres.at[:, 0].set(iteration)
            slots = [update.slot for update in updates]
            if len(updates) == 1:
                state, handed_on, scalars = self._update(phase, state, batches[slots[0]], carry, wheres[0], frozen)
            else:
                one_batch = len(set(slots)) == 1
                stacked = None if one_batch else jax.tree.map(lambda *b: jnp.stack(b), *[batches[s] for s in slots])
                state, handed_on, scalars = self._scanned_repeats(
                    phase, state, batches[slots[0]], stacked, carry, wheres, frozen
                )
            carry = {**carry, **handed_on}
            metrics.update(scalars)
            if phase.project:
                state = self._project(phase, state)
        return self._finish_iteration(state), metrics

    def _several_iterations(
        self, draw: Callable[..., list[Batch]], count: int, state: TrainState, arguments: Any, first: Any, frozen: Any
    ) -> tuple[TrainState, Metrics]:
        def body(state: TrainState, iteration: jax.Array) -> tuple[TrainState, Metrics]:
            request = jnp.stack([iteration * self.draws_per_iteration, iteration % self.stage.cycle])
            return self._scanned_iteration(state, draw(*arguments, request), iteration, frozen)

        return jax.lax.scan(body, state, first + jnp.arange(count, dtype=jnp.int32))

    def _scanned_repeats(
        self,
        phase: Phase,
        state: TrainState,
        batch: Batch,
        stacked: Batch | None,
        carry: Carry,
        wheres: jax.Array,
        frozen: Any,
    ) -> tuple[TrainState, Carry, Metrics]:
        """The repeats of a phase as a scan that keeps only the last repeat's carry and metrics."""
        shapes = jax.eval_shape(functools.partial(self._update, phase), state, batch, carry, wheres[0], frozen)[1:]
        blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def body(scanned: Any, xs: Any) -> Any:
            where, fresh = xs
            return self._update(phase, scanned[0], batch if fresh is None else fresh, carry, where, frozen), None

        (state, handed_on, scalars), _ = jax.lax.scan(body, (state, *blank), (wheres, stacked))
        return state, handed_on, scalars
