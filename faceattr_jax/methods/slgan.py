"""SL-GAN: semi-latent GAN, learning to generate and modify facial images from attributes (Yin, Fu, Sigal, Xue; 2017).

A face is described by user-defined attributes y, which somebody has labelled, and latent ones z, which are learned.
Enc maps a face to q(z|x), a Gaussian; Dec draws a face from (z, y); D tells real from drawn; and the recognition
network Q, D's sibling in all but the last layer, reads z and y off a face. An iteration has three stages (section 3.4):
reconstruct a face with its own attributes, modify it with others, and generate one from the prior. In each, every
network follows its own loss (eqs. 3 and 4) from one pass; the encoder learns in the first alone. Where the paper is
silent, which is on all layers and weights, the choice is a config key. Chosen here, for it leaves them open, too: every
term stands in the stage that samples it, D_l in those that have a face to compare with; Q(z|x) has unit variance; D's
averages follow real faces; an edit takes the mean of q(z|x).

Images are (B, S, S, 3) in [-1, 1], z is (B, d), y is 0/1 (B, n).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from faceattr_jax import losses
from faceattr_jax.errors import check_choice
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
    edited_signs,
    learning_rate,
    sampler,
    variables_of,
)
from faceattr_jax.nn.blocks import batch_norm
from faceattr_jax.nn.conv import Conv, ConvTranspose
from faceattr_jax.nn.precision import Dense, full

KERNEL = 5


class Encoder(nn.Module):
    """Enc: (B, S, S, 3) -> mean and log variance of q(z|x), (B, latents) each."""

    widths: Sequence[int]
    fc: int
    latents: int
    momentum: float

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        x = images
        for i, width in enumerate(self.widths):
            x = Conv(width, KERNEL, 2, use_bias=False, name=f"conv{i}")(x)
            x = nn.relu(batch_norm(self.momentum, train, name=f"norm{i}")(x))
        x = Dense(self.fc, use_bias=False, name="fc")(x.reshape(x.shape[0], -1))
        x = nn.relu(batch_norm(self.momentum, train, name="fc_norm")(x))
        return Dense(self.latents, name="mean")(x), Dense(self.latents, name="log_variance")(x)


class Decoder(nn.Module):
    """Dec, the generator: [z, y] (B, d + n) -> (B, S, S, 3) in [-1, 1].

    start: height, width and channels of the map that the fully connected layer makes; each of `widths` doubles it.
    """

    start: tuple[int, int, int]
    widths: Sequence[int]
    momentum: float

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        height, width, channels = self.start
        x = Dense(height * width * channels, use_bias=False, name="fc")(jnp.concatenate([latents, labels], axis=-1))
        x = x.reshape(-1, height, width, channels)
        x = nn.relu(batch_norm(self.momentum, train, name="fc_norm")(x))
        for i, features in enumerate(self.widths):
            x = ConvTranspose(features, KERNEL, 2, use_bias=False, name=f"deconv{i}")(x)
            x = nn.relu(batch_norm(self.momentum, train, name=f"norm{i}")(x))
        return jnp.tanh(full(Conv(3, KERNEL, name="rgb")(x)))


class Seen(NamedTuple):
    """What D and Q say of images: logit of being real (B,), mean of Q(z|x) (B, d), logits of y (B, n), and D_l."""

    real: jax.Array
    latents: jax.Array
    labels: jax.Array
    features: jax.Array


class Discriminator(nn.Module):
    """D and Q, shared but for the heads. D_l, which compares faces, is the last convolution before its norm."""

    widths: Sequence[int]  # the first at full size, every other halves it
    fc: int
    latents: int
    attributes: int
    momentum: float

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Seen:
        first, *others = self.widths
        x = nn.relu(Conv(first, KERNEL, name="conv0")(images))
        features = x
        for i, width in enumerate(others, 1):
            features = Conv(width, KERNEL, 2, use_bias=False, name=f"conv{i}")(x)
            x = nn.relu(batch_norm(self.momentum, train, name=f"norm{i}")(features))
        x = Dense(self.fc, use_bias=False, name="fc")(x.reshape(x.shape[0], -1))
        x = nn.relu(batch_norm(self.momentum, train, name="fc_norm")(x))
        return Seen(
            Dense(1, name="real")(x)[:, 0],
            Dense(self.latents, name="latents")(x),
            Dense(self.attributes, name="labels")(x),
            features,
        )


class SLGAN(FromConfig):
    """The method: see the module's docstring, and `methods.base.Method` for the fields."""

    capabilities = frozenset({"classify", "edit", "generate", "reconstruct"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        moving = ("batch_stats/decoder", "batch_stats/discriminator")
        learners = ("decoder", "discriminator")
        phases = (
            Phase(
                "reconstruction",
                ("encoder", *learners),
                self.reconstruction_objective,
                mutates=("batch_stats/encoder", *moving),
                draw="update",
            ),
            Phase("modification", learners, self.modification_objective, mutates=moving, draw="update"),
            Phase("generation", learners, self.generation_objective, mutates=moving, draw="update"),
        )
        return (Stage("train", self.config.train.iterations, phases, sampler(self.config)),)

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        size, n = self.config.image_size, len(self.attributes)
        images = jnp.zeros((1, size, size, 3))
        inputs = {
            "encoder": (images,),
            "decoder": (jnp.zeros((1, self.config.model.latents)), jnp.zeros((1, n))),
            "discriminator": (images,),
        }
        keys = jax.random.split(key, len(inputs))
        made = {name: self.networks[name].init(k, *inputs[name]) for name, k in zip(inputs, keys, strict=True)}
        return {c: {name: variables[c] for name, variables in made.items()} for c in ("params", "batch_stats")}

    # Inference.

    def encode(self, variables: Variables, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log variance of q(z|x)."""
        return self.networks["encoder"].apply(variables_of(variables, "encoder"), images)

    def decode(self, variables: Variables, latents: jax.Array, labels: jax.Array) -> jax.Array:
        """Dec(z, y)."""
        return self.networks["decoder"].apply(variables_of(variables, "decoder"), latents, labels)

    def classify(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Probability of each attribute by the model's own Q, (B, n). Not a judge: it was trained beside Dec."""
        return nn.sigmoid(self.networks["discriminator"].apply(variables_of(variables, "discriminator"), images).labels)

    def edit(self, variables: Variables, images: jax.Array, request: EditRequest) -> jax.Array:
        """Dec(z, y) with z the mean of q(z|x) and the requested y; the source attributes default to what Q reads."""
        source = self.own(variables, images, request.source)
        signs = edited_signs(source, request.target, request.strength, request.named)
        return self.decode(variables, self.encode(variables, images)[0], (signs + 1.0) / 2.0)

    def reconstruct(self, variables: Variables, images: jax.Array, labels: jax.Array) -> jax.Array:
        """Dec(z, y) with z the mean of q(z|x) and the images' own labels 0/1 (B, n)."""
        return self.decode(variables, self.encode(variables, images)[0], labels)

    def generate(self, variables: Variables, key: jax.Array, labels: jax.Array) -> jax.Array:
        """Faces (B, S, S, 3) with the attributes `labels` 0/1 (B, n), their z drawn by `draw_latents`."""
        return self.decode(variables, self.draw_latents(key, len(labels)), labels)

    def draw_latents(self, key: jax.Array, count: int) -> jax.Array:
        """z from the prior N(0, I), (count, d)."""
        return jax.random.normal(key, (count, self.config.model.latents))

    # Training.

    def reconstruction_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """Stage 1, y ~ p(y|x) and z ~ q(z|x): Enc by L_VAE, Dec by eq. 3, D by eq. 4; Q learns from real faces, too."""
        weights = self.config.loss
        images, labels = batch["images"], batch["labels"]
        (mean, log_variance), encoder_stats = self._train("encoder", variables, images)
        latents = _sample(ctx.key, mean, log_variance)
        # Dec's and D's losses are not the encoder's: the executor takes each network's gradient of its own loss alone.
        fake, real, seen, stats = self._draw(variables, images, latents, labels)
        pixels = 0.5 * jnp.sum((fake - images) ** 2) / len(images)
        prior = losses.standard_normal_kl(mean, log_variance)
        out = self._adversaries(real, seen, latents, labels, compared=True)
        own_latents = losses.gaussian(real.latents, jax.lax.stop_gradient(latents))
        own_labels = losses.sigmoid_cross_entropy(real.labels, labels)
        return Out(
            losses={
                "encoder": prior + pixels,
                "decoder": out["decoder"] + weights.decoder_pixels * pixels,
                "discriminator": out["discriminator"] + own_labels + own_latents,
            },
            mutated={"batch_stats/encoder": encoder_stats, **stats},
            metrics={"prior": prior, "pixels": pixels, "own_labels": own_labels, **out["metrics"]},
        )

    def modification_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """Stage 2, y ~ p(y) and z ~ q(z|x) of a frozen Enc: Dec by eq. 3, whose D_l keeps the identity; D by eq. 4."""
        images, labels = batch["images"], batch["labels"]
        latent_key, label_key = jax.random.split(ctx.key)
        # The encoder normalises with the batch's statistics as in stage 1, and moves neither weights nor averages.
        moments, _ = self._train("encoder", variables, images)
        latents = jax.lax.stop_gradient(_sample(latent_key, *moments))
        return self._play(variables, images, latents, jax.random.permutation(label_key, labels), compared=True)

    def generation_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """Stage 3, y ~ p(y) and z ~ N(0, I): Dec by eq. 3 without D_l, for want of a face; D by eq. 4."""
        images, labels = batch["images"], batch["labels"]
        latent_key, label_key = jax.random.split(ctx.key)
        latents = self.draw_latents(latent_key, len(images))
        return self._play(variables, images, latents, jax.random.permutation(label_key, labels), compared=False)

    def _play(
        self, variables: Variables, images: jax.Array, latents: jax.Array, labels: jax.Array, *, compared: bool
    ) -> Out:
        """Dec and D on faces drawn from (latents, labels)."""
        _, real, seen, stats = self._draw(variables, images, latents, labels)
        out = self._adversaries(real, seen, latents, labels, compared=compared)
        return Out(
            losses={name: out[name] for name in ("decoder", "discriminator")}, mutated=stats, metrics=out["metrics"]
        )

    def _draw(
        self, variables: Variables, images: jax.Array, latents: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, Seen, Seen, dict[str, Any]]:
        """Dec(z, y), what D and Q say of the images and of it, and the averages moved by this.

        Real and drawn faces are normalised each by their own statistics; the averages follow those of real ones,
        which is what `classify` will be shown.
        """
        fake, decoder_stats = self._train("decoder", variables, latents, labels)
        real, discriminator_stats = self._train("discriminator", variables, images)
        seen, _ = self._train("discriminator", variables, fake)
        return fake, real, seen, {
            "batch_stats/decoder": decoder_stats,
            "batch_stats/discriminator": discriminator_stats,
        }  # fmt: skip

    def _adversaries(
        self, real: Seen, fake: Seen, latents: jax.Array, labels: jax.Array, *, compared: bool
    ) -> dict[str, Any]:
        """Eqs. 3 and 4 on drawn faces. compared: with the error of D_l, where they are drawn from those of `real`."""
        weights = self.config.loss
        recognised_latents = losses.gaussian(fake.latents, jax.lax.stop_gradient(latents))
        recognised_labels = losses.sigmoid_cross_entropy(fake.labels, labels)
        adversarial = losses.GAN_GENERATORS[weights.adversarial](fake.real)
        decoder = adversarial + weights.recognition * (recognised_latents + recognised_labels)
        discriminator = losses.gan_discriminator(real.real, fake.real)
        metrics = {
            "adversarial": adversarial,
            "recognised_latents": recognised_latents,
            "recognised_labels": recognised_labels,
        }
        if compared:
            error = 0.5 * losses.l2(fake.features, real.features)
            decoder += weights.feature_reconstruction * error
            metrics["features"] = error
        return {"decoder": decoder, "discriminator": discriminator + recognised_latents, "metrics": metrics}

    def _train(self, network: str, variables: Variables, *inputs: jax.Array) -> tuple[Any, Any]:
        """A network's output and its moved averages."""
        own = variables_of(variables, network)
        out, new = self.networks[network].apply(own, *inputs, train=True, mutable=["batch_stats"])
        return out, new["batch_stats"]


def _sample(key: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """z ~ q(z|x), differentiable in the moments."""
    return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)


def build(config: ml_collections.ConfigDict) -> SLGAN:
    """SL-GAN as `config` describes it (configs/slgan_64.py says what each key means)."""
    check_choice("loss.adversarial", config.loss.adversarial, losses.GAN_GENERATORS)
    model = config.model

    def scaled(multiples: Sequence[float]) -> tuple[int, ...]:
        return tuple(round(multiple * model.width) for multiple in multiples)

    side = config.image_size // 2 ** len(model.decoder)
    fc, latents, momentum = round(model.fc * model.width), model.latents, model.batch_norm_momentum
    networks = {
        "encoder": Encoder(scaled(model.encoder), fc, latents, momentum),
        "decoder": Decoder((side, side, *scaled([model.decoder_start])), scaled(model.decoder), momentum),
        "discriminator": Discriminator(
            scaled(model.discriminator),
            round(model.discriminator_fc * model.width),
            latents,
            len(config.attributes),
            momentum,
        ),
    }
    optimizers = {name: Optimizer((name,), adam(config), learning_rate(config)) for name in networks}
    return SLGAN(config, networks, optimizers)
