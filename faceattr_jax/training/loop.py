"""The training loop, the same for every method: restore, iterate, log, evaluate, save.

A run is a pure function of its config: killed at any moment and started again with the same command, it goes on from
its last checkpoint and ends with the same bits as one that was never killed. The loop never waits for the iteration
that it has just dispatched: it reads the metrics of the one before.
"""

import contextlib
import functools
import importlib
import itertools
import json
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from clu import parameter_overview, profiler
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from faceattr_jax import config as configs
from faceattr_jax import files
from faceattr_jax.data import sampling
from faceattr_jax.data.pipeline import Pipeline, cached
from faceattr_jax.data.source import Source, open_source
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import Frozen, Given, Method, Stage, build
from faceattr_jax.training import distributed, resident
from faceattr_jax.training.checkpoint import Checkpoints
from faceattr_jax.training.state import TrainState, init_state, with_given
from faceattr_jax.training.step import Drawing, Executor, Metrics, draws, draws_per_iteration, fold_in
from faceattr_jax.training.writers import Writer, open_writers

log = logging.getLogger(__name__)

MOST_PER_CALL = 10
"""Iterations in one call where the config leaves their number open: what SIGTERM may have to wait for."""

# Keys that say how a run is watched, not what it computes: the same workdir may go on with other values.
WATCHING = ("train.", "evaluation.", "data.cache", "data.resident")


def train(config: ConfigDict, workdir: Path, *, stopped: threading.Event | None = None) -> TrainState:
    """Train to the end of the config, resuming what `workdir` holds, and return the final state.

    Raises `UserError` when the workdir belongs to another config, the data do not fit, a loss is not finite, or a
    checkpoint cannot be written. SIGTERM saves and returns early; where that is before the end, it sets `stopped`.
    """
    mesh = distributed.mesh()
    distributed.check_batch_size(config.batch_size, mesh)
    method = build(config)
    source = open_source(config.data.path, size=config.image_size, crop=config.crop)
    module, function = config.evaluation.validator.split(".")
    validate = getattr(importlib.import_module(f"faceattr_jax.evaluation.{module}"), function)(config, source)
    indices = training_indices(config, source)
    pipelines = [open_pipeline(config, method, stage, source, indices) for stage in method.stages]
    where = resident.choose(config, len(indices), mesh)
    many = per_call(config, where)
    given = {} if (workdir / "config.json").exists() else method.given
    # Only now, so that a mistake in the config or the data leaves nothing behind.
    claim(workdir, config, method.frozen, given)
    checkpoints = Checkpoints(workdir, config, keep=config.train.keep)
    state = start_state(method, config.seed, mesh, checkpoints)
    if distributed.is_main_process():
        overview = parameter_overview.get_parameter_overview(state.variables["params"], include_stats=False)
        files.write(workdir / "parameters.txt", overview + "\n")
    step = checkpoints.latest_step or 0  # `state.step`, for which one would have to wait
    writer = open_writers(workdir, step)
    run = _Run(config, workdir, method, mesh, checkpoints, writer, validate, many)
    log.info(where.reason)
    if many > 1:
        log.info("Up to %d iterations are one call: train.per_call is %d.", many, config.train.per_call)
    feeds = open_feeds(config, method, pipelines, indices, mesh, on_device=where.resident)
    try:
        with _Terminated() as terminated:
            first = 0
            for number, (stage, feed) in enumerate(zip(method.stages, feeds, strict=True)):
                if step < first + stage.iterations:
                    state = run.stage(state, stage, first, max(step - first, 0), feed, terminated, reset=number > 0)
                if terminated.is_set():
                    break
                first += stage.iterations
            checkpoints.wait()
            if stopped and int(state.step) < run.total:
                stopped.set()
    finally:
        writer.close()
        checkpoints.close()
    return state


def per_call(config: ConfigDict, where: resident.Choice) -> int:
    """How many iterations one compiled call has where no boundary is in its way: `config.train.per_call`, or chosen.

    Raises UserError where it cannot be.
    """
    many = config.train.per_call
    if many < 0:
        raise UserError(f"train.per_call is {many}; it is a number of iterations, or 0 to choose one.")
    if many > 1 and not where.resident:
        raise UserError(
            f"train.per_call is {many}, but several iterations in one call draw from device memory. {where.reason}"
        )
    if many or not where.resident or jax.default_backend() == "cpu":
        return many or 1
    periods = _periods(config)
    dividing = [count for count in range(2, MOST_PER_CALL + 1) if math.gcd(*periods) % count == 0]
    # Where none divides both, what is left before a boundary goes singly: a second program, which is worth compiling.
    return max(dividing, default=min(MOST_PER_CALL, *periods))


def _periods(config: ConfigDict) -> list[int]:
    """After every so many iterations something happens that ends a call."""
    return [every for every in (config.train.checkpoint_every, config.train.evaluate_every) if every]


def training_indices(config: ConfigDict, source: Source) -> np.ndarray:
    """The pictures of the train split, without those that have an attribute of `config.data.exclude`."""
    indices = source.table.indices("train")
    unwanted = source.table.select(config.data.get("exclude", ()))[indices]
    return indices[~np.any(unwanted > 0, axis=1)]


def claim(workdir: Path, config: ConfigDict, frozen: Mapping[str, Frozen], given: Mapping[str, Given]) -> None:
    """Write the config into a new workdir, and which frozen networks it has into ``frozen.json``.

    What networks of its own it starts from goes into ``given.json``.

    Refuses a workdir that was begun with another config or other frozen weights.
    """
    path = workdir / "config.json"
    if path.exists():
        try:
            old = configs.from_json(path.read_text())
        except ValueError as error:
            raise UserError(f"{path}: this is not a config ({error}); give another --workdir.") from error
        changed = [key for key in configs.differences(old, config) if not key.startswith(WATCHING)]
        if changed:
            raise UserError(
                f"{workdir}: this run was begun with another config, which differs in {', '.join(changed)}; give the "
                "same command as before, or another --workdir."
            )
    elif workdir.is_dir() and any(workdir.iterdir()):
        raise UserError(f"{workdir}: the folder is not empty and holds no run; give a new or empty --workdir.")
    record, start = (
        {role: {"network": network.name, "sha256": network.sha256} for role, network in networks.items()}
        for networks in (frozen, given)
    )
    weights = workdir / "frozen.json"
    if weights.exists():
        before = json.loads(weights.read_text())
        for role in record.keys() | before.keys():
            if record.get(role) != before.get(role):
                raise UserError(
                    f"{workdir}: this run was begun with other weights of its {role} network ({before.get(role)}, now "
                    f"{record.get(role)}); give it the same ones again, or another --workdir."
                )
    if distributed.is_main_process():
        files.write(path, configs.to_json(config))
        if record:
            files.write(weights, json.dumps(record, indent=2, sort_keys=True))
        if start:
            files.write(workdir / "given.json", json.dumps(start, indent=2, sort_keys=True))


class _Run:
    """What the iterations of every stage share."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        method: Method,
        mesh: Mesh,
        checkpoints: Checkpoints,
        writer: Writer,
        validate: Any,
        per_call: int,
    ):
        self.config, self.workdir, self.method, self.mesh = config, workdir, method, mesh
        self.checkpoints, self.writer, self.validate, self.per_call = checkpoints, writer, validate, per_call
        self.total = sum(stage.iterations for stage in method.stages)

    def stage(
        self,
        state: TrainState,
        stage: Stage,
        first: int,
        start: int,
        feed: "Feed",
        terminated: threading.Event,
        *,
        reset: bool,
    ) -> TrainState:
        """The rest, from its iteration `start` on, of a stage that begins at step `first` of the run."""
        config, train = self.config, self.config.train
        scan = True if self.per_call > 1 else None
        executor = Executor(self.method, stage, seed=config.seed, mesh=self.mesh, flip=config.flip, scan=scan)
        drawing = feed.drawing if executor.scan else None
        self._timed = first + start, time.perf_counter()
        if start == 0 and reset:
            state = executor.begin(state)
        pending: tuple[int, Metrics] | None = None
        batches = feed.batches(start)
        bar = tqdm(
            total=self.total,
            initial=first + start,
            desc=stage.name,
            unit="it",
            disable=not distributed.is_main_process(),
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
        )
        try:
            drawn = [] if drawing else next(batches)
            iteration = start
            while iteration < stage.iterations:
                step = first + iteration
                self._profile(step + 1, state)
                count = self._in_one_call(step, stage.iterations - iteration) if drawing else 1
                if drawing:
                    state, metrics = executor.iterate_several(state, drawing, iteration, count)
                else:
                    state, metrics = executor.iterate(state, drawn, iteration)
                iteration, step = iteration + count, step + count
                if pending is not None:
                    self._log(*pending, bar)
                pending = step, metrics
                last = step == self.total
                # All processes ask about every step, one of which they have agreed on.
                asked = [self.checkpoints.preempted(each) for each in range(step - count + 1, step + 1)]
                stop = terminated.is_set() or any(asked)
                evaluate = last or (train.evaluate_every and step % train.evaluate_every == 0)
                save = last or stop or step % train.checkpoint_every == 0
                if evaluate or save:
                    self._log(*pending, bar)
                    pending = None
                    self._check_finite(state, step)
                if evaluate:
                    self._evaluate(state, step)
                if save:
                    self.writer.flush()
                    self.checkpoints.save(step, state)
                bar.update(count)
                if stop:
                    log.warning("Asked to stop: saved at step %d; the same command goes on from there.", step)
                    terminated.set()
                    break
                if not drawing:
                    drawn = next(batches, [])  # on their way while the iteration is computed
            if pending is not None:
                self._log(*pending, bar)
        finally:
            bar.close()
            batches.close()
        return state

    def _in_one_call(self, step: int, left: int) -> int:
        """How many iterations go on from `step` in one call: `per_call` where no boundary is between them, or one.

        So that no more than two programs are compiled.
        """
        many, periods = self.per_call, _periods(self.config)
        inside = range(step + 1, step + many)
        between = any(
            each + 1 in self.config.train.profile or any(each % every == 0 for every in periods) for each in inside
        )
        return 1 if between or many > left else many

    def _profile(self, step: int, state: TrainState) -> None:
        """Trace the iterations that `config.train.profile` (first, end) names into ``profile/``, for TensorBoard."""
        if step in self.config.train.profile:
            jax.block_until_ready(state)
            if step == self.config.train.profile[0]:
                profiler.start(str(self.workdir / "profile"))
            else:
                profiler.stop()

    def _log(self, step: int, metrics: Metrics, bar: tqdm) -> None:
        """Those of the iterations up to `step`, one of each or (count,), whose steps are to be logged."""
        count = max((np.size(value) for value in metrics.values()), default=1)
        steps = range(step - count + 1, step + 1)
        wanted = [each for each in steps if each % self.config.train.log_every == 0 or each == self.total]
        if not wanted:
            return
        found = {name: np.atleast_1d(value) for name, value in sorted(jax.device_get(metrics).items())}
        for each in wanted:
            scalars = {name: float(values[each - steps[0]]) for name, values in found.items()}
            bad = [name for name, value in scalars.items() if not np.isfinite(value)]
            if bad:
                self._stop_not_finite(each, ", ".join(bad))
            self.writer.write_scalars(each, scalars)
        now = time.perf_counter()
        rate = (step - self._timed[0]) * self.config.batch_size / (now - self._timed[1])
        self._timed = step, now
        bar.set_postfix_str(f"{rate:.0f} images/s", refresh=False)

    def _check_finite(self, state: TrainState, step: int) -> None:
        if not bool(_all_finite(state.variables)):
            self._stop_not_finite(step, "a parameter")

    def _stop_not_finite(self, step: int, what: str) -> None:
        self.checkpoints.wait()
        good = self.checkpoints.latest_step
        kept = f"the last good checkpoint is step {good} in {self.checkpoints.folder}" if good else "none was saved yet"
        raise UserError(f"Step {step}: {what} is not finite, so training has stopped; {kept}.")

    def _evaluate(self, state: TrainState, step: int) -> None:
        # On one device of each process, where the judge is, whatever the mesh.
        variables = jax.tree.map(jnp.asarray, jax.device_get(state.inference_variables))
        scalars, grids = self.validate(self.method, variables)
        self.writer.write_scalars(step, {f"valid/{name}": value for name, value in scalars.items()})
        for name, grid in grids.items():
            self.writer.write_images(step, name, grid)
        metric = self.config.evaluation.best
        if metric in scalars and self.checkpoints.save_best(step, state, scalars[metric], metric):
            log.info("Step %d is the best so far: %s %.4f", step, metric, scalars[metric])


class _Terminated:
    """Within it SIGTERM sets an event instead of ending the process; outside the main thread it leaves signals be.

    So it does with several processes: there JAX has a handler of its own, by which all agree on the step to stop after
    (`Checkpoints.preempted`), where one that stops alone would leave the others waiting for it.
    """

    def __enter__(self) -> threading.Event:
        self._event = threading.Event()
        self._main = threading.current_thread() is threading.main_thread() and jax.process_count() == 1
        if self._main:
            self._old = signal.signal(signal.SIGTERM, self._handle)
        return self._event

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._old)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._event.set()


def start_state(method: Method, seed: int, mesh: Mesh, checkpoints: Checkpoints | None = None) -> TrainState:
    """The state of the last checkpoint, or a fresh one where there is none, replicated over the mesh."""
    everywhere = distributed.replicated(mesh)
    # It runs once: on a CPU, optimising it fully takes four times as long, and changes no bit.
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    fresh = jax.jit(lambda: init_state(method, seed), out_shardings=everywhere, compiler_options=options)
    if checkpoints is None or checkpoints.latest_step is None:
        return with_given(fresh(), method.given)
    log.warning("Resuming from step %d in %s", checkpoints.latest_step, checkpoints.folder)
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), jax.eval_shape(fresh)
    )
    return checkpoints.restore(like)


def open_pipeline(config: ConfigDict, method: Method, stage: Stage, source: Source, indices: np.ndarray) -> Pipeline:
    """The batches of a stage, drawn from the pictures of `source` at `indices`; this process's rows of them."""
    key = fold_in(jax.random.key(config.seed), "sampler", stage.name)
    labels = source.table.select(method.attributes)[indices]
    people = source.table.people(indices) if stage.identity else None
    known = {} if people is None else {"identity": people[indices]}
    sampler = stage.sampler(key, indices, labels, config.batch_size, **known)
    homes = sampling.homes(indices, len(source.table), config.data.shards)
    sampler = sampling.dealt(sampler, config.data.shards, homes)
    return Pipeline(source, method.attributes, sampler, rows=distributed.local_rows, people=people)


@dataclass(frozen=True)
class Feed:
    """Where a stage's batches come from.

    batches: from an iteration on, those of each, sharded over the devices. drawing: where the pictures are there, how
    they are drawn inside the step.
    """

    batches: Callable[[int], Generator[list[Any], None, None]]
    drawing: Drawing | None = None


def open_feeds(
    config: ConfigDict, method: Method, pipelines: list[Pipeline], indices: np.ndarray, mesh: Mesh, *, on_device: bool
) -> list[Feed]:
    """The feed of each stage, which all have their pictures in device memory, or in the host's (`data.cache`)."""
    source = pipelines[0].source
    if on_device:
        people = next((pipeline.people for pipeline in pipelines if pipeline.people is not None), None)
        held = resident.Resident(source, method.attributes, indices, config, mesh, people=people)
        return [_resident_feed(held, pipeline, stage) for stage, pipeline in zip(method.stages, pipelines, strict=True)]
    if config.data.cache:
        source = cached(source, indices)
        for pipeline in pipelines:
            pipeline.source = source
    return [
        Feed(functools.partial(_host_batches, pipeline, stage, mesh))
        for stage, pipeline in zip(method.stages, pipelines, strict=True)
    ]


def _host_batches(pipeline: Pipeline, stage: Stage, mesh: Mesh, start: int) -> Generator[list[Any], None, None]:
    """Batches made on the host, those of an iteration ahead, and sent as uint8."""
    count = draws_per_iteration(stage)
    with contextlib.closing(pipeline.prefetch(draws(stage, start), depth=max(2, count))) as batches:
        while drawn := list(itertools.islice(batches, count)):
            yield [distributed.shard_batch(batch, mesh) for batch in drawn]


def _resident_feed(held: resident.Resident, pipeline: Pipeline, stage: Stage) -> Feed:
    count = draws_per_iteration(stage)
    return Feed(
        lambda start: held.batches(pipeline.sampler, draws(stage, start), count, identity=stage.identity),
        held.drawing(pipeline.sampler, count, identity=stage.identity),
    )


@jax.jit
def _all_finite(variables: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(variables)]))
