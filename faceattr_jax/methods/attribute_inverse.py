"""The attribute-inverse GAN: one generator that turns a face's attribute into its opposite (paper 5; no code exists).

G sees an image x and nothing else. It must perceive which value the attribute has and return x with the other one,
so that G(G(x)) is x again. D has two heads: Ds tells real from generated (eq. 1), Dc reads the attribute off real
images (eq. 2) and so teaches G to invert it (eq. 3). Pixels (eq. 4) and D's features (eq. 5) of G(G(x)) must be
those of x. G is a U-Net whose skips pass through 1x1 filters, few enough that the attribute cannot slip through.
One model knows one attribute. Layer widths live in the config; where the paper is silent the choice is a config key.
Chosen here: D's features are its shared convolutions, without the heads; the filters of skips are linear.
"""

from collections.abc import Sequence
from typing import Any

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
    EditRequest,
    FromConfig,
    Optimizer,
    Out,
    Phase,
    Stage,
    Variables,
    adam,
    learning_rate,
    sampler,
)
from faceattr_jax.nn.blocks import instance_noise, interleave, separate, xavier
from faceattr_jax.nn.conv import Conv
from faceattr_jax.nn.precision import full
from faceattr_jax.nn.unet import UNet


class Discriminator(nn.Module):
    """Ds and Dc: shared strided convolutions with leaky ReLU, then one convolution per head.

    (B, S, S, 3) -> Ds's logits of overlapping patches (B, s, s), Dc's logits (B, n), and the shared layers' outputs,
    finest first.
    """

    widths: Sequence[int]
    attributes: int
    leak: float

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        x, features = images, []
        for i, width in enumerate(self.widths):
            x = nn.leaky_relu(Conv(width, 4, 2, kernel_init=xavier, name=f"conv{i}")(x), self.leak)
            features.append(x)
        patches = Conv(1, 3, use_bias=False, kernel_init=xavier, name="source")(x)
        whole = Conv(self.attributes, x.shape[1], padding="VALID", use_bias=False, kernel_init=xavier, name="class")(x)
        return full(patches[..., 0]), full(whole[:, 0, 0]), features


class AttributeInverse(FromConfig):
    """The method: see the module's docstring, and `methods.base.Method` for the fields."""

    capabilities = frozenset({"classify", "edit", "reconstruct"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        phases = (
            Phase("discriminator", ("discriminator",), self.discriminator_objective),
            Phase("generator", ("generator",), self.generator_objective),
        )
        return (Stage("train", self.config.train.iterations, phases, sampler(self.config)),)

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        images = jnp.zeros((1, self.config.image_size, self.config.image_size, 3))
        keys = jax.random.split(key)
        names = ("generator", "discriminator")
        return {
            "params": {name: self.networks[name].init(k, images)["params"] for name, k in zip(names, keys, strict=True)}
        }

    # Inference.

    def invert(self, variables: Variables, images: jax.Array) -> jax.Array:
        """G(x): the images with the other value of the attribute, (B, S, S, 3)."""
        return self.networks["generator"].apply({"params": variables["params"]["generator"]}, images)

    def classify(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Probability of the attribute by the model's own Dc, (B, 1). Not a judge: it was trained beside G."""
        return nn.sigmoid(self._discriminate(variables, images)[1])

    def edit(self, variables: Variables, images: jax.Array, request: EditRequest) -> jax.Array:
        """G(x) where the wanted value is not the source's, which defaults to what Dc reads; elsewhere x itself.

        The paper knows no strength. Here it blends: 0 is the image (not a reconstruction), 1 is G(x), and beyond 1
        the difference is extrapolated and clipped to [-1, 1].
        """
        source = self.own(variables, images, request.source)
        blend = (1.0 - request.strength) * images + request.strength * self.invert(variables, images)
        inverts = jnp.any(source != request.target, axis=-1)[:, None, None, None]
        return jnp.where(inverts, jnp.clip(blend, -1.0, 1.0), images)

    def reconstruct(self, variables: Variables, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """G(G(x)), whatever the labels."""
        return self.invert(variables, self.invert(variables, images))

    # Training.

    def discriminator_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """min over D of -L_adv + l4 L_cls_real (eq. 7); Dc sees real images only."""
        images, labels = batch["images"], batch["labels"]
        fake = jax.lax.stop_gradient(self.invert(variables, images))
        # D normalises nothing, so real and fake images may share one pass.
        both = interleave(*self._noisy(ctx, jnp.stack([images, fake])))
        patches, logits, _ = self._discriminate(variables, both)
        adversarial = losses.gan_discriminator(*separate(patches))
        classification = losses.sigmoid_cross_entropy(separate(logits)[0], labels)
        return Out(
            losses={
                "discriminator": adversarial + self.config.loss.discriminator_classification * classification,
            },
            metrics={"adversarial": adversarial, "classification": classification},
        )

    def generator_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """min over G of L_adv + l1 L_cls_fake + l2 L_rec + l3 L_fm (eq. 6), and what the config adds to it."""
        weights = self.config.loss
        images, labels = batch["images"], batch["labels"]
        fake = self.invert(variables, images)
        seen = self._noisy(ctx, fake)
        back = self.invert(variables, seen)
        patches, logits, _ = self._discriminate(variables, seen)
        adversarial = losses.GAN_GENERATORS[weights.adversarial](patches)
        classification = losses.sigmoid_cross_entropy(logits, 1.0 - labels)
        reconstruction = losses.l1(back, images)
        change = losses.l1(fake, images)
        matching = losses.feature_matching(
            self._discriminate(variables, images)[2],
            self._discriminate(variables, back)[2],
            per=weights.feature_matching_per,
        )
        return Out(
            losses={
                "generator": adversarial
                + weights.generator_classification * classification
                + weights.reconstruction * reconstruction
                + weights.feature_matching * matching
                + weights.change * change
            },
            metrics={
                "adversarial": adversarial,
                "classification": classification,
                "reconstruction": reconstruction,
                "feature_matching": matching,
                "change": change,
            },
        )

    def _discriminate(self, variables: Variables, images: jax.Array) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        return self.networks["discriminator"].apply({"params": variables["params"]["discriminator"]}, images)

    def _noisy(self, ctx: Ctx, images: jax.Array) -> jax.Array:
        """What D, C and G's second pass are shown of images in training: no trace that nobody sees is left in them."""
        return instance_noise(ctx.key, images, self.config.model.instance_noise)


def skip_filters(widths: Sequence[int], kind: str, fine: int) -> tuple[int, ...]:
    """1x1 filters of each skip of the U-Net, finest first (section 2.2); empty where the skips stay whole.

    kind: ``"filtered"``: a quarter of the maps' number on the `fine` finest skips, half on the others, at least one;
    ``"full"``: the plain U-Net that the paper argues against.
    """
    if kind == "full":
        return ()
    return tuple(max(1, width // (4 if i < fine else 2)) for i, width in enumerate(widths[:-1]))


def build(config: ml_collections.ConfigDict) -> AttributeInverse:
    """The method as `config` describes it (configs/attribute_inverse_128.py says what each key means).

    Raises `UserError` for more than one attribute and for unknown choices.
    """
    model = config.model
    check_choice("loss.adversarial", config.loss.adversarial, losses.GAN_GENERATORS)
    check_choice("loss.feature_matching_per", config.loss.feature_matching_per, ("element", "pixel"))
    check_choice("model.skips", config.model.skips, ("filtered", "full"))
    if len(config.attributes) != 1:
        raise UserError(
            f"an attribute-inverse model inverts one attribute, not {len(config.attributes)}; give one, such as "
            "--config.attributes=Eyeglasses, and train a model for each"
        )
    widths = tuple(multiple * model.width for multiple in model.generator)
    networks = {
        "generator": UNet(widths, skip_filters(widths, model.skips, model.fine_skips), norm=model.norm),
        "discriminator": Discriminator(
            tuple(multiple * model.width for multiple in model.discriminator), len(config.attributes), model.leak
        ),
    }
    optimizers = {name: Optimizer((name,), adam(config), learning_rate(config)) for name in networks}
    return AttributeInverse(config, networks, optimizers)
