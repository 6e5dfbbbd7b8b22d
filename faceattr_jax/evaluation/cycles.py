"""There and back again: what an attribute costs that is inverted twice.

The first edit is rounded to 8 bits, as a PNG holds it; only then is it edited back to the face's own labels. PSNR
against the input: the paper of the attribute-inverse GAN asks for it of one generator, DIAT of two models.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax.evaluation import metrics
from faceattr_jax.evaluation.editing import as_saved
from faceattr_jax.evaluation.editors import Editor, floats, invert
from faceattr_jax.evaluation.regions import batches, spread
from faceattr_jax.evaluation.tally import DIRECTIONS, number


def cyclic_psnr(
    editor: Editor,
    source: Any,
    attributes: Sequence[str],
    indices: np.ndarray,
    *,
    strength: float = 1.0,
    faces: int = 128,
    batch_size: int = 64,
    back: Editor | None = None,
) -> dict[str, dict[str, float | None]]:
    """Attribute -> "adding" | "removing" (the first of the two edits) -> mean PSNR in dB over faces.

    faces: at most so many of `indices` (N,) per attribute and direction, spread over them. None where no face has that
    value, or where the editor gives a face back unchanged, whose PSNR is infinite. back: another editor, of the same
    attributes, for the second edit.
    """
    known, psnr = tuple(editor.attributes), jax.jit(metrics.psnr)
    labels = source.table.select(known)
    result: dict[str, dict[str, float | None]] = {name: {} for name in attributes}
    for name in attributes:
        for value, direction in enumerate(DIRECTIONS):
            found: list[np.ndarray] = []
            chosen = indices[labels[indices, known.index(name)] == value]
            for batch, count in batches(spread(chosen, faces), batch_size):
                pixels, own = source.images(batch), jnp.asarray(labels[batch])
                target = jnp.asarray(invert(labels[batch], known, (name,))[0])
                there, *_ = as_saved(pixels, editor.edit(floats(pixels), own, target, strength))
                found.append(np.asarray(psnr((back or editor).edit(there, target, own, strength), pixels))[:count])
            result[name][direction] = number(np.mean(np.concatenate(found), dtype=np.float64)) if found else None
    return result
