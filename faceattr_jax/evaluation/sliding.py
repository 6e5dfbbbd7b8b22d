"""Whether a model's sliders do what they say, by a judge that had no part in its training.

Protocol (AttGAN section 3.2 and figure 8, which the paper judges by eye; printed by `evaluation.report`):

* *KS*: the Kolmogorov-Smirnov distance from U(0, 1) of how strong the model finds an attribute, over all faces.
* Each of some faces slides each attribute through VALUES, rounded to 8 bits. *Correlation*: Spearman's, between the
  slider and what the judge says of the attribute, of each face; mean over faces. A face whose judged value never moves
  counts as 0. The judge's probability ranks as its logit does.
* *Ends*: the judge, at probability .5, finds the attribute absent at -1 and present at 1; mean over both. Of a slider
  whose changes nobody sees the correlation may be high, but not this.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.evaluation import editing, metrics
from faceattr_jax.evaluation.editors import Judge, Slider, floats
from faceattr_jax.evaluation.regions import batches, spread
from faceattr_jax.evaluation.tally import mean

VALUES = tuple(np.linspace(-1.0, 1.0, 11).round(1).tolist())
MEASURES = ("ks", "correlation", "ends")


def evaluate_sliders(
    sliders: Mapping[str, Slider],
    judge: Judge,
    source: Any,
    indices: np.ndarray,
    *,
    faces: int = 200,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Measure models with sliders side by side on the same faces.

    Args:
      sliders: name -> model, all of the same attributes.
      judge: knows all of these.
      source: faces and labels.
      indices: (N,) faces whose intensities are measured.
      faces: at most so many of them slide.
      batch_size: faces per call; the last batch is filled up.

    Returns:
      {"images", "faces", "sliders": name -> attribute -> each of MEASURES}.
    """
    known = editing.check(sliders, judge, source, next(iter(sliders.values())).attributes, indices)
    labels = source.table.select(known)
    columns = [judge.attributes.index(name) for name in known]
    shown = spread(indices, faces)
    size = min(batch_size, len(indices))
    result: dict[str, Any] = {}
    for name, slider in sliders.items():
        strong = [
            np.asarray(slider.intensities(floats(source.images(batch))))[:count]
            for batch, count in batches(indices, size)
        ]
        judged = []
        for batch, count in batches(shown, min(size, len(shown))):
            images, own = floats(source.images(batch)), jnp.asarray(labels[batch])
            frames = ((i, slider.slide(images, i, value, own)) for i in range(len(known)) for value in VALUES)
            answers = [judge.classify(to_float(to_uint8(frame)))[:count, columns[i]] for i, frame in frames]
            judged.append(np.asarray(answers).reshape(len(known), len(VALUES), count))
        result[name] = {
            attribute: {"ks": metrics.kolmogorov_smirnov(intensities), **_follows(answers)}
            for attribute, intensities, answers in zip(
                known, np.concatenate(strong).T, np.concatenate(judged, axis=2), strict=True
            )
        }
    return {"images": len(indices), "faces": len(shown), "sliders": result}


def _follows(answers: np.ndarray) -> dict[str, float]:
    """`correlation` and `ends` of what the judge says (len(VALUES), N)."""
    correlations = [metrics.spearman(np.array(VALUES), face)[0] or 0.0 for face in answers.T]
    ends = (np.mean(answers[0] <= 0.5) + np.mean(answers[-1] > 0.5)) / 2
    return {"correlation": float(np.mean(correlations)), "ends": float(ends)}


def summarize(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Flat numbers: means over attributes, and the worst ones."""
    summary: dict[str, float | None] = {}
    for name, row in found["sliders"].items():
        prefix = "" if name == "model" else f"{name}_"
        for measure in MEASURES:
            values = [cell[measure] for cell in row.values()]
            summary[f"{prefix}slider_{measure}"] = mean(values)
            summary[f"{prefix}slider_{measure}_worst"] = max(values) if measure == "ks" else min(values)
    return summary


def slides_grid(slider: Slider, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, list[str], list[str]]:
    """A row for each attribute, of one face after another: input, and every second of VALUES.

    images: (R, S, S, 3) uint8. labels: (R, n). Returns pictures (n, C, S, S, 3) uint8, C headings and n names.
    """
    values = VALUES[::2]
    rows = []
    for i in range(len(slider.attributes)):
        face = slice(i % len(images), i % len(images) + 1)
        x, own = to_float(jnp.asarray(images[face])), jnp.asarray(labels[face], jnp.float32)
        frames = [x, *(slider.slide(x, i, value, own) for value in values)]
        rows.append(np.concatenate([np.asarray(to_uint8(frame)) for frame in frames]))
    names = [name.replace("_", " ") for name in slider.attributes]
    return np.stack(rows), ["Input", *(f"{value:g}" for value in values)], names
