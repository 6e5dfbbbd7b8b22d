"""Checkpoints: Orbax saves that hold the whole train state and the config, of a run's last steps and its best one.

Saves are asynchronous and atomic (a step's folder appears when it is complete); a state written by N devices is
restored on any number.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax.errors import UserError
from faceattr_jax.training.state import TrainState

LAST, BEST = "checkpoints", "best"


class Checkpoints:
    """The checkpoints of a run: the last `keep` under ``checkpoints/``, the best under ``best/``."""

    def __init__(self, workdir: Path, config: ConfigDict, *, keep: int):
        self.config = config
        self._last = _manager(workdir / LAST, keep)
        self._best = _manager(workdir / BEST, 1)
        step = self._best.latest_step()
        self.best_score = _read_json(workdir / BEST / str(step), "record")["score"] if step is not None else None

    @property
    def latest_step(self) -> int | None:
        """The last complete step, None when there is no checkpoint."""
        return self._last.latest_step()

    @property
    def folder(self) -> Path:
        """Where the last steps are."""
        return Path(self._last.directory)

    def save(self, step: int, state: TrainState) -> None:
        """Start to save; the state may be donated as soon as this returns. Raises `UserError` on a full disk."""
        if step == self.latest_step:
            return
        with self._complaint(step):
            self._last.save(step, args=self._items(state, {"step": step}))

    def save_best(self, step: int, state: TrainState, score: float, metric: str) -> bool:
        """Save to ``best/`` if `score` beats every earlier one; whether it did."""
        if self.best_score is not None and not score > self.best_score:
            return False
        with self._complaint(step):
            self._best.save(step, args=self._items(state, {"step": step, "score": score, "metric": metric}), force=True)
        self.best_score = score
        return True

    def restore(self, like: TrainState) -> TrainState:
        """The state of the last complete step, with the shapes and shardings of `like`."""
        step = self.latest_step
        assert step is not None
        with _readable(self.folder / str(step)):
            restored = self._last.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))
        return restored["state"]

    def preempted(self, step: int) -> bool:
        """Whether the cluster asked all processes to stop; False where processes are not coordinated."""
        return self._last.reached_preemption(step)

    def wait(self) -> None:
        """Return when what was started is on disk. Raises `UserError` when it could not be written."""
        with self._complaint(None):
            self._last.wait_until_finished()
            self._best.wait_until_finished()

    def close(self) -> None:
        self._last.close()
        self._best.close()

    def _items(self, state: TrainState, record: dict[str, Any]) -> ocp.args.Composite:
        return ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            config=ocp.args.JsonSave(json.loads(configs.to_json(self.config))),
            record=ocp.args.JsonSave(record),
        )

    @contextlib.contextmanager
    def _complaint(self, step: int | None) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            what = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            raise UserError(
                f"{self.folder}: {what} could not be written ({_first_line(error)}); the last good one is step "
                f"{self.latest_step}. Free some space and run the same command again."
            ) from error


def find(path: str | Path) -> Path:
    """The step folder that `path` means: itself, or of a run the best step, else the last.

    Raises `UserError` where there is none.
    """
    path = Path(path)
    if (path / "config").is_dir() and (path / "state").is_dir():
        return path
    for folder in (path / BEST, path / LAST, path):
        steps = [p for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
        if steps:
            return max(steps, key=lambda p: int(p.name))
    raise UserError(f"{path}: there is no checkpoint here; give a run's workdir, or one step's folder in it.")


def read_config(step_folder: Path) -> ConfigDict:
    """The config that the checkpoint was trained with."""
    return configs.from_json(json.dumps(_read_json(step_folder, "config")))


def read_record(step_folder: Path) -> dict[str, Any]:
    """The checkpoint's step, and of a best one its score and the metric."""
    return _read_json(step_folder, "record")


def read_variables(step_folder: Path, like: TrainState) -> TrainState:
    """The checkpoint's variables and averaged parameters on one device; step and optimizers of `like` stay.

    Raises `UserError` for a damaged one, and for one that lacks variables of `like`.
    """
    wanted = {"variables": like.variables, "ema": like.ema}
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), wanted)
    with _readable(step_folder), ocp.PyTreeCheckpointer() as checkpointer:
        restored = checkpointer.restore(
            step_folder.absolute() / "state",
            args=ocp.args.PyTreeRestore(
                wanted,
                restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
                partial_restore=True,
            ),
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(restored):
        if not isinstance(leaf, jax.Array):  # a partial restoration leaves what is not there as it was asked for
            raise UserError(
                f"{step_folder}: this checkpoint has no {jax.tree_util.keystr(path, simple=True, separator='/')}; "
                "another version of faceattr_jax wrote it. Read it with that one, or train the model again."
            )
    return like.replace(**restored)


def _manager(folder: Path, keep: int) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True, create=True)
    return ocp.CheckpointManager(folder.absolute(), options=options, item_names=("state", "config", "record"))


def _read_json(step_folder: Path, item: str) -> dict[str, Any]:
    with _readable(step_folder):
        return json.loads((step_folder / item / "metadata").read_text())


@contextlib.contextmanager
def _readable(step_folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{step_folder}: this checkpoint is incomplete or damaged ({_first_line(error)}); delete the folder to use "
            "the step before it, or give another checkpoint."
        ) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
