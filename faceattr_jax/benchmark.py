"""`faceattr benchmark`: what an iteration of a config costs on this machine, phase by phase, and inference."""

import functools
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from faceattr_jax.data.pipeline import Pipeline
from faceattr_jax.data.source import open_source
from faceattr_jax.methods.base import Batch, Carry, EditRequest, Method, Stage, Variables, build
from faceattr_jax.nn.precision import compute_dtype, computing
from faceattr_jax.training import compilation_cache, distributed, resident, traffic
from faceattr_jax.training.loop import open_pipeline, start_state
from faceattr_jax.training.state import TrainState
from faceattr_jax.training.step import Executor, draws

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
    counts, which are `peak_share` of what the machine's own matrix product achieves in that time, the bytes that it
    touches, the temporary memory, what it moves between devices, and the seconds to trace and compile one update, cold
    and from the persistent cache; the processed images per second (every update counts its batch: the unit that peers
    use), and of images per second that the input delivers alone, from the host and, where pictures are resident, on
    the devices; `inference`, at batch 1 and larger; and the peak memory of the process and, where the backend tells,
    of the device.
    """
    mesh = distributed.mesh()
    method = build(config)
    stage = method.stages[-1]  # what comes before is preparation
    source = open_source(config.data.path, size=config.image_size, crop=config.crop)
    indices = source.table.indices("train")
    pipeline = open_pipeline(config, method, stage, source, indices)

    def executor() -> Executor:
        return Executor(method, stage, seed=config.seed, mesh=mesh, flip=config.flip)

    state = start_state(method, config.seed, mesh)
    requests = list(draws(stage, 0))
    runner = executor()
    batches = [distributed.shard_batch(pipeline.batch(*r), mesh) for r in requests[: runner.draws_per_iteration]]
    peak = matrix_product_peak(config.get("dtype", "float32"))
    inference = _inference(method, config, state, rounds)
    with compilation_cache.fresh():
        cold, programs = _compiled(executor(), state, batches)
        warm, _ = _compiled(runner, state, batches)
        phases, iterations = _timed(runner, state, batches, rounds)
    seconds = median(iterations[1:])
    memory = jax.local_devices()[0].memory_stats() or {}
    updates = len(runner.schedule)
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
        "images_per_second": updates * config.batch_size / seconds,
        "peak_flops_per_second": peak,
        "inference": inference,
        **_costs(stage, programs, phases, peak, mesh.size),
        **_input(config, method, stage, pipeline, indices, mesh, requests, runner.draws_per_iteration),
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_device_bytes": memory.get("peak_bytes_in_use"),
    }
    total = sum(found["phase_flops"].values())
    found["peak_share"] = total / seconds / (peak * mesh.size)
    return found


def _compiled(executor: Executor, state: TrainState, batches: list[Batch]) -> tuple[dict[str, float], dict[str, Any]]:
    """Of each phase the seconds to trace and compile an update, and the compiled program."""
    seconds, programs = {}, {}
    carry: Carry = {}
    for phase in executor.stage.phases:
        slot = next(u.slot for u in executor.schedule if u.phase is phase)
        began = time.perf_counter()
        lowered = executor.lower(phase.name, state, batches[slot], carry)
        program = programs[phase.name] = lowered.compile()
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
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of the phases and of whole iterations; the first of each compiles. `state` is consumed."""
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
    return phases, iterations


def _costs(
    stage: Stage, programs: dict[str, Any], phases: dict[str, list[float]], peak: float, devices: int
) -> dict[str, Any]:
    """What XLA says of a phase's program on one device, times the phase's repeats and the devices."""
    flops, touched, memory, moved, share = {}, {}, {}, {}, {}
    for phase in stage.phases:
        program = programs[phase.name]
        cost, own = program.cost_analysis() or {}, program.memory_analysis()
        flops[phase.name] = cost.get("flops", 0.0) * phase.repeats * devices
        touched[phase.name] = cost.get("bytes accessed", 0.0) * phase.repeats * devices
        memory[phase.name] = getattr(own, "temp_size_in_bytes", None)
        moved[phase.name] = traffic.summary(traffic.collectives(program.as_text()))
        share[phase.name] = flops[phase.name] / median(phases[phase.name][1:]) / (peak * devices)
    return {
        "phase_flops": flops,
        "phase_bytes": touched,
        "phase_peak_share": share,
        "phase_temporary_bytes": memory,
        "phase_moved": moved,
    }


def matrix_product_peak(dtype: str = "float32", *, rounds: int = 5) -> float:
    """Operations per second of one device in the best of some products of two large square matrices."""
    side = MATRIX.get(jax.default_backend(), 8192)
    with computing(dtype):
        matrix = jnp.ones((side, side), compute_dtype())
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(matrix))
    return 2.0 * side**3 / min(_seconds(lambda: product(matrix)) for _ in range(rounds))


def _seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def _inference(method: Method, config: ConfigDict, state: TrainState, rounds: int) -> dict[str, Any]:
    """Seconds of a batch by its size, on one device; what is done is the first of INFERENCE that the method can."""
    verb = next((verb for verb in INFERENCE if verb in method.capabilities), None)
    if verb is None:
        return {}
    apply = INFERENCE[verb](method)
    variables = jax.tree.map(jnp.asarray, jax.device_get(state.inference_variables))
    size, n = config.image_size, len(method.attributes)

    @jax.jit
    def run(variables: Variables, images: jax.Array, labels: jax.Array) -> Any:
        with computing(config.get("dtype", "float32")):
            return apply(variables, images, labels)

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


def _input(
    config: ConfigDict,
    method: Method,
    stage: Stage,
    pipeline: Pipeline,
    indices: np.ndarray,
    mesh: Mesh,
    requests: list[tuple[int, int]],
    per_iteration: int,
) -> dict[str, Any]:
    """Images per second without a step: made on the host, and, where pictures are resident, on the devices."""
    made = requests[:INPUT_BATCHES]
    began = time.perf_counter()
    for request in made:
        pipeline.batch(*request)
    found = {"input_images_per_second": len(made) * config.batch_size / (time.perf_counter() - began)}
    where = resident.choose(config, len(indices), mesh)
    found["data"] = where.reason
    if where.resident:
        held = resident.Resident(pipeline.source, method.attributes, indices, config, mesh, people=pipeline.people)
        drawn = held.batches(pipeline.sampler, requests, per_iteration, identity=stage.identity)
        jax.block_until_ready(next(drawn))  # compiles
        began = time.perf_counter()
        count = sum(len(jax.block_until_ready(batches)) for batches, _ in zip(drawn, made, strict=False))
        seconds = time.perf_counter() - began
        found["resident_images_per_second"] = count * config.batch_size / seconds
        found["resident_seconds_per_iteration"] = seconds / max(1, count // per_iteration)
    return found


def table(found: dict[str, Any]) -> str:
    """The numbers of `benchmark` for a person."""
    head = f"  {'phase':24}{'seconds':>10}{'GFLOP':>10}{'of peak':>9}{'temp MiB':>10}{'cold s':>8}{'warm s':>8}"
    phases = [
        f"  {name:24}{seconds:10.4f}{found['phase_flops'][name] / 1e9:10.2f}{found['phase_peak_share'][name]:9.1%}"
        f"{(found['phase_temporary_bytes'][name] or 0) / 2**20:10.1f}{found['compile_seconds'][name]:8.2f}"
        f"{found['warm_compile_seconds'][name]:8.2f}"
        for name, seconds in found["phase_seconds"].items()
    ]
    moved = [
        f"  {name}: {kind}, {count['operations']} of {count['bytes'] / 2**20:.2f} MiB in all"
        for name, kinds in found["phase_moved"].items()
        for kind, count in kinds.items()
    ]
    inference, device = found["inference"], found["peak_device_bytes"]
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
    if inference:
        lines += [
            f"{inference['verb'] + ', latency at batch 1':34}{inference['latency_seconds']:10.4f} s",
            f"{inference['verb'] + ', batch ' + str(inference['best_batch']):34}"
            f"{inference['images_per_second']:10.1f} images/s",
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
