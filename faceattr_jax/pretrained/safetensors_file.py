"""Our models as safetensors files: the variables by path, ``params/encoder/conv0/kernel``, and the config as JSON.

The file holds all there is to a model, runs nothing when it is read, and other programs read it, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
from ml_collections import ConfigDict

from faceattr_jax import config as configs
from faceattr_jax import files
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import build
from faceattr_jax.pretrained import state_dict
from faceattr_jax.pretrained.state_dict import StateDict

SUFFIX = ".safetensors"
CONFIG = "faceattr_jax.config"
"""The key of the config in the file's metadata."""


def write(path: Path, config: ConfigDict, variables: Mapping[str, Any], *, half: bool = False) -> None:
    """Write a model, whole or not at all. Raises UserError where something is there already.

    half: as float16, in half the bytes; `read_model` gives float32 of three digits then.
    """
    from safetensors.numpy import save

    files.check_new(path)
    dtype = np.float16 if half else None
    tensors = {name: np.array(a, dtype, order="C") for name, a in flatten(variables).items()}
    files.write(path, save(tensors, {CONFIG: configs.to_json(config)}))


def read(path: Path) -> tuple[ConfigDict, StateDict]:
    """The config and the tensors of a file that `write` wrote. Raises UserError where it did not, or is damaged."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror or error})") from None
    except Exception as error:
        raise UserError(f"'{path}' is damaged, or no safetensors file ({error})") from None
    if CONFIG not in metadata:
        raise UserError(f"'{path}' has no '{CONFIG}' in its metadata, so `faceattr export` did not write it")
    try:
        return configs.from_json(metadata[CONFIG]), StateDict(path, tensors)
    except Exception as error:
        raise UserError(f"'{path}' holds no config of ours ({error})") from None


def read_model(path: Path, overrides: Mapping[str, str] | None = None) -> tuple[ConfigDict, Any]:
    """The config, with overrides such as ``{"data.path": "elsewhere"}``, and the variables of its model.

    Raises UserError as `read` does, and where a tensor is missing, left over or of another shape; it is named.
    """
    config, state = read(path)
    for key, text in (overrides or {}).items():
        configs.override(config, key, text)
    try:
        shapes = model_shapes(config)
    except UserError:
        raise
    except Exception as error:  # a config may be anything
        raise UserError(f"'{path}' holds a config of no model that this version knows ({error})") from None
    places = {name: state_dict.Place("model", name, state_dict.SAME) for name in flatten(shapes)}
    return config, state_dict.variables(shapes, places, {"model": state})


def model_shapes(config: ConfigDict) -> Any:
    """The shapes of the variables of a config's model."""
    method = build(config)
    return jax.eval_shape(lambda: method.init(jax.random.key(0)))


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves by their path, joined by slashes."""
    return flax.traverse_util.flatten_dict(dict(variables), sep="/")
