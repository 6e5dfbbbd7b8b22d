"""How well a model restores degraded faces: against the faces themselves, and beside what it is given.

Protocol: every face of the split is degraded as the method does it (8x fewer pixels and back by bicubic
interpolation, noise) by a fixed key, and restored. Both are rounded to 8 bits and compared with the face: PSNR and
SSIM over RGB and over brightness (``_y``), means over images; ``gradient_energy_ratio`` is the restored faces'
gradient energy over the true faces', 1 where they are as sharp; ``frechet_NAME`` the Frechet distance of the set from
that of the true faces in the features of the embedder of that name. "degraded" is the row of the input itself.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.evaluation import features, metrics
from faceattr_jax.evaluation.editors import floats
from faceattr_jax.evaluation.regions import batches
from faceattr_jax.methods.base import Variables

Rows = dict[str, dict[str, float]]
SIMILARITIES = {"psnr": metrics.psnr, "ssim": metrics.ssim}


class Compiled:
    """A method's `degrade` and `restore`, compiled once."""

    def __init__(self, method: Any) -> None:
        self.degrade = jax.jit(functools.partial(_degrade, method))
        self.restore = jax.jit(method.restore)


def _degrade(method: Any, images: jax.Array, index: jax.Array) -> jax.Array:
    """Every image by a key of its own, so that the batch it comes in does not matter."""

    def one(image: jax.Array, i: jax.Array) -> jax.Array:
        return method.degrade(image[None], jax.random.fold_in(jax.random.key(0), i))[0]

    return jax.vmap(one)(images, index)


@jax.jit
def _compare(images: jax.Array, truth: jax.Array) -> dict[str, jax.Array]:
    values = {}
    for name, measure in SIMILARITIES.items():
        values[name] = measure(images, truth)
        values[f"{name}_y"] = measure(metrics.luma(images), metrics.luma(truth))
    return {**values, "gradient_energy": metrics.gradient_energy(images)}


def evaluate(
    compiled: Compiled,
    variables: Mapping[str, Variables],
    source: Any,
    indices: np.ndarray,
    *,
    embedders: Mapping[str, Callable[[jax.Array], jax.Array]] = MappingProxyType({}),
    batch_size: int = 64,
) -> Rows:
    """Scores of the faces at `indices` as restored with each of `variables`, and of the degraded ones.

    embedders: name -> images (B, S, S, 3) in [-1, 1] -> features (B, D). Returns name -> "psnr", "psnr_y", "ssim",
    "ssim_y", "gradient_energy_ratio", and "frechet_NAME" for each embedder.
    """
    names = ("degraded", *variables, "truth")
    found: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in names}
    read = {name: {embedder: features.Moments() for embedder in embedders} for name in names}
    for batch, count in batches(indices, min(batch_size, len(indices))):
        truth = floats(source.images(batch))
        degraded = compiled.degrade(truth, jnp.asarray(batch))
        results = {name: compiled.restore(held, degraded) for name, held in variables.items()}
        for name, images in {"degraded": degraded, **results, "truth": truth}.items():
            found[name].append({key: np.asarray(value)[:count] for key, value in _compare(images, truth).items()})
            for embedder, moments in read[name].items():
                moments.add(np.asarray(embedders[embedder](to_float(to_uint8(images))))[:count])
    scores = {
        name: {key: float(np.concatenate([part[key] for part in parts]).mean()) for key in parts[0]}
        for name, parts in found.items()
    }
    true = scores.pop("truth")["gradient_energy"]
    for name, row in scores.items():
        row["gradient_energy_ratio"] = row.pop("gradient_energy") / true
        for embedder, moments in read[name].items():
            row[f"frechet_{embedder}"] = features.frechet(read["truth"][embedder], moments)
    return scores


def grid(compiled: Compiled, variables: Variables, source: Any, indices: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A row per face, (R, 3, S, S, 3) uint8: degraded, restored, and the face itself; and the headings."""
    truth = source.images(indices)
    degraded = compiled.degrade(to_float(jnp.asarray(truth)), jnp.asarray(indices))
    columns = (degraded, compiled.restore(variables, degraded))
    return np.stack([*(np.asarray(to_uint8(x)) for x in columns), truth], axis=1), ["Input", "Restored", "Truth"]
