"""`faceattr benchmark`: what an iteration of a config costs on this machine, phase by phase, and inference."""

import dataclasses
import functools
import importlib
import importlib.util
import itertools
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from faceattr_jax.data.pipeline import Pipeline
from faceattr_jax.data.source import open_source
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import Batch, Carry, EditRequest, Method, Stage, Variables, build
from faceattr_jax.nn.precision import compute_dtype, computing
from faceattr_jax.training import compilation_cache, distributed, resident, traffic
from faceattr_jax.training.loop import MOST_PER_CALL, open_pipeline, start_state
from faceattr_jax.training.state import TrainState
from faceattr_jax.training.step import Executor, draws, draws_per_iteration

INPUT_BATCHES = 20

MATRIX = {"cpu": 1024}
"""Side of the matrices whose product is the machine's peak; 8192 on other backends."""

Apply = Callable[[Variables, jax.Array, jax.Array], Any]

INFERENCE: dict[str, Callable[[Any], Apply]] = {
    "edit": lambda method: lambda v, x, y: method.edit(v, x, EditRequest(target=1.0 - y, source=y)),
    "swap": lambda method: lambda v, x, y: method.swap(v, x, x[::-1], jnp.arange(y.shape[-1]) == 0),
    "restore": lambda method: lambda v, x, y: method.restore(v, x),
    "embed": lambda method: lambda v, x, y: method.embed(v, x),
    "classify": lambda method: lambda v, x, y: method.classify(v, x),
}
"""What a method is timed at: the first of these that it can. Images (B, S, S, 3), labels 0/1 (B, n)."""


def benchmark(config: ConfigDict, *, rounds: int = 7) -> dict[str, Any]:
    """Time the last stage of the config on its own data; medians over `rounds` iterations after one to warm up.

    Returns, of an iteration and of each phase (all its repeats), the seconds, and of a phase the operations that XLA
    counts (`operations`), which are `peak_share` of what the machine's own matrix product achieves in that time, the
    bytes that it touches, the temporary memory, what it moves between devices, and the seconds to trace and compile
    one update, cold and from the persistent cache; the processed images per second (every update counts its batch:
    the unit that peers use), and of images per second that the input delivers alone, from the host and, where
    pictures are resident, on the devices, where an iteration is timed in calls of several, too; `inference`, at batch
    1 and larger; and the peak memory of the process and, where the backend tells, of the device.
    """
    own = setting(config, distributed.mesh())
    mesh, stage, runner, batches = own.mesh, own.stage, own.executor(), own.batches
    state = start_state(own.method, config.seed, mesh)
    peak = matrix_product_peak(config.get("dtype", "float32"))
    able = _inference(own.method, config, state, rounds)
    with compilation_cache.fresh():
        cold, programs = compiled(own.executor(), state, batches)
        warm, _ = compiled(runner, state, batches)
        state, phases, iterations = _timed(runner, state, batches, rounds)
    seconds = median(iterations[1:])
    memory = jax.local_devices()[0].memory_stats() or {}
    found: dict[str, Any] = {
        "config": config.method,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "dtype": config.get("dtype", "float32"),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in mesh.devices.flat],
        "rounds": rounds,
        "iteration_seconds": seconds,
        "phase_seconds": {name: median(values[1:]) for name, values in phases.items()},
        "compile_seconds": cold,
        "warm_compile_seconds": warm,
        "images_per_second": len(runner.schedule) * config.batch_size / seconds,
        "peak_flops_per_second": peak,
        "inference": able,
        **costs(stage, programs, mesh.size),
        **_input(own, runner, state),
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_device_bytes": memory.get("peak_bytes_in_use"),
    }
    found["phase_peak_share"] = {
        name: flops / found["phase_seconds"][name] / (peak * mesh.size) for name, flops in found["phase_flops"].items()
    }
    found["peak_share"] = sum(found["phase_flops"].values()) / seconds / (peak * mesh.size)
    return found


@dataclasses.dataclass(frozen=True)
class Setting:
    """The last stage of a config, and batches of its data on the devices of `mesh`; indices: of the train split."""

    config: ConfigDict
    mesh: Mesh
    method: Method
    stage: Stage
    pipeline: Pipeline
    indices: np.ndarray
    batches: list[Batch]

    def executor(self) -> Executor:
        return Executor(self.method, self.stage, seed=self.config.seed, mesh=self.mesh, flip=self.config.flip)


def setting(config: ConfigDict, mesh: Mesh) -> Setting:
    distributed.check_batch_size(config.batch_size, mesh)
    method = build(config)
    stage = method.stages[-1]  # what comes before is preparation
    source = open_source(config.data.path, size=config.image_size, crop=config.crop)
    indices = source.table.indices("train")
    pipeline = open_pipeline(config, method, stage, source, indices)
    first = itertools.islice(draws(stage, 0), draws_per_iteration(stage))
    batches = [distributed.shard_batch(pipeline.batch(*request), mesh) for request in first]
    return Setting(config, mesh, method, stage, pipeline, indices, batches)


class Program(NamedTuple):
    """One update of a phase, before and after compilation."""

    lowered: Any
    compiled: Any


def compiled(
    executor: Executor, state: TrainState, batches: list[Batch]
) -> tuple[dict[str, float], dict[str, Program]]:
    """Of each phase the seconds to trace and compile an update, and the program."""
    seconds, programs = {}, {}
    carry: Carry = {}
    for phase in executor.stage.phases:
        slot = next(u.slot for u in executor.schedule if u.phase is phase)
        began = time.perf_counter()
        lowered = executor.lower(phase.name, state, batches[slot], carry)
        program = lowered.compile()
        programs[phase.name] = Program(lowered, program)
        seconds[phase.name] = time.perf_counter() - began
        carry = {
            **carry,
            **jax.tree.map(
                lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                lowered.out_info[1],
                program.output_shardings[1],
            ),
        }
    return seconds, programs


def _timed(
    executor: Executor, state: TrainState, batches: list[Batch], rounds: int
) -> tuple[TrainState, dict[str, list[float]], list[float]]:
    """The new state, and seconds of the phases and of whole iterations, of which the first compiles."""
    phases: dict[str, list[float]] = {phase.name: [] for phase in executor.stage.phases}
    iterations = []
    for number in range(rounds + 1):
        carry: Carry = {}
        for phase in executor.stage.phases:
            began = time.perf_counter()
            state, carry, _ = jax.block_until_ready(executor.run_phase(phase, state, batches, carry, number))
            phases[phase.name].append(time.perf_counter() - began)
        began = time.perf_counter()
        state, _ = jax.block_until_ready(executor.iterate(state, batches, number))
        iterations.append(time.perf_counter() - began)
    return state, phases, iterations


def operations(program: Program, devices: int) -> float:
    """Floating-point operations of one update on all devices together.

    XLA counts none of what it hands to a GPU's libraries, which are the convolutions: there it is asked of the program
    before compilation, which is of all devices and has the same operations but for what compilation leaves out.
    """
    if jax.default_backend() == "gpu":
        return (program.lowered.cost_analysis() or {}).get("flops", 0.0)
    return (program.compiled.cost_analysis() or {}).get("flops", 0.0) * devices


def costs(stage: Stage, programs: dict[str, Program], devices: int) -> dict[str, Any]:
    """What XLA says of a phase's program on one device, times the phase's repeats and the devices."""
    flops, touched, memory, moved = {}, {}, {}, {}
    for phase in stage.phases:
        program = programs[phase.name].compiled
        cost, own = program.cost_analysis() or {}, program.memory_analysis()
        flops[phase.name] = operations(programs[phase.name], devices) * phase.repeats
        touched[phase.name] = cost.get("bytes accessed", 0.0) * phase.repeats * devices
        memory[phase.name] = getattr(own, "temp_size_in_bytes", None)
        moved[phase.name] = traffic.summary(traffic.collectives(program.as_text()))
    return {
        "phase_flops": flops,
        "phase_bytes": touched,
        "phase_temporary_bytes": memory,
        "phase_moved": moved,
    }


def matrix_product_peak(dtype: str = "float32", *, rounds: int = 5) -> float:
    """Operations per second of one device in the best of some products of two large square matrices."""
    side = MATRIX.get(jax.default_backend(), 8192)
    with computing(dtype):
        # Random: a GPU may multiply constants faster.
        matrix = jax.random.normal(jax.random.key(0), (side, side)).astype(compute_dtype())
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(matrix))
    return 2.0 * side**3 / min(_seconds(lambda: product(matrix)) for _ in range(rounds))


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def inference(method: Any, config: ConfigDict) -> tuple[str, Apply] | None:
    """The first verb of INFERENCE that the method can, and what does it, jitted."""
    verb = next((verb for verb in INFERENCE if verb in method.capabilities), None)
    if verb is None:
        return None
    apply = INFERENCE[verb](method)

    @jax.jit
    def run(variables: Variables, images: jax.Array, labels: jax.Array) -> Any:
        with computing(config.get("dtype", "float32")):
            return apply(variables, images, labels)

    return verb, run


def torch_oracle(config: ConfigDict) -> Any:
    """The module of the repository's tests that times PyTorch implementations beside ours.

    They are oracles and no part of the package, so it is found in a clone alone. Raises UserError elsewhere, without
    PyTorch, and for a config that they do not cover.
    """
    module = "tests.oracles.benchmark_torch"
    for root in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if (root / f"{module.replace('.', '/')}.py").is_file():
            if importlib.util.find_spec("torch") is None:
                raise UserError("--against=torch needs PyTorch: pip install torch==2.13.0")
            sys.path.insert(0, str(root))
            oracle = importlib.import_module(module)
            oracle.check(config)
            return oracle
    raise UserError(
        "--against=torch compares with the PyTorch implementations of the repository's tests, which the installed "
        "package does not hold: call it in a clone of the repository."
    )


def _inference(method: Method, config: ConfigDict, state: TrainState, rounds: int) -> dict[str, Any]:
    """Seconds of a batch by its size, on one device; what is done is the first of INFERENCE that the method can."""
    found = inference(method, config)
    if found is None:
        return {}
    verb, run = found
    variables = jax.tree.map(jnp.asarray, jax.device_get(state.inference_variables))
    size, n = config.image_size, len(method.attributes)
    rng = np.random.default_rng(0)
    batch = {}
    for count in sorted({1, config.batch_size, *([4 * config.batch_size] if jax.default_backend() != "cpu" else [])}):
        images = jnp.asarray(rng.uniform(-1, 1, (count, size, size, 3)), jnp.float32)
        labels = jnp.asarray(rng.integers(0, 2, (count, n)), jnp.float32)
        times = [_seconds(functools.partial(run, variables, images, labels)) for _ in range(rounds + 1)]
        batch[str(count)] = median(times[1:])
    best = max(batch, key=lambda count: int(count) / batch[count])
    return {
        "verb": verb,
        "batch_seconds": batch,
        "latency_seconds": batch["1"],
        "best_batch": int(best),
        "images_per_second": int(best) / batch[best],
    }


def _input(own: Setting, executor: Executor, state: TrainState) -> dict[str, Any]:
    """Images per second without a step: made on the host, and, where pictures are resident, on the devices.

    There, where iterations are scanned, also the seconds of one of several in one call, with its drawing.
    """
    config, stage, pipeline, per_iteration = own.config, own.stage, own.pipeline, executor.draws_per_iteration
    requests = list(draws(stage, 0))
    made = requests[:INPUT_BATCHES]
    began = time.perf_counter()
    for request in made:
        pipeline.batch(*request)
    found = {"input_images_per_second": len(made) * config.batch_size / (time.perf_counter() - began)}
    where = resident.choose(config, len(own.indices), own.mesh)
    found["data"] = where.reason
    if where.resident:
        held = resident.Resident(
            pipeline.source, own.method.attributes, own.indices, config, own.mesh, people=pipeline.people
        )
        drawn = held.batches(pipeline.sampler, requests, per_iteration, identity=stage.identity)
        jax.block_until_ready(next(drawn))  # compiles
        began = time.perf_counter()
        count = sum(len(jax.block_until_ready(batches)) for batches, _ in zip(drawn, made, strict=False))
        seconds = time.perf_counter() - began
        found["resident_images_per_second"] = count * config.batch_size / seconds
        found["resident_seconds_per_iteration"] = seconds / max(1, count // per_iteration)
        if executor.scan:
            drawing = held.drawing(pipeline.sampler, per_iteration, identity=stage.identity)
            times = []
            for number in range(3):  # the first compiles
                began = time.perf_counter()
                state, _ = executor.iterate_several(state, drawing, number * MOST_PER_CALL, MOST_PER_CALL)
                jax.block_until_ready(state)
                times.append(time.perf_counter() - began)
            found["iterations_per_call"] = MOST_PER_CALL
            found["iteration_seconds_in_one_call"] = median(times[1:]) / MOST_PER_CALL
    return found


def table(found: dict[str, Any]) -> str:
    """The numbers of `benchmark` for a person."""
    columns = f"{'of peak':>9}{'temp MiB':>10}{'accessed MiB':>14}{'cold s':>8}{'warm s':>8}"
    head = f"  {'phase':24}{'seconds':>10}{'GFLOP':>10}{columns}"
    phases = [
        f"  {name:24}{seconds:10.4f}{found['phase_flops'][name] / 1e9:10.2f}{found['phase_peak_share'][name]:9.1%}"
        f"{(found['phase_temporary_bytes'][name] or 0) / 2**20:10.1f}{found['phase_bytes'][name] / 2**20:14.1f}"
        f"{found['compile_seconds'][name]:8.2f}{found['warm_compile_seconds'][name]:8.2f}"
        for name, seconds in found["phase_seconds"].items()
    ]
    moved = [
        f"  {name}: {kind}, {count['operations']} of {count['bytes'] / 2**20:.2f} MiB in all"
        for name, kinds in found["phase_moved"].items()
        for kind, count in kinds.items()
    ]
    can, device, peer = found["inference"], found["peak_device_bytes"], found.get("torch")
    lines = [
        f"{found['config']} at {found['image_size']} px, batch {found['batch_size']}, {found['dtype']}, "
        f"{len(found['devices'])} x {found['devices'][0]} ({found['backend']}), median of {found['rounds']}",
        f"{'iteration':34}{found['iteration_seconds']:10.4f} s, {found['peak_share']:.1%} of the peak",
        "trace and compile an update, run all of a phase's",
        head,
        *phases,
        f"{'processed images':34}{found['images_per_second']:10.1f} /s",
        f"{'matrix product, the peak':34}{found['peak_flops_per_second'] / 1e12:10.3f} TFLOP/s a device",
        f"{'input alone':34}{found['input_images_per_second']:10.1f} images/s",
    ]
    if "resident_images_per_second" in found:
        lines += [f"{'input from device memory':34}{found['resident_images_per_second']:10.1f} images/s"]
    if "iterations_per_call" in found:
        what = f"iteration, {found['iterations_per_call']} in one call"
        lines += [f"{what:34}{found['iteration_seconds_in_one_call']:10.4f} s, with its drawing"]
    if can:
        lines += [
            f"{can['verb'] + ', latency at batch 1':34}{can['latency_seconds']:10.4f} s",
            f"{can['verb'] + ', batch ' + str(can['best_batch']):34}{can['images_per_second']:10.1f} images/s",
        ]
    if peer:
        lines += [
            "seconds here and of PyTorch, one thread for each core, and the median of their ratios",
            *(
                f"  {name:32}{row['ours']:10.4f}{row['torch']:10.4f}{row['ratio']:8.2f}"
                for name, row in {"iteration": peer.get("iteration"), **peer["inference"]}.items()
                if row
            ),
        ]
    if moved:
        lines += ["moved between devices by an update", *moved]
    return "\n".join(
        [
            *lines,
            f"{'peak memory, host':34}{found['peak_host_bytes'] / 2**30:10.2f} GiB",
            f"{'peak memory, device':34}" + (f"{device / 2**30:10.2f} GiB" if device else "  not told by the backend"),
        ]
    )
