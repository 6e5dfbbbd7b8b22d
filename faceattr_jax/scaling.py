"""`faceattr benchmark --scaling`: how an iteration's cost grows with the batch, the width, the size and the devices."""

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jax
from ml_collections import ConfigDict

from faceattr_jax import benchmark
from faceattr_jax import config as configs
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import page
from faceattr_jax.methods.base import build
from faceattr_jax.training import distributed
from faceattr_jax.training.loop import start_state

AXES = {
    "batch": "batch_size",
    "width": "model.width",
    "size": "image_size",
    "devices": "devices",  # each with as many images as where all take part
}
"""What an axis changes."""


def values(config: ConfigDict, axis: str) -> tuple[int, ...]:
    """What an axis is measured at where no values are given: up to twice the config's batch, its width and its size.

    Raises UserError for an unknown axis, and for one that the config does not have.
    """
    everyone = jax.device_count()
    match axis:
        case "batch":
            each = max(1, config.batch_size // everyone)
            return tuple(sorted({max(1, each * times // 4) * everyone for times in (1, 2, 4, 8)}))
        case "width":
            if "width" not in config.model:
                raise UserError(f"--scaling=width: a {config.method} config has no model.width.")
            return tuple(sorted({max(1, config.model.width // part) for part in (4, 2, 1)}))
        case "size":
            return config.image_size // 2, config.image_size
        case "devices":
            return (*itertools.takewhile(lambda count: count < everyone, (2**i for i in range(20))), everyone)
    raise UserError(f"--scaling={axis}: it can be {', '.join(AXES)}, or AXIS=VALUE,VALUE")


def points(config: ConfigDict, axes: Sequence[str]) -> dict[str, Sequence[int]]:
    """Axis -> values, of "AXIS" or "AXIS=VALUE,VALUE" each; of none, all axes that the config has."""
    found: dict[str, Sequence[int]] = {}
    for text in axes or [axis for axis in AXES if axis != "width" or "width" in config.model]:
        axis, _, numbers = text.partition("=")
        usual = values(config, axis)
        try:
            found[axis] = tuple(int(number) for number in numbers.split(",")) if numbers else usual
        except ValueError as error:
            raise UserError(f"--scaling={text}: write {axis}=VALUE,VALUE, in whole numbers.") from error
    return found


def scaling(config: ConfigDict, axes: Mapping[str, Sequence[int]], *, rounds: int = 7) -> dict[str, Any]:
    """Time the config's last stage with one thing changed at a time; axes: which (see AXES), and its values.

    Returns `rows`, each with its `axis` and `value`, what the iteration then has (`batch_size`, `devices`) and costs:
    `seconds`, the median of `rounds`; `images_per_second`, of processed images; `flops` that XLA counts, of all updates
    on all devices, and `flops_per_image`; the `temporary_bytes` of the phase that takes most; and `moved_bytes`, what a
    device sends of all phases' updates. What the networks or the data do not take is in `left_out`, a sentence each;
    raises UserError where that is everything.
    """
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for axis, chosen in axes.items():
        for value in chosen:
            changed, devices = _changed(config, axis, value)
            try:
                jax.eval_shape(build(changed).init, jax.random.key(0))
                own = benchmark.setting(changed, distributed.mesh(jax.devices()[:devices]))
            except (TypeError, ValueError, UserError) as error:
                left_out.append(f"{axis} {value} is left out: {str(error).splitlines()[0]}")
                continue
            rows.append({"axis": axis, "value": value, **_measure(own, rounds)})
    if not rows:
        raise UserError(f"--scaling: nothing can be measured; {left_out[0]}")
    return {
        "config": config.method,
        "dtype": config.get("dtype", "float32"),
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "rounds": rounds,
        "rows": rows,
        "left_out": left_out,
    }


def _changed(config: ConfigDict, axis: str, value: int) -> tuple[ConfigDict, int]:
    """The config with the value, and how many devices it is for."""
    everyone = jax.device_count()
    if axis == "devices":
        if not 1 <= value <= everyone:
            raise UserError(f"--scaling=devices={value}: there are {everyone}.")
        devices, key, value = value, "batch_size", max(1, config.batch_size // everyone) * value
    else:
        devices, key = everyone, AXES[axis]
    changed = configs.from_json(configs.to_json(config))
    configs.override(changed, key, str(value))
    return changed, devices


def _measure(own: benchmark.Setting, rounds: int) -> dict[str, Any]:
    executor, devices = own.executor(), own.mesh.size
    state = start_state(own.method, own.config.seed, own.mesh)
    _, programs = benchmark.compiled(executor, state, own.batches)
    cost = benchmark.costs(own.stage, programs, devices)
    times = []
    for number in range(rounds + 1):  # the first compiles
        began = time.perf_counter()
        state, _ = jax.block_until_ready(executor.iterate(state, own.batches, number))
        times.append(time.perf_counter() - began)
    seconds, flops = median(times[1:]), sum(cost["phase_flops"].values())
    images = len(executor.schedule) * own.config.batch_size
    return {
        "batch_size": own.config.batch_size,
        "devices": devices,
        "seconds": seconds,
        "images_per_second": images / seconds,
        "flops": flops,
        "flops_per_image": flops / images,
        "temporary_bytes": max(size or 0 for size in cost["phase_temporary_bytes"].values()),
        "moved_bytes": sum(
            phase.repeats * kind["bytes"]
            for phase in own.stage.phases
            for kind in cost["phase_moved"][phase.name].values()
        ),
    }


def table(found: dict[str, Any]) -> str:
    """The numbers of `scaling` for a person."""
    lines = [
        f"{found['config']}, {found['dtype']}, {found['device']} ({found['backend']}), median of {found['rounds']}; "
        "images are processed ones, GFLOP those of an iteration's updates on all devices",
        f"{'':>16}{'batch':>7}{'devices':>9}{'seconds':>10}{'images/s':>10}{'GFLOP':>10}{'per image':>11}"
        f"{'temp MiB':>10}{'moved MiB':>11}",
    ]
    lines += [
        f"{row['axis'] + ' ' + str(row['value']):>16}{row['batch_size']:7}{row['devices']:9}{row['seconds']:10.4f}"
        f"{row['images_per_second']:10.1f}{row['flops'] / 1e9:10.3f}{row['flops_per_image'] / 1e9:11.4f}"
        f"{row['temporary_bytes'] / 2**20:10.1f}{row['moved_bytes'] / 2**20:11.2f}"
        for row in found["rows"]
    ]
    return "\n".join([*lines, *found["left_out"]])


def plot(found: dict[str, Any], stem: Path) -> list[Path]:
    """Charts beside `stem`: of each axis the speed and the work. Without matplotlib there are none, and a warning."""
    written = []
    for axis in dict.fromkeys(row["axis"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["axis"] == axis]
        for what, unit, scale in (("images_per_second", "images/s", 1), ("flops", "GFLOP an iteration", 1e-9)):
            points = [row["value"] for row in rows], [row[what] * scale for row in rows]
            chart = page.curves(f"{found['config']}: {unit}", {found["device"]: points}, AXES[axis], unit)
            written += page.save(chart, stem.with_name(f"{stem.name}-{axis}-{what}.png"))
    return written
