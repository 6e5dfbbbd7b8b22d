"""The attribute classifier: the judge of the edits, and AttGAN's of its augmentation study.

The AttGAN paper names no network (its own reaches 90.89 % on CelebA's test set); this one follows the authors' word in
their repository: pairs of 3x3 convolutions with batch norm, a pooling after each pair, one hidden layer.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from faceattr_jax import losses
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


class Classifier(nn.Module):
    """(B, S, S, 3) -> logits (B, n). widths: channels of each pair of convolutions, halving the size after each."""

    widths: Sequence[int]
    fc: int
    attributes: int
    momentum: float
    dropout: float

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = conv_pairs(images, self.widths, self.momentum, train)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(batch_norm(self.momentum, train, name="fc_norm")(nn.Dense(self.fc, use_bias=False, name="fc")(x)))
        self.sow("intermediates", "features", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.attributes, name="logits")(x)


class AttributeClassifier(FromConfig):
    """One network, one phase. ``memory/counts`` holds how often each attribute was seen present, and all faces seen.

    The counts weigh the rare value of each attribute up: the weight of a value of rate r is r^-balance, scaled to a
    mean of 1, so balance 0 is plain cross entropy and 1 gives both values the same total weight.
    """

    capabilities = frozenset({"classify"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        phase = Phase("classify", ("classifier",), self.objective, mutates=("batch_stats/classifier", "memory/counts"))
        return (Stage("train", self.config.train.iterations, (phase,)),)

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        size = self.config.image_size
        variables = self.networks["classifier"].init(key, jnp.zeros((1, size, size, 3)))
        counts = {"present": jnp.zeros(len(self.attributes)), "seen": jnp.zeros(())}
        return {**{name: {"classifier": tree} for name, tree in variables.items()}, "memory": {"counts": counts}}

    def classify(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Probability of each attribute, (B, n)."""
        own = variables_of(variables, "classifier")
        return nn.sigmoid(self.networks["classifier"].apply(own, images))

    def features(self, variables: Variables, images: jax.Array) -> jax.Array:
        """What the last layer reads the attributes from, (B, fc)."""
        own = variables_of(variables, "classifier")
        _, kept = self.networks["classifier"].apply(own, images, mutable=["intermediates"])
        return kept["intermediates"]["features"][0]

    def objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """Weighted binary cross entropy, mean over attributes, plus l2 / 2 times the kernels' squared norm."""
        weights = self.config.loss
        labels = batch["labels"]
        params = variables["params"]["classifier"]
        images = shifted(jax.random.fold_in(ctx.key, 0), batch["images"], self.config.shift)
        logits, new = self.networks["classifier"].apply(
            {"params": params, "batch_stats": variables["batch_stats"]["classifier"]},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(ctx.key, 1)},
        )
        counts = jax.tree.map(
            jnp.add, variables["memory"]["counts"], {"present": labels.sum(0), "seen": jnp.float32(len(labels))}
        )
        rate = (counts["present"] + 1.0) / (counts["seen"] + 2.0)
        scale = rate ** (1.0 - weights.balance) + (1.0 - rate) ** (1.0 - weights.balance)
        value_rate = jnp.where(labels > 0.5, rate, 1.0 - rate)
        smoothed = labels * (1.0 - weights.label_smoothing) + weights.label_smoothing / 2.0
        entropy = losses.sigmoid_cross_entropy(logits, smoothed, weights=value_rate**-weights.balance / scale)
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
        penalty = 0.5 * sum(jnp.sum(kernel**2) for kernel in kernels)
        return Out(
            losses={"classifier": entropy + weights.l2 * penalty},
            mutated={"batch_stats/classifier": new["batch_stats"], "memory/counts": counts},
            metrics={"entropy": entropy, "accuracy": jnp.mean((logits > 0) == (labels > 0.5))},
        )


def build(config: ml_collections.ConfigDict) -> AttributeClassifier:
    """The classifier as `config` describes it (configs/classifier_128.py says what each key means)."""
    model = config.model
    network = Classifier(
        tuple(model.widths),
        fc=model.fc,
        attributes=len(config.attributes),
        momentum=model.batch_norm_momentum,
        dropout=model.dropout,
    )
    optimizer = Optimizer(("classifier",), adam(config), learning_rate(config))
    return AttributeClassifier(config, {"classifier": network}, {"classifier": optimizer})
