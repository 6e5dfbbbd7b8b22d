"""AttGAN: facial attribute editing by only changing what you want (He, Zuo, Kan, Shan, Chen; arXiv 1711.10678v1).

An encoder turns an image x with attributes a into a latent z; a decoder turns z and any attributes b into an image.
No ground truth exists for b != a, so three constraints stand in for it: a classifier C must read b off Dec(z, b)
(eqs. 6-9), a critic D must find it real (eqs. 11-12, WGAN-GP), and Dec(z, a) must equal x (eq. 10). C and D share
their convolutions. Layer tables 1 and 2 live in the configs; where the paper is silent the choice is a config key.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from faceattr_jax import attributes as attribute_names
from faceattr_jax import losses
from faceattr_jax.errors import check_choice
from faceattr_jax.methods.base import (
    Batch,
    Carry,
    Ctx,
    EditRequest,
    FromConfig,
    Objective,
    Optimizer,
    Out,
    Phase,
    Stage,
    Variables,
    adam,
    check_trainable,
    edited_signs,
    learning_rate,
    sampler,
    variables_of,
)
from faceattr_jax.nn.blocks import (
    LEAK,
    Convolutions,
    instance_noise,
    interleave,
    norm,
    sample_norm,
    separate,
    tile,
    xavier,
)
from faceattr_jax.nn.conv import Conv, ConvTranspose
from faceattr_jax.nn.precision import Dense, full

Layer = tuple[int, int, int]  # features, kernel, stride


class Encoder(nn.Module):
    """G_enc: convolution, batch norm (or another `blocks.norm`), leaky ReLU per layer.

    (B, S, S, 3) -> the output of every layer, the latent z last: at 128 px (B, 4, 4, 1024).
    """

    layers: Sequence[Layer]
    norm: str
    momentum: float
    leak: float = LEAK
    epsilon: float | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> list[jax.Array]:
        features = [images]
        for i, (width, kernel, stride) in enumerate(self.layers):
            x = Conv(width, kernel, stride, use_bias=False, kernel_init=xavier, name=f"conv{i}")(features[-1])
            x = norm(x, self.norm, self.momentum, train, epsilon=self.epsilon, name=f"norm{i}")
            features.append(nn.leaky_relu(x, self.leak))
        return features[1:]


class Decoder(nn.Module):
    """G_dec: transposed convolution, norm as in the encoder, ReLU per layer; the last layer is `rgb` with tanh.

    features: the encoder's outputs; code: (B, n). After layer i < skips the encoder's output of the same size joins
    the channels, and after layer i < injections the tiled code does once more. -> (B, S, S, 3) in [-1, 1].
    """

    layers: Sequence[Layer]
    rgb: tuple[int, int]  # kernel, stride
    norm: str
    momentum: float
    skips: int = 0
    injections: int = 0
    epsilon: float | None = None

    @nn.compact
    def __call__(self, features: Sequence[jax.Array], code: jax.Array, train: bool = False) -> jax.Array:
        x = tile(features[-1], code)
        for i, (width, kernel, stride) in enumerate(self.layers):
            x = ConvTranspose(width, kernel, stride, use_bias=False, kernel_init=xavier, name=f"deconv{i}")(x)
            x = nn.relu(norm(x, self.norm, self.momentum, train, epsilon=self.epsilon, name=f"norm{i}"))
            if i < self.skips:
                x = jnp.concatenate([x, features[-2 - i]], axis=-1)
            if i < self.injections:
                x = tile(x, code)
        kernel, stride = self.rgb
        return jnp.tanh(full(ConvTranspose(3, kernel, stride, kernel_init=xavier, name="rgb")(x)))


class Discriminator(nn.Module):
    """D and C: shared convolutions, then a head of two fully connected layers each.

    (B, S, S, 3) -> critic values (B,), attribute logits (B, n). norm: ``"layer"`` (the paper) or ``"instance"``.
    """

    layers: Sequence[Layer]
    fc: int
    attributes: int
    norm: str
    fc_norm: bool
    leak: float = LEAK
    fc_leak: float = LEAK
    epsilon: float | None = None

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = Convolutions(self.layers, self.norm, self.leak, self.epsilon, name="shared")(images)
        x = x.reshape(x.shape[0], -1)

        def head(name: str, outputs: int) -> jax.Array:
            h = Dense(self.fc, use_bias=not self.fc_norm, kernel_init=xavier, name=f"{name}_hidden")(x)
            if self.fc_norm:
                h = sample_norm(h, "layer", epsilon=self.epsilon, name=f"{name}_norm")
            return Dense(outputs, kernel_init=xavier, name=name)(nn.leaky_relu(h, self.fc_leak))

        return head("critic", 1)[:, 0], head("classifier", self.attributes)


def code_values(signs: jax.Array, scale: str) -> jax.Array:
    """Signed attributes (-1 absent, 1 present, beyond for stronger) as the numbers that the decoder is fed.

    ``zero_one``: 0 and 1 (the paper); ``half``: -0.5 and 0.5 (released v1); ``one``: -1 and 1 (released v2).
    """
    return {"zero_one": (signs + 1) / 2, "half": signs / 2, "one": signs}[scale]


class AttGAN(FromConfig):
    """The method: see the module's docstring, and `methods.base.Method` for the fields."""

    capabilities = frozenset({"classify", "edit", "reconstruct"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        check_trainable(self.config)
        moving = ("batch_stats/encoder", "batch_stats/decoder")
        critic = Phase(
            "critic",
            ("critic",),
            self.critic_objective,
            mutates=moving,
            repeats=self.config.critic_updates,
            draw="update",
        )
        generator = Phase("generator", ("generator",), self.generator_objective, mutates=moving, draw="update")
        return (
            Stage("train", self.config.train.iterations, (critic, *self.opponents, generator), sampler(self.config)),
        )

    @property
    def opponents(self) -> tuple[Phase, ...]:
        """The training of what an extension sets against z beside D; AttGAN sets nothing."""
        return ()

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        size, n = self.config.image_size, len(self.attributes)
        images, code = jnp.zeros((1, size, size, 3)), jnp.zeros((1, n))
        keys = jax.random.split(key, 3)
        encoder = self.networks["encoder"].init(keys[0], images)
        features = jax.eval_shape(lambda v: self.networks["encoder"].apply(v, images), encoder)
        features = jax.tree.map(lambda f: jnp.zeros(f.shape, f.dtype), features)
        decoder = self.networks["decoder"].init(keys[1], features, code)
        params = {"encoder": encoder["params"], "decoder": decoder["params"]}
        if "discriminator" in self.networks:
            params["discriminator"] = self.networks["discriminator"].init(keys[2], images)["params"]
        return {
            "params": params,
            "batch_stats": {"encoder": encoder.get("batch_stats", {}), "decoder": decoder.get("batch_stats", {})},
        }

    # Inference.

    def encode(self, variables: Variables, images: jax.Array) -> list[jax.Array]:
        """z = Enc(x), eq. 3, with the encoder's other outputs for skip connections."""
        return self.networks["encoder"].apply(variables_of(variables, "encoder"), images)

    def decode(self, variables: Variables, features: Sequence[jax.Array], signs: jax.Array) -> jax.Array:
        """x^b = Dec(z, b), eq. 4; signs as in `code_values`."""
        code = self._code(variables, features, signs)
        return self.networks["decoder"].apply(variables_of(variables, "decoder"), features, code)

    def classify(self, variables: Variables, images: jax.Array) -> jax.Array:
        """Probability of each attribute by the model's own C, (B, n). Not a judge: it was trained beside G."""
        return nn.sigmoid(self._discriminate(variables, images)[1])

    def edit(self, variables: Variables, images: jax.Array, request: EditRequest) -> jax.Array:
        """Images with the requested attributes, (B, S, S, 3); the source attributes default to what C reads."""
        source = self.own(variables, images, request.source)
        signs = edited_signs(source, request.target, request.strength, request.named)
        return self.decode(variables, self.encode(variables, images), signs)

    def reconstruct(self, variables: Variables, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """x^a = Dec(Enc(x), a), eq. 5; labels 0/1 (B, n), which default to what C reads."""
        signs = 2.0 * self.own(variables, images, labels) - 1.0
        return self.decode(variables, self.encode(variables, images), signs)

    # Training.

    def critic_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """min over D, C of l3 L_cls_c + L_adv_d + gradient penalty (eq. 14).

        The paper's C sees real images only. `loss.trace_classification` above 0 has it look for the source's attributes
        in edits, too: one that stops half-way, where C is sure already, gives its source away and is driven on.
        """
        weights = self.config.loss
        images, labels = batch["images"], batch["labels"]
        shuffle_key, penalty_key, noise_key = jax.random.split(ctx.key, 3)
        features, encoder_stats = self._train_encode(variables, images)
        signs = self._signs(ctx, self._targets(shuffle_key, labels))
        fake, decoder_stats = self._train_decode(variables, features, signs)
        # The critic has no batch statistics, so real and fake images may share one pass.
        real, fake = self._noisy(noise_key, jnp.stack([images, jax.lax.stop_gradient(fake)]))
        values, logits = self._discriminate(variables, interleave(real, fake))
        adversarial = losses.wasserstein_critic(*separate(values))
        penalty = losses.gradient_penalty(lambda x: self._discriminate(variables, x)[0], real, fake, penalty_key)
        real_logits, fake_logits = separate(logits)
        classification = losses.sigmoid_cross_entropy(real_logits, labels)
        traces = losses.sigmoid_cross_entropy(fake_logits, labels)
        return Out(
            losses={
                "critic": adversarial
                + weights.gradient_penalty * penalty
                + weights.critic_classification * classification
                + weights.trace_classification * traces
            },
            mutated={"batch_stats/encoder": encoder_stats, "batch_stats/decoder": decoder_stats},
            metrics={
                "distance": -adversarial,
                "penalty": penalty,
                "classification": classification,
                "traces": traces,
            },
        )

    def generator_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """min over Enc, Dec of l1 L_rec + l2 L_cls_g + L_adv_g (eq. 13).

        The decoder runs twice, on b and then on a; each pass normalises with its own batch statistics and moves
        the averages.
        """
        weights = self.config.loss
        images, labels = batch["images"], batch["labels"]
        target_key, noise_key = jax.random.split(ctx.key)
        target = self._targets(target_key, labels)
        features, encoder_stats = self._train_encode(variables, images)
        fake, decoder_stats = self._train_decode(variables, features, self._signs(ctx, target))
        reconstruction, decoder_stats = self._train_decode(variables, features, 2.0 * labels - 1.0, decoder_stats)
        values, logits = self._discriminate(variables, self._noisy(noise_key, fake))
        adversarial = losses.wasserstein_generator(values)
        classification = losses.sigmoid_cross_entropy(logits, target)
        distance = losses.l1(reconstruction, images)
        constraint, metrics = self._constrain(variables, features, labels, ctx)
        return Out(
            losses={
                "generator": weights.reconstruction * distance
                + weights.generator_classification * classification
                + adversarial
                + constraint
            },
            mutated={"batch_stats/encoder": encoder_stats, "batch_stats/decoder": decoder_stats},
            metrics={
                "adversarial": adversarial,
                "classification": classification,
                "reconstruction": distance,
                **metrics,
            },
        )

    def _constrain(
        self, variables: Variables, features: Sequence[jax.Array], labels: jax.Array, ctx: Ctx
    ) -> tuple[jax.Array | float, Mapping[str, jax.Array]]:
        """What an extension demands of z, as a loss of the generator, and metrics; AttGAN demands nothing."""
        return 0.0, {}

    def _code(self, variables: Variables, features: Sequence[jax.Array], signs: jax.Array) -> jax.Array:
        """What the decoder is fed, (B, n)."""
        return code_values(signs, self.config.model.code)

    def _targets(self, key: jax.Array, labels: jax.Array) -> jax.Array:
        return TARGETS[self.config.targets](key, labels, self.attributes)

    def _signs(self, ctx: Ctx, target: jax.Array) -> jax.Array:
        """b with signs, as strong as `b_distribution` has it; C is to read b itself, of any strength."""
        signs = 2.0 * target - 1.0
        if not self.config.get("b_distribution"):
            return signs
        # The objectives split ctx.key in three at most, which are its folds 0 to 2.
        return signs * STRENGTHS[self.config.b_distribution](jax.random.fold_in(ctx.key, 3), signs.shape)

    def _noisy(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """What D and C are shown in training."""
        return instance_noise(key, images, self.config.model.instance_noise)

    def _discriminate(self, variables: Variables, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self.networks["discriminator"].apply({"params": variables["params"]["discriminator"]}, images)

    def _train_encode(self, variables: Variables, images: jax.Array) -> tuple[list[jax.Array], Any]:
        features, new = self.networks["encoder"].apply(
            variables_of(variables, "encoder"), images, train=True, mutable=["batch_stats"]
        )
        return features, new.get("batch_stats", {})

    def _train_decode(
        self, variables: Variables, features: Sequence[jax.Array], signs: jax.Array, stats: Any = None
    ) -> tuple[jax.Array, Any]:
        code = self._code(variables, features, signs)
        own = variables_of(variables, "decoder")
        own = own if stats is None else {**own, "batch_stats": stats}
        images, new = self.networks["decoder"].apply(own, features, code, train=True, mutable=["batch_stats"])
        return images, new.get("batch_stats", {})


def opponent(config: ml_collections.ConfigDict, name: str, objective: Objective) -> Phase:
    """The training of what an extension sets against z, by the optimizer of that name.

    Runs from before `opponent_updates` updated it as often as D.
    """
    updates = config.get("opponent_updates", config.critic_updates)
    return Phase(name, (name,), objective, mutates=("batch_stats/encoder",), repeats=updates, draw="update")


class Generator(AttGAN):
    """AttGAN without D and C, as some files have it: it cannot train, nor read attributes off a face."""

    capabilities = AttGAN.capabilities - {"classify"}


def shuffled_targets(key: jax.Array, labels: jax.Array, names: Sequence[str]) -> jax.Array:
    """b as the batch's own label vectors, permuted: the released code's reading of p_attr."""
    return jax.random.permutation(key, labels, axis=0)


def inverted_targets(key: jax.Array, labels: jax.Array, names: Sequence[str]) -> jax.Array:
    """b as in `shuffled_targets` for half of the batch; for the other, a with one attribute inverted.

    What the inversion rules out goes to 0 (`attributes.CONFLICTS`). Every attribute is inverted equally often, so the
    rare ones, which a shuffle hardly ever asks for, are learned from a small data set, too.
    """
    shuffle_key, choice_key = jax.random.split(key)
    chosen = jax.nn.one_hot(jax.random.randint(choice_key, labels.shape[:1], 0, len(names)), len(names))
    added = chosen * (1.0 - labels)
    inverted = jnp.abs(labels - chosen) * (1.0 - jnp.minimum(added @ attribute_names.conflict_matrix(names), 1.0))
    half = jnp.arange(len(labels)) % 2 == 0
    return jnp.where(half[:, None], shuffled_targets(shuffle_key, labels, names), inverted)


TARGETS = {"shuffled": shuffled_targets, "inverted": inverted_targets}


def uniform_strengths(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """From U(0, 2)."""
    return jax.random.uniform(key, shape, maxval=2.0)


def truncated_normal_strengths(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """In [0, 2]: around 1 from N(1, 0.5^2), cut off at two deviations."""
    return 1.0 + 0.5 * jax.random.truncated_normal(key, -2.0, 2.0, shape)


STRENGTHS = {"uniform": uniform_strengths, "truncated_normal": truncated_normal_strengths}


def build(config: ml_collections.ConfigDict) -> AttGAN:
    """AttGAN as `config` describes it (configs/attgan_128.py says what each key means)."""
    check_choice("targets", config.targets, TARGETS)
    if config.get("b_distribution"):
        check_choice("b_distribution", config.b_distribution, STRENGTHS)
    model = config.model

    def scaled(layers: Sequence[Layer]) -> tuple[Layer, ...]:
        return tuple((multiple * model.width, kernel, stride) for multiple, kernel, stride in layers)

    # Keys that only a variant for others' weights has.
    leak, fc_leak, epsilon = model.get("leak", LEAK), model.get("fc_leak", LEAK), model.get("epsilon")
    networks = {
        "encoder": Encoder(
            scaled(model.encoder),
            norm=model.generator_norm,
            momentum=model.batch_norm_momentum,
            leak=leak,
            epsilon=epsilon,
        ),
        "decoder": Decoder(
            scaled(model.decoder),
            rgb=tuple(model.rgb),
            norm=model.generator_norm,
            momentum=model.batch_norm_momentum,
            skips=model.skips,
            injections=model.injections,
            epsilon=epsilon,
        ),
        "discriminator": Discriminator(
            scaled(model.discriminator),
            fc=model.fc * model.width,
            attributes=len(config.attributes),
            norm=model.norm,
            fc_norm=model.fc_norm,
            leak=leak,
            fc_leak=fc_leak,
            epsilon=epsilon,
        ),
    }
    optimizers = {
        "critic": Optimizer(("discriminator",), adam(config), learning_rate(config)),
        "generator": Optimizer(("encoder", "decoder"), adam(config), learning_rate(config)),
    }
    if not model.discriminator:
        del networks["discriminator"], optimizers["critic"]
        return Generator(config, networks, optimizers)
    return AttGAN(config, networks, optimizers)
