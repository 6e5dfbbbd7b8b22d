"""Where a run's numbers and pictures go: metrics.csv, TensorBoard, and PNG files.

A run that is resumed ends with the same metrics.csv, bit for bit, as one that was never stopped: rows beyond the
restored step are cut off. For that the loop must `flush` what it knows up to step N before it saves checkpoint N.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from faceattr_jax import grids
from faceattr_jax.training import distributed

log = logging.getLogger(__name__)


class Writer:
    """One destination; what it has no place for it ignores."""

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Numbers known after `step` iterations, by name ("generator/adversarial", "valid/score")."""

    def write_images(self, step: int, name: str, grid: np.ndarray) -> None:
        """A picture, uint8 (H, W, 3), of the state after `step` iterations."""

    def flush(self) -> None:
        """Returns when all that was written is safe from the death of this process."""

    def close(self) -> None:
        """Flushes; nothing can be written afterwards."""


def open_writers(workdir: str | Path, step: int = 0) -> Writer:
    """All destinations of a run that begins, or goes on, after `step` iterations; none outside the main process."""
    if not distributed.is_main_process():
        return MultiWriter(())
    workdir = Path(workdir)
    writers: list[Writer] = [CsvWriter(workdir / "metrics.csv", step), PngWriter(workdir / "grids")]
    try:
        writers.append(TensorBoardWriter(workdir / "tensorboard", step))
    except ImportError:
        log.warning("tensorboardX is not installed: no TensorBoard files; metrics.csv has the numbers.")
    return MultiWriter(writers)


class MultiWriter(Writer):
    """Several destinations as one."""

    def __init__(self, writers: Sequence[Writer]):
        self.writers = writers

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for writer in self.writers:
            writer.write_scalars(step, scalars)

    def write_images(self, step: int, name: str, grid: np.ndarray) -> None:
        for writer in self.writers:
            writer.write_images(step, name, grid)

    def flush(self) -> None:
        for writer in self.writers:
            writer.flush()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


class CsvWriter(Writer):
    """Rows "step,name,value", since not every step knows every number; floats are exact (`repr`).

    A file that exists keeps its rows up to `step`.
    """

    HEADER = "step,name,value\n"

    def __init__(self, path: Path, step: int = 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        part.write_text(self.HEADER + "".join(_rows_until(step, path)))
        part.replace(path)
        self._file = path.open("a")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._file.write(f"{step},{name},{float(value)!r}\n")

    def flush(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.flush()
        self._file.close()


def _rows_until(step: int, path: Path) -> list[str]:
    """The whole rows of a metrics file up to `step`; the last one may lack its end where a process was killed."""
    if not path.exists():
        return []
    rows = path.read_text().splitlines(keepends=True)[1:]
    return [row for row in rows if row.endswith("\n") and int(row.partition(",")[0]) <= step]


class TensorBoardWriter(Writer):
    """TensorBoard event files through tensorboardX, which needs no TensorFlow; without it, ImportError."""

    def __init__(self, folder: Path, step: int = 0):
        from tensorboardX import SummaryWriter  # takes a second, and most commands write nothing

        # TensorBoard drops what earlier files hold from `purge_step` on; a file's name has only the second in it.
        self._summaries = SummaryWriter(str(folder), purge_step=step + 1, filename_suffix=f".{step}")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._summaries.add_scalar(name, float(value), step)

    def write_images(self, step: int, name: str, grid: np.ndarray) -> None:
        self._summaries.add_image(name, grid, step, dataformats="HWC")

    def flush(self) -> None:
        self._summaries.flush()

    def close(self) -> None:
        self._summaries.close()


class PngWriter(Writer):
    """Pictures as files: NAME-STEP.png, "/" in a name as "-"."""

    def __init__(self, folder: Path):
        self.folder = folder

    def write_images(self, step: int, name: str, grid: np.ndarray) -> None:
        grids.write_png(self.folder / f"{name.replace('/', '-')}-{step:07d}.png", grid)
