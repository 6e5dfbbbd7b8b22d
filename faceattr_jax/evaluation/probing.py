"""What a latent tells of the attributes: a probe, trained on frozen latents, reads them (AttGAN section 4.2).

The probe is a small network of its own, which the model under test never meets: a latent that merely fools the
adversary that it was trained against is found out. It learns from latents of the training split under cross entropy in
which both values of an attribute weigh alike, a tenth of them kept aside to choose the epoch, and is tested on faces
that it has not seen (nor has the model, but of the training split). Balanced accuracy: 0.5 knows nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from faceattr_jax import losses
from faceattr_jax.evaluation import metrics
from faceattr_jax.evaluation.editors import floats
from faceattr_jax.evaluation.regions import batches
from faceattr_jax.evaluation.tally import mean, number
from faceattr_jax.nn.blocks import MLP

HIDDEN = (256,)
RATE, DECAY = 1e-3, 1e-2

Latents = Callable[[jax.Array], jax.Array]


def evaluate_latents(
    models: Mapping[str, Latents],
    source: Any,
    attributes: tuple[str, ...],
    train: np.ndarray,
    indices: np.ndarray,
    *,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Probe the latents of several models on the same faces.

    models: name -> images (B, S, S, 3) in [-1, 1] to latents (B, d). train: the faces to learn from (M,). indices:
    those to test on (N,). Returns {"faces": M, "models": name -> {"balanced_accuracy": mean, "attributes": name ->
    balanced accuracy, None where a value is absent}}.
    """
    labels = source.table.select(attributes)

    def encoded(latents: Latents, faces: np.ndarray) -> np.ndarray:
        parts = [
            np.asarray(latents(floats(source.images(batch))))[:count]
            for batch, count in batches(faces, min(batch_size, len(faces)))
        ]
        return np.concatenate(parts)

    rows = {}
    for name, latents in models.items():
        read = probe(encoded(latents, train), labels[train], encoded(latents, indices), labels[indices])
        each = {a: number(value) for a, value in zip(attributes, read, strict=True)}
        rows[name] = {"balanced_accuracy": mean(each.values()), "attributes": each}
    return {"faces": len(train), "models": rows}


def summarize(found: Mapping[str, Any]) -> dict[str, float | None]:
    """The mean of every model, those of others than "model" with the name before."""
    return {
        f"{'' if name == 'model' else f'{name}_'}probe_balanced_accuracy": row["balanced_accuracy"]
        for name, row in found["models"].items()
    }


def probe(
    x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray, *, epochs: int = 30, batch_size: int = 64
) -> np.ndarray:
    """Balanced accuracy (n,) on latents (N, d) with labels 0/1 (N, n) of a probe that learns from (M, d) and (M, n).

    The same numbers give the same result; NaN for an attribute that the test faces all have, or all lack.
    """
    rng = np.random.default_rng(0)
    order = rng.permutation(len(x))
    kept = max(1, len(x) // 10)
    aside, rest = order[:kept], order[kept:]
    centre, scale = x[rest].mean(axis=0), x[rest].std(axis=0) + 1e-6
    x, test_x = (x - centre) / scale, (test_x - centre) / scale
    rate = y[rest].mean(axis=0).clip(1 / len(rest), 1 - 1 / len(rest))
    weights = np.where(y > 0.5, 0.5 / rate, 0.5 / (1 - rate)).astype(np.float32)

    network = MLP(HIDDEN, y.shape[1])
    params: Any = network.init(jax.random.key(0), x[:1])
    optimizer = optax.adamw(RATE, weight_decay=DECAY)

    def logits(params: Any, x: jax.Array) -> Any:
        return network.apply(params, x)

    @jax.jit
    def update(params: Any, state: Any, x: jax.Array, y: jax.Array, weights: jax.Array) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            return losses.sigmoid_cross_entropy(logits(params, x), y, weights=weights)

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def read(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return metrics.balanced_accuracy(metrics.confusion(logits(params, x) > 0, y))

    state, best, found = optimizer.init(params), -1.0, np.zeros(0)
    size = min(batch_size, len(rest))
    for _ in range(epochs):
        for batch in rng.permutation(rest)[: len(rest) // size * size].reshape(-1, size):
            params, state = update(params, state, x[batch], y[batch], weights[batch])
        score = float(jnp.nan_to_num(read(params, x[aside], y[aside]), nan=0.5).mean())
        if score > best:
            best, found = score, np.asarray(read(params, test_x, test_y))
    return found
