"""Other people's weights as runs of ours, which everything here loads, edits with and evaluates."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import build
from faceattr_jax.pretrained import attgan_pytorch, elegant_pytorch, safetensors_file, state_dict, torch_file
from faceattr_jax.training import loop
from faceattr_jax.training.checkpoint import Checkpoints
from faceattr_jax.training.state import start

FORMATS = (attgan_pytorch, elegant_pytorch)


def convert(paths: Sequence[Path], workdir: Path, overrides: Mapping[str, str] | None = None) -> ConfigDict:
    """Make a run, of one checkpoint at step 0, of weights that another program trained; returns its config.

    paths: AttGAN-PyTorch's ``.pth``, or ELEGANT's, one for each network, or one ``.safetensors`` that
    `export.to_safetensors` wrote, which has the config, too. What the tensors' shapes tell is read off them
    (`pretrained.attgan_pytorch`, `pretrained.elegant_pytorch`); overrides, such as ``{"attributes": "Bangs,Smiling"}``,
    say the rest. Raises `UserError`, and writes nothing, where the workdir is not new or empty, or where a tensor is
    missing, left over or of another shape; it is named.
    """
    check_new(workdir)
    ours = any(path.suffix == safetensors_file.SUFFIX for path in paths)
    config, variables = (_from_safetensors if ours else _from_pytorch)(paths, overrides or {})
    write_run(workdir, config, variables)
    return config


def _from_pytorch(paths: Sequence[Path], overrides: Mapping[str, str]) -> tuple[ConfigDict, Any]:
    held = [(path, torch_file.read(path)) for path in paths]
    for module in FORMATS:
        states = module.states(held)
        if states is not None:
            break
    else:
        raise UserError(
            f"'{paths[0]}' has neither AttGAN-PyTorch's tensors ('G', a dict) nor ELEGANT's ('main.0.0.weight')"
        )
    config = configs.load(module.CONFIG, overrides)
    count = module.settle(config, states)
    if count not in (None, len(config.attributes)):
        raise UserError(
            f"'{paths[0]}' has {count} attributes, and the config {len(config.attributes)} "
            f"({', '.join(config.attributes)}); name the file's, in its order: --config.attributes=A,B"
        )
    return config, state_dict.variables(safetensors_file.model_shapes(config), module.places(config), states)


def _from_safetensors(paths: Sequence[Path], overrides: Mapping[str, str]) -> tuple[ConfigDict, Any]:
    if len(paths) > 1:
        raise UserError(f"'{paths[0]}' and '{paths[1]}': a model is one safetensors file; convert one at a time")
    return safetensors_file.read_model(paths[0], overrides)


def check_new(workdir: Path) -> None:
    """Raise UserError unless nothing is at `workdir`, or an empty folder."""
    if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):
        raise UserError(f"{workdir}: something is there already; give a new or empty folder.")


def write_run(workdir: Path, config: ConfigDict, variables: Any) -> None:
    """A run with these variables at step 0; the folder appears when it is complete."""
    check_new(workdir)
    part = workdir.with_name(f".{workdir.name}.{os.getpid()}.part")
    try:
        loop.claim(part, config, {}, {})
        checkpoints = Checkpoints(part, config, keep=config.train.keep)
        try:
            checkpoints.save(0, start(build(config), jax.tree.map(jnp.asarray, variables)))
            checkpoints.wait()
        finally:
            checkpoints.close()  # when nothing is being written any more
        part.replace(workdir)
    except OSError as error:
        raise UserError(f"{workdir}: this folder cannot be written ({error.strerror}); give another one.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
