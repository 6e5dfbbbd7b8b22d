"""Where a model says that it edits, against where the truth may change: for a source with `region`, as drawn faces.

Both are cut at one half. IoU is intersection over union, a mean over faces. It is to be read beside that of the best
constant mask, one and the same for every face: of all the sets of pixels that are in the region of at least so many
faces, the one of the highest IoU on these very faces.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.data.images import to_float
from faceattr_jax.evaluation.editors import floats
from faceattr_jax.evaluation.regions import batches, spread


def scores(
    mask: Callable[[jax.Array], jax.Array],
    source: Any,
    attributes: Sequence[str],
    indices: np.ndarray,
    *,
    faces: int = 256,
    batch_size: int = 64,
) -> dict[str, float]:
    """IoU of `mask`, images (B, S, S, 3) -> (B, S, S, 1) in [0, 1], with the union of the attributes' regions.

    faces: at most so many of `indices`, spread over them. Returns "mask_iou", "constant_mask_iou", and the mean shares
    of the picture, "mask_share" and "region_share".
    """
    indices = spread(indices, faces)
    compiled, found, truth = jax.jit(mask), [], []
    for batch, count in batches(indices, min(batch_size, len(indices))):
        images = floats(source.images(batch))
        found.append(np.asarray(compiled(images))[:count, :, :, 0] > 0.5)
        truth.append(np.max([source.region(batch, name) for name in attributes], axis=0)[:count] > 0.5)
    ours, theirs = np.concatenate(found), np.concatenate(truth)
    often = theirs.mean(axis=0)
    constants = (often >= level for level in np.linspace(0.02, 0.98, 49))
    return {
        "mask_iou": iou(ours, theirs),
        "constant_mask_iou": max(iou(constant[None], theirs) for constant in constants),
        "mask_share": float(ours.mean()),
        "region_share": float(theirs.mean()),
    }


def pictures(mask: Callable[[jax.Array], jax.Array], images: np.ndarray) -> np.ndarray:
    """The masks of `images` (R, S, S, 3) uint8 as grey pictures of the same shape, white where the model edits."""
    found = np.asarray(jax.jit(mask)(to_float(jnp.asarray(images))))
    return np.broadcast_to(np.round(255 * found).astype(np.uint8), images.shape)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of boolean masks (B, H, W) or (1, H, W), a mean over faces; 1 where both are empty."""
    union = np.sum(a | b, axis=(1, 2))
    return float(np.mean(np.where(union > 0, np.sum(a & b, axis=(1, 2)) / np.maximum(union, 1), 1.0)))
