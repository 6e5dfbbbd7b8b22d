"""`faceattr benchmark`: what one iteration of a config costs on this machine, phase by phase."""

import resource
import time
from statistics import median
from typing import Any

import jax
from ml_collections import ConfigDict

from faceattr_jax.data.source import open_source
from faceattr_jax.methods.base import Carry, build
from faceattr_jax.training import distributed
from faceattr_jax.training.loop import open_pipeline, start_state
from faceattr_jax.training.step import Executor, draws

INPUT_BATCHES = 20


def benchmark(config: ConfigDict, *, rounds: int = 7) -> dict[str, Any]:
    """Time the last stage of the config on its own data; medians over `rounds` iterations after one to warm up.

    Returns the seconds of an iteration and of each phase (all its repeats), the processed images per second (every
    update counts its batch: the unit that peers use), seconds to trace and compile each update (near 0 from a warm
    compilation cache), the images per second that the input delivers alone, and the peak memory of the process and,
    where the backend tells, of the device.
    """
    mesh = distributed.mesh()
    method = build(config)
    stage = method.stages[-1]  # what comes before is preparation
    source = open_source(config.data.path, size=config.image_size, crop=config.crop)
    indices = source.table.indices("train")
    pipeline = open_pipeline(config, method, stage, source, indices)
    executor = Executor(method, stage, seed=config.seed, mesh=mesh, flip=config.flip)
    state = start_state(method, config.seed, mesh)
    requests = list(draws(stage, 0))
    batches = [distributed.shard_batch(pipeline.batch(*r), mesh) for r in requests[: executor.draws_per_iteration]]
    updates = len(executor.schedule)

    compiling = {}
    carry: Carry = {}
    for phase in stage.phases:
        slot = next(u.slot for u in executor.schedule if u.phase is phase)
        began = time.perf_counter()
        executor.lower(phase.name, state, batches[slot], carry).compile()
        compiling[phase.name] = time.perf_counter() - began
        state, carry, _ = executor.run_phase(phase, state, batches, carry, 0)
    phases: dict[str, list[float]] = {phase.name: [] for phase in stage.phases}
    iterations = []
    for number in range(rounds + 1):
        carry = {}
        for phase in stage.phases:
            began = time.perf_counter()
            state, carry, _ = jax.block_until_ready(executor.run_phase(phase, state, batches, carry, number))
            phases[phase.name].append(time.perf_counter() - began)
        began = time.perf_counter()
        state, _ = jax.block_until_ready(executor.iterate(state, batches, number))
        iterations.append(time.perf_counter() - began)
    seconds = median(iterations[1:])
    began = time.perf_counter()
    for request in requests[:INPUT_BATCHES]:
        pipeline.batch(*request)
    reading = time.perf_counter() - began
    memory = jax.local_devices()[0].memory_stats() or {}
    return {
        "config": config.method,
        "image_size": config.image_size,
        "batch_size": config.batch_size,
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in mesh.devices.flat],
        "rounds": rounds,
        "iteration_seconds": seconds,
        "phase_seconds": {name: median(values[1:]) for name, values in phases.items()},
        "compile_seconds": compiling,
        "images_per_second": updates * config.batch_size / seconds,
        "input_images_per_second": min(INPUT_BATCHES, len(requests)) * config.batch_size / reading,
        "peak_host_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "peak_device_bytes": memory.get("peak_bytes_in_use"),
    }


def table(found: dict[str, Any]) -> str:
    """The numbers of `benchmark` for a person."""
    phases = [f"  {name:32}{seconds:10.4f} s" for name, seconds in found["phase_seconds"].items()]
    compiling = [f"  {name:32}{seconds:10.2f} s" for name, seconds in found["compile_seconds"].items()]
    device = found["peak_device_bytes"]
    return "\n".join(
        [
            f"{found['config']} at {found['image_size']} px, batch {found['batch_size']}, "
            f"{len(found['devices'])} x {found['devices'][0]} ({found['backend']}), median of {found['rounds']}",
            f"{'iteration':34}{found['iteration_seconds']:10.4f} s",
            *phases,
            f"{'processed images':34}{found['images_per_second']:10.1f} /s",
            f"{'input alone':34}{found['input_images_per_second']:10.1f} images/s",
            "trace and compile",
            *compiling,
            f"{'peak memory, host':34}{found['peak_host_bytes'] / 2**30:10.2f} GiB",
            f"{'peak memory, device':34}" + (f"{device / 2**30:10.2f} GiB" if device else "  not told by the backend"),
        ]
    )
