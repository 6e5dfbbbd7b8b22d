"""The attribute classifier: the judge of the edits, and AttGAN's of its augmentation study.

The AttGAN paper names no network (its own reaches 90.89 % on CelebA's test set); `Classifier` follows the authors' word
in their repository: pairs of 3x3 convolutions with batch norm, a pooling after each pair, one hidden layer.
`ResidualClassifier` is DIAT's, and VGG-16 with a regression to -1 and 1 is MOON, with which SL-GAN labels and measures
(Rudd, Gunther and Boult 2016).
"""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from faceattr_jax import losses
from faceattr_jax.errors import UserError, check_choice
from faceattr_jax.methods.base import (
    Batch,
    Carry,
    Ctx,
    FromConfig,
    Given,
    Optimizer,
    Out,
    Phase,
    Stage,
    Variables,
    adam,
    learning_rate,
    variables_of,
)
from faceattr_jax.nn.blocks import batch_norm, conv_pairs, max_pool, shifted
from faceattr_jax.nn.conv import Conv
from faceattr_jax.nn.precision import Dense
from faceattr_jax.pretrained import vgg16, vgg_face, weights
from faceattr_jax.pretrained.vgg16 import VGG16


class Hidden(nn.Module):
    """(B, S, S, 3) -> logits (B, n), by the `maps` of a subclass, (B, ...), and one hidden layer."""

    widths: Sequence[int]
    fc: int
    attributes: int
    momentum: float
    dropout: float

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = self.maps(images, train)
        x = Dense(self.fc, use_bias=False, name="fc")(x.reshape(x.shape[0], -1))
        x = nn.relu(batch_norm(self.momentum, train, name="fc_norm")(x))
        self.sow("intermediates", "features", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Dense(self.attributes, name="logits")(x)

    @abc.abstractmethod
    def maps(self, images: jax.Array, train: bool) -> jax.Array: ...


class Classifier(Hidden):
    """widths: channels of each pair of convolutions, halving the size after each."""

    def maps(self, images: jax.Array, train: bool) -> jax.Array:
        return conv_pairs(images, self.widths, self.momentum, train)


class ResidualClassifier(Hidden):
    """widths: channels of the convolutions, each of which halves the size.

    Then `blocks` residual blocks as wide as the last of them, each with a pooling that halves the size.
    """

    blocks: int

    def maps(self, images: jax.Array, train: bool) -> jax.Array:
        def convolved(x: jax.Array, width: int, kernel: int, stride: int, name: str) -> jax.Array:
            x = Conv(width, kernel, stride, use_bias=False, name=f"conv{name}")(x)
            return batch_norm(self.momentum, train, name=f"norm{name}")(x)

        x = images
        for i, width in enumerate(self.widths):
            x = nn.relu(convolved(x, width, 4, 2, f"{i}"))
        for i in range(self.blocks):
            inner = nn.relu(convolved(x, self.widths[-1], 3, 1, f"_block{i}_0"))
            x = max_pool(nn.relu(x + convolved(inner, self.widths[-1], 3, 1, f"_block{i}_1")))
        return x


class Reading(Protocol):
    """What a network's outputs (B, n) mean. name: of its loss, as a metric."""

    @property
    def name(self) -> str: ...

    def loss(self, outputs: jax.Array, labels: jax.Array, rate: jax.Array) -> jax.Array:
        """A scalar, against 0/1 labels (B, n) of attributes that are present at `rate` (n,)."""
        ...

    def probability(self, outputs: jax.Array) -> jax.Array:
        """Of each attribute, (B, n); 1/2 for outputs of 0."""
        ...


@dataclasses.dataclass(frozen=True)
class Logits:
    """Binary cross entropy, in which a value of rate r weighs r^-balance, scaled to a mean of 1.

    So balance 0 is the plain one, and 1 gives both values of an attribute the same total weight.
    """

    balance: float
    label_smoothing: float
    name = "entropy"

    def loss(self, outputs: jax.Array, labels: jax.Array, rate: jax.Array) -> jax.Array:
        scale = rate ** (1.0 - self.balance) + (1.0 - rate) ** (1.0 - self.balance)
        value_rate = jnp.where(labels > 0.5, rate, 1.0 - rate)
        smoothed = labels * (1.0 - self.label_smoothing) + self.label_smoothing / 2.0
        return losses.sigmoid_cross_entropy(outputs, smoothed, weights=value_rate**-self.balance / scale)

    def probability(self, outputs: jax.Array) -> jax.Array:
        return nn.sigmoid(outputs)


@dataclasses.dataclass(frozen=True)
class Signs:
    """MOON's regression to -1 and 1, weighed towards attributes of rate `target` (`losses.domain_weights`).

    An output of -1 to 1, clipped, stands for a probability of 0 to 1 in proportion.
    """

    target: float
    name = "squared_error"

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise UserError(f"loss.target is {self.target}; a rate to weigh attributes towards is between 0 and 1")

    def loss(self, outputs: jax.Array, labels: jax.Array, rate: jax.Array) -> jax.Array:
        return losses.signed_regression(outputs, labels, weights=losses.domain_weights(labels, rate, self.target))

    def probability(self, outputs: jax.Array) -> jax.Array:
        return (jnp.clip(outputs, -1.0, 1.0) + 1.0) / 2.0


@dataclasses.dataclass(frozen=True, eq=False)
class AttributeClassifier(FromConfig):
    """One network, one phase. ``memory/counts`` holds how often each attribute was seen present, and all faces seen.

    From the counts come the rates by which the loss weighs the values of an attribute.
    """

    reading: Reading

    capabilities = frozenset({"classify"})

    @property
    def given(self) -> Mapping[str, Given]:
        return self._given

    @functools.cached_property
    def _given(self) -> dict[str, Given]:
        path = self.config.model.get("weights", "")
        return {"classifier": imagenet(self.networks["classifier"], path, self.config.image_size)} if path else {}

    @property
    def stages(self) -> tuple[Stage, ...]:
        normed = "batch_stats" in jax.eval_shape(self.init, jax.random.key(0))
        mutates = (*("batch_stats/classifier",) * normed, "memory/counts")
        phase = Phase("classify", ("classifier",), self.objective, mutates=mutates)
        return (Stage("train", self.config.train.iterations, (phase,)),)

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        size = self.config.image_size
        variables = self.networks["classifier"].init(key, jnp.zeros((1, size, size, 3)))
        counts = {"present": jnp.zeros(len(self.attributes)), "seen": jnp.zeros(())}
        return {**{name: {"classifier": tree} for name, tree in variables.items()}, "memory": {"counts": counts}}

    def classify(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Probability of each attribute, (B, n)."""
        own = variables_of(variables, "classifier")
        return self.reading.probability(self.networks["classifier"].apply(own, images))

    def features(self, variables: Variables, images: jax.Array) -> jax.Array:
        """What the last layer reads the attributes from, (B, fc)."""
        own = variables_of(variables, "classifier")
        _, kept = self.networks["classifier"].apply(own, images, mutable=["intermediates"])
        return kept["intermediates"]["features"][0]

    def objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """The loss of the reading, a mean over attributes, plus l2 / 2 times the kernels' squared norm."""
        labels = batch["labels"]
        images = shifted(jax.random.fold_in(ctx.key, 0), batch["images"], self.config.shift)
        outputs, new = self.networks["classifier"].apply(
            variables_of(variables, "classifier"),
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(ctx.key, 1)},
        )
        counts = jax.tree.map(
            jnp.add, variables["memory"]["counts"], {"present": labels.sum(0), "seen": jnp.float32(len(labels))}
        )
        rate = (counts["present"] + 1.0) / (counts["seen"] + 2.0)
        error = self.reading.loss(outputs, labels, rate)
        kernels = [leaf for leaf in jax.tree.leaves(variables["params"]["classifier"]) if leaf.ndim > 1]
        penalty = 0.5 * sum(jnp.sum(kernel**2) for kernel in kernels)
        return Out(
            losses={"classifier": error + self.config.loss.l2 * penalty},
            mutated={**{f"{kind}/classifier": tree for kind, tree in new.items()}, "memory/counts": counts},
            metrics={self.reading.name: error, "accuracy": jnp.mean((outputs > 0) == (labels > 0.5))},
        )


def imagenet(network: VGG16, path: str, image_size: int) -> Given:
    """What ImageNet taught a VGG-16, all but its last layer, from torchvision's file at `path` or in that folder."""
    if image_size != vgg_face.SIZE:
        raise UserError(
            f"model.weights are for images of {vgg_face.SIZE} pixels, and image_size is {image_size}; set "
            f"image_size={vgg_face.SIZE}, or model.weights to nothing"
        )
    file, sha256 = weights.find(weights.VGG16, path)
    params = vgg16.read(file, network.clone(outputs=1000))["params"]
    return Given("vgg16", sha256, {"params": {name: layer for name, layer in params.items() if name != "fc8"}})


def _hidden(network: type[Hidden], config: ml_collections.ConfigDict, **own: Any) -> Hidden:
    model = config.model
    return network(
        tuple(model.widths), model.fc, len(config.attributes), model.batch_norm_momentum, model.dropout, **own
    )


NETWORKS: dict[str, Callable[[ml_collections.ConfigDict], nn.Module]] = {
    "pairs": functools.partial(_hidden, Classifier),
    "residual": lambda config: _hidden(ResidualClassifier, config, blocks=config.model.blocks),
    "vgg16": lambda config: VGG16(len(config.attributes), config.model.width, config.model.fc),
}
READINGS: dict[str, Callable[[ml_collections.ConfigDict], Reading]] = {
    "logits": lambda loss: Logits(loss.balance, loss.label_smoothing),
    "signs": lambda loss: Signs(loss.target),
}


def build(config: ml_collections.ConfigDict) -> AttributeClassifier:
    """The classifier as `config` describes it (configs/classifier_128.py says what each key means).

    A config that names neither network nor outputs has pairs of convolutions and logits.
    """
    network, outputs = config.model.get("network", "pairs"), config.loss.get("outputs", "logits")
    check_choice("model.network", network, NETWORKS)
    check_choice("loss.outputs", outputs, READINGS)
    optimizer = Optimizer(("classifier",), adam(config), learning_rate(config))
    return AttributeClassifier(
        config, {"classifier": NETWORKS[network](config)}, {"classifier": optimizer}, READINGS[outputs](config.loss)
    )
