"""The metrics file of a stopped and resumed run equals an unbroken one; every destination gets what was written."""

import csv
import logging
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from faceattr_jax.training import writers


def run(workdir: Path, first: int, last: int) -> Path:
    """Iterations first + 1 to last of a run whose numbers depend on the step alone."""
    writer = writers.open_writers(workdir, first)
    for step in range(first + 1, last + 1):
        writer.write_scalars(step, {"generator/loss": np.float32(1 / (step + 2)), "critic/gap": -step / 3})
        if step % 4 == 0:
            writer.write_scalars(step, {"valid/score": step**0.5})
            writer.write_images(step, "edits/all", np.full((4, 6, 3), step, np.uint8))
    writer.close()
    return workdir / "metrics.csv"


def events(workdir: Path) -> Iterator[Any]:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[12 + length + 4 :]


@pytest.mark.parametrize("died_at", [5, 8, 9, 11])
def test_a_resumed_metrics_file_equals_an_unbroken_one(tmp_path: Path, died_at: int) -> None:
    unbroken = run(tmp_path / "unbroken", 0, 12)
    resumed = run(tmp_path / "resumed", 0, died_at)
    with resumed.open("a") as file:
        file.write("12,critic/g")  # killed while it wrote a row
    run(tmp_path / "resumed", 4, 12)
    assert resumed.read_bytes() == unbroken.read_bytes()


def test_killed_before_the_first_checkpoint_it_starts_anew(tmp_path: Path) -> None:
    resumed = run(tmp_path / "resumed", 0, 3)
    run(tmp_path / "resumed", 0, 12)
    assert resumed.read_bytes() == run(tmp_path / "unbroken", 0, 12).read_bytes()


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    values = {"a": np.float32(0.1), "b": 1e-45, "c": float("nan"), "d": np.float64(2) ** 0.5, "e": jax.numpy.pi}
    writer = writers.CsvWriter(tmp_path / "metrics.csv")
    writer.write_scalars(7, values)
    writer.close()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(values)
    assert {row["step"] for row in rows} == {"7"}
    np.testing.assert_array_equal([float(row["value"]) for row in rows], [float(v) for v in values.values()])


def test_flushed_rows_are_in_the_file_while_it_is_open(tmp_path: Path) -> None:
    writer = writers.CsvWriter(tmp_path / "metrics.csv")
    writer.write_scalars(1, {"loss": 0.5})
    writer.flush()
    assert (tmp_path / "metrics.csv").read_text() == "step,name,value\n1,loss,0.5\n"
    writer.close()


def test_pictures_are_files_named_by_step(tmp_path: Path) -> None:
    run(tmp_path, 0, 9)
    assert sorted(path.name for path in (tmp_path / "grids").iterdir()) == [
        "edits-all-0000004.png",
        "edits-all-0000008.png",
    ]
    with Image.open(tmp_path / "grids" / "edits-all-0000008.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.full((4, 6, 3), 8))


def test_tensorboard_gets_numbers_and_pictures_and_drops_what_was_lost(tmp_path: Path) -> None:
    run(tmp_path, 0, 6)
    before = len(list(events(tmp_path)))
    run(tmp_path, 4, 8)
    found = list(events(tmp_path))
    scalars = {(e.step, v.tag): v.simple_value for e in found for v in e.summary.value if v.HasField("simple_value")}
    assert scalars[8, "valid/score"] == np.float32(8**0.5)
    assert {step for step, tag in scalars if tag == "generator/loss"} == set(range(1, 9))
    pictures = [(e.step, v.tag, v.image.height, v.image.width) for e in found for v in e.summary.value if v.image.width]
    assert pictures == [(4, "edits/all", 4, 6), (8, "edits/all", 4, 6)]
    restarts = [e.step for e in found[before:] if e.session_log.status == e.session_log.START]
    assert restarts == [5]


def test_without_tensorboardx_the_rest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with caplog.at_level(logging.WARNING):
        assert len(run(tmp_path, 0, 1).read_text().splitlines()) == 3
    assert "tensorboardX is not installed" in caplog.text
    assert not (tmp_path / "tensorboard").exists()


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    run(tmp_path, 0, 4)
    assert list(tmp_path.iterdir()) == []
