"""Configs: plain-Python `ml_collections` files, found by name or path, with overrides from the command line.

A spec is ``NAME[:VARIANT]`` for a config that ships with the package, or ``PATH.py[:VARIANT]``. The file defines
``get_config(variant)``, which starts from `base` and changes what its paper says.
"""

import ast
import importlib
import importlib.util
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from faceattr_jax.errors import UserError, nearest


def base() -> ConfigDict:
    """What every run has: the keys that the loop, the data and the evaluation read."""
    return ConfigDict(
        {
            "method": "",
            "seed": 0,
            "attributes": (),
            "image_size": 0,
            "crop": "center178",
            "flip": True,  # mirror training images at random
            "data": {
                "path": "synthetic",  # or a folder: CelebA's layout, images and a CSV, a TFDS data_dir, a prepared set
                "cache": True,  # keep the decoded, cropped images in host memory
                # Keep the training images in device memory and draw batches there: "on", "off", or "auto", which is on
                # where the device is no CPU and they take no more than resident_gib GiB of it (0: .4 of its memory).
                "resident": "auto",
                "resident_gib": 0.0,
                # Above 1, every batch is drawn in equal parts from so many fixed shards of the training images: devices
                # whose number divides it hold their own shards alone. Other samples than with 1, but on any machine.
                "shards": 1,
            },
            "batch_size": 32,
            "ema": 0.0,  # decay of the parameters' average that inference uses; 0: none
            # Of convolutions and matrix products in training: "float32" or "bfloat16". Parameters, optimizers, norms,
            # losses and the arithmetic of a gradient penalty are float32 either way. On recent NVIDIA GPUs JAX computes
            # those of float32 in TF32, unless JAX_DEFAULT_MATMUL_PRECISION=highest.
            "dtype": "float32",
            "optimizer": {"learning_rate": 2e-4, "b1": 0.5, "b2": 0.999, "schedule": ()},
            "train": {
                "iterations": 0,
                "log_every": 50,
                "checkpoint_every": 1000,
                "keep": 3,  # checkpoints, beside the best one
                # Iterations in one compiled call, which draws its batches from device memory (data.resident). 0: as
                # many as fit between checkpoints and evaluations, up to 10, on GPU and TPU, and 1 elsewhere. SIGTERM is
                # heard between calls.
                "per_call": 0,
                # Compute a network's pass again for its gradients instead of keeping what its layers made: up to a
                # third more operations, for less memory where the compiler makes use of it (a CPU's does not).
                "remat": False,
                "profile": (),  # (first, end): trace iterations first to end - 1
                "evaluate_every": 0,  # iterations between evaluations on the valid split; 0: only at the end
            },
            "evaluation": {
                "validator": "",  # module.function of faceattr_jax.evaluation, run during training
                "judge": "",  # workdir of a trained classifier; without one edits are not scored, only shown
                "images": 512,  # of the valid split
                "best": "",  # the metric of the validator whose highest value marks the best checkpoint
                "strength": 1.0,
            },
        }
    )


def names() -> list[str]:
    """The configs that ship with the package."""
    package = importlib.import_module("faceattr_jax.configs")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load(spec: str, overrides: Mapping[str, str] | None = None) -> ConfigDict:
    """The config of a spec with overrides such as ``{"model.width": "16"}`` applied, locked.

    Raises `UserError` for an unknown config, variant or key (the nearest one is named) or a value of another type.
    """
    name, _, variant = spec.partition(":")
    try:
        config = _module(name).get_config(variant)
    except ValueError as error:
        raise UserError(f"--config={spec}: {error}") from error
    config.lock()
    for key, text in (overrides or {}).items():
        override(config, key, text)
    return config


def check_variant(variant: str, known: tuple[str, ...]) -> None:
    """Raise ValueError unless `variant` is empty or known; for `get_config`."""
    if variant and variant not in known:
        raise ValueError(
            f"there is no variant '{variant}'{nearest(variant, known)}; the variants are "
            f"{', '.join(known) if known else 'none'}"
        )


def override(config: ConfigDict, key: str, text: str) -> None:
    """Set the dotted `key` to the value written in `text`, which must be of the key's own type."""
    *parents, last = key.split(".")
    node = config
    for depth, part in enumerate([*parents, last]):
        if not isinstance(node, ConfigDict) or part not in node:
            known = _dotted(config)
            prefix = ".".join(key.split(".")[: depth + 1])
            raise UserError(f"--config.{key}: the config has no key '{prefix}'{nearest(key, known)}.")
        node = node[part] if depth < len(parents) else node
    old = node[last]
    if isinstance(old, ConfigDict):
        raise UserError(f"--config.{key}: '{key}' is a group of keys; set one of {', '.join(sorted(old))}.")
    node[last] = _parse(key, text, old)


def to_json(config: ConfigDict) -> str:
    """The config as stable, indented JSON."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """The inverse of `to_json`: lists become the tuples that they were."""

    def tuples(value: Any) -> Any:
        if isinstance(value, list):
            return tuple(map(tuples, value))
        return {k: tuples(v) for k, v in value.items()} if isinstance(value, dict) else value

    return ConfigDict(tuples(json.loads(text))).lock()


def differences(one: ConfigDict, other: ConfigDict) -> list[str]:
    """The dotted keys on which two configs differ.

    One that an older version did not have counts as its default, which is that of `base`; what a method has gained
    since is off: 0, False or empty.
    """
    a, b, default = _dotted(one), _dotted(other), _dotted(base())

    def differ(key: str) -> bool:
        if key in a and key in b:
            return a[key] != b[key]
        value = a.get(key, b.get(key))
        return value != default[key] if key in default else bool(value)

    return sorted(filter(differ, a.keys() | b.keys()))


def _dotted(config: ConfigDict) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(config.to_dict())).items():
        if isinstance(value, dict):
            found |= {f"{key}.{k}": v for k, v in _dotted(ConfigDict(value)).items()}
        else:
            found[key] = value
    return found


def _parse(key: str, text: str, old: Any) -> Any:
    kind = type(old)
    if kind is str:
        return text
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        # "a,b" is how a shell writes a tuple of names.
        value = tuple(text.split(",")) if kind is tuple else text
    if kind is tuple and isinstance(value, list):
        value = tuple(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, str):
        value = (value,)
    if type(value) is not kind:
        raise UserError(f"--config.{key}={text}: the value must be of type {kind.__name__}, such as {old!r}.")
    return value


def _module(name: str) -> Any:
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"--config={name}: there is no such file.")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    known = names()
    if name not in known:
        raise UserError(
            f"--config={name}: there is no such config{nearest(name, known)}; there are {', '.join(known)}."
        )
    return importlib.import_module(f"faceattr_jax.configs.{name}")
