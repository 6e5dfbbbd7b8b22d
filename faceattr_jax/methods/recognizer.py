"""The face recogniser: an embedding in which the same person's pictures are near each other.

Trained as a classifier of the training split's people by a softmax over cosines with a margin (CosFace, Wang et al.
2018); what is used afterwards is the embedding of people it has never seen. For identity losses and identity metrics
where no published network fits, and for drawn faces.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from faceattr_jax import losses
from faceattr_jax.data import sampling
from faceattr_jax.errors import UserError
from faceattr_jax.methods.base import (
    Batch,
    Carry,
    Ctx,
    FromConfig,
    Optimizer,
    Out,
    Phase,
    Stage,
    Variables,
    adam,
    learning_rate,
    variables_of,
)
from faceattr_jax.nn.blocks import batch_norm, conv_pairs, shifted
from faceattr_jax.nn.precision import Dense


class Embedder(nn.Module):
    """(B, S, S, 3) -> vectors (B, embedding), of unit length but where `scaled` is False.

    widths: of the pairs of convolutions (`conv_pairs`).
    """

    widths: Sequence[int]
    embedding: int
    momentum: float
    dropout: float

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, scaled: bool = True) -> jax.Array:
        x = conv_pairs(images, self.widths, self.momentum, train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(x.shape[0], -1))
        x = Dense(self.embedding, use_bias=False, name="embedding")(x)
        x = batch_norm(self.momentum, train, name="embedding_norm")(x)
        return unit(x) if scaled else x


class People(nn.Module):
    """Unit vectors (B, D) -> their cosines with a direction for each person, (B, people)."""

    people: int

    @nn.compact
    def __call__(self, vectors: jax.Array) -> jax.Array:
        shape = (self.people, vectors.shape[-1])
        return vectors @ unit(self.param("directions", nn.initializers.normal(shape[1] ** -0.5), shape)).T


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1 along the last axis."""
    return x * jax.lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)


class FaceRecognizer(FromConfig):
    """One phase that trains the embedder and the people's directions together."""

    capabilities = frozenset({"embed"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        phase = Phase("recognize", ("recognizer",), self.objective, mutates=("batch_stats/embedder",))
        sampler = functools.partial(by_identity, self.config.model.people, self.config.per_person)
        return (Stage("train", self.config.train.iterations, (phase,), sampler, identity=True),)

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        size, model = self.config.image_size, self.config.model
        keys = jax.random.split(key)
        embedder = self.networks["embedder"].init(keys[0], jnp.zeros((1, size, size, 3)))
        people = self.networks["people"].init(keys[1], jnp.zeros((1, model.embedding)))
        return {
            "params": {"embedder": embedder["params"], "people": people["params"]},
            "batch_stats": {"embedder": embedder["batch_stats"]},
        }

    def embed(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Unit vectors (B, D), which need the embedder's variables alone."""
        return self.networks["embedder"].apply(variables_of(variables, "embedder"), images)

    def embed_unscaled(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Those vectors (B, D) before they are scaled to unit length, for measures of their lengths."""
        return self.networks["embedder"].apply(variables_of(variables, "embedder"), images, scaled=False)

    def objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """Cross entropy over the people (`losses.margin_softmax`); accuracy is without the margin."""
        images = shifted(jax.random.fold_in(ctx.key, 0), batch["images"], self.config.shift)
        vectors, new = self.networks["embedder"].apply(
            variables_of(variables, "embedder"),
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(ctx.key, 1)},
        )
        cosines = self.networks["people"].apply(variables_of(variables, "people"), vectors)
        who, weights = batch["identity"], self.config.loss
        entropy = losses.margin_softmax(cosines, who, scale=weights.scale, margin=weights.margin)
        return Out(
            losses={"recognizer": entropy},
            mutated={"batch_stats/embedder": new["batch_stats"]},
            metrics={"accuracy": jnp.mean(cosines.argmax(-1) == who)},
        )


def by_identity(
    people: int,
    per_person: int,
    key: jax.Array,
    indices: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    *,
    identity: np.ndarray,
) -> sampling.Sampler:
    """Everybody equally often, `per_person` pictures at a time; UserError for more people than `people`."""
    if batch_size % per_person:
        raise UserError(f"batch_size is {batch_size}; it should be a multiple of per_person, which is {per_person}")
    if (count := len(np.unique(identity))) > people:
        raise UserError(f"model.people is {people}, but the training split has {count}; set model.people={count}")
    return sampling.by_identity(key, indices, identity, batch_size // per_person, per_person)


def build(config: ml_collections.ConfigDict) -> FaceRecognizer:
    """The recogniser as `config` describes it (configs/recognizer_64.py says what each key means)."""
    model = config.model
    embedder = Embedder(
        tuple(model.widths), embedding=model.embedding, momentum=model.batch_norm_momentum, dropout=model.dropout
    )
    networks = {"embedder": embedder, "people": People(model.people)}
    return FaceRecognizer(
        config, networks, {"recognizer": Optimizer(("embedder", "people"), adam(config), learning_rate(config))}
    )
