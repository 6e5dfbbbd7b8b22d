"""ELEGANT: exchanging latent encodings with GAN for transferring multiple face attributes (Xiao, Hong, Ma; ECCV 2018).

An encoder turns a face into a code whose channels are divided among the attributes. Two faces A and B that differ in
attribute i exchange part i of their codes (eq. 2), and a decoder turns the exchanged code, beside the face's own, into
a residual that is added to the face (eqs. 3-4): C is A with B's value of attribute i, in B's style, and D the reverse.
Two discriminators, at full and at half size, see images with labels (eqs. 5-9); with its own code every face must come
back (eq. 10). Training takes the attributes in turn, one an iteration. Where the paper is silent or its code differs
the choice is a config key.

Codes are (B, h, w, C), features the encoder's outputs with the code last, images (B, S, S, 3) in [-1, 1].
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from faceattr_jax import losses
from faceattr_jax.data import sampling
from faceattr_jax.errors import check_choice
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
    check_trainable,
    learning_rate,
    variables_of,
)
from faceattr_jax.nn.blocks import LEAK, interleave, mean_pool, separate, tile
from faceattr_jax.nn.conv import Conv, ConvTranspose
from faceattr_jax.nn.precision import Dense, full

KERNEL, STRIDE = 3, 2
# PyTorch's padding of 1 (and output padding of 1): a stride of 2 exactly halves (doubles) an even size.
PADDING = ((1, 1), (1, 1))
TRANSPOSED_PADDING = ((1, 2), (1, 2))


@dataclasses.dataclass(frozen=True)
class Start:
    """Initial values: kernels from N(0, deviation^2), biases from U(-b, b) with b = bias / sqrt(fan in)."""

    deviation: float
    bias: float

    @property
    def kernel(self) -> nn.initializers.Initializer:
        return nn.initializers.normal(self.deviation)

    def biases(self, channels: int) -> Callable[..., jax.Array]:
        bound = self.bias / (channels * KERNEL**2) ** 0.5
        return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class L2Norm(nn.Module):
    """Every pixel's channels divided by their L2 norm, times a learned scale, plus a learned shift: two scalars."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones_init(), ())
        shift = self.param("shift", nn.initializers.zeros_init(), ())
        exact = full(x)
        squared = jnp.sum(exact**2, axis=-1, keepdims=True)
        # x / max(norm, 1e-12); the bound under the root keeps the gradient finite at a norm of 0.
        return (scale * (exact * jax.lax.rsqrt(jnp.maximum(squared, 1e-24))) + shift).astype(x.dtype)


class Encoder(nn.Module):
    """Convolution, L2 norm, leaky ReLU per layer; each halves the size.

    (B, S, S, 3) -> the output of every layer, the code last: at 256 px (B, 8, 8, 512).
    """

    widths: Sequence[int]
    start: Start

    @nn.compact
    def __call__(self, images: jax.Array) -> list[jax.Array]:
        x = images
        features = []
        for i, width in enumerate(self.widths):
            x = nn.leaky_relu(L2Norm(name=f"norm{i}")(_conv(x, width, self.start, f"conv{i}")), LEAK)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From [code, own code] to a residual image (B, S, S, 3) in [-2, 2].

    Transposed convolution, L2 norm and activation per layer, each doubling the size, after which the feature of that
    size is added; the last layer ends in 2 tanh. features: of the image that is edited. activation: ``"leaky_relu"``
    (the paper) or ``"relu"`` (its code).
    """

    activation: str
    rgb_norm: bool
    start: Start

    @nn.compact
    def __call__(self, code: jax.Array, features: Sequence[jax.Array]) -> jax.Array:
        *skips, own = features
        x = jnp.concatenate([code, own], axis=-1)
        for i, skip in enumerate(reversed(skips)):
            x = L2Norm(name=f"norm{i}")(_conv_transpose(x, skip.shape[-1], self.start, f"deconv{i}"))
            x = (nn.relu(x) if self.activation == "relu" else nn.leaky_relu(x, LEAK)) + skip
        x = _conv_transpose(x, 3, self.start, "rgb")
        if self.rgb_norm:
            x = L2Norm(name="rgb_norm")(x)
        return 2.0 * jnp.tanh(full(x))


class Discriminator(nn.Module):
    """Images (B, S, S, 3), reduced by `pool`, with labels (B, n) at every pixel -> logits (B,) of being real."""

    widths: Sequence[int]
    pool: int
    start: Start

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array) -> jax.Array:
        x = tile(mean_pool(images, self.pool), labels)
        for i, width in enumerate(self.widths):
            x = nn.leaky_relu(L2Norm(name=f"norm{i}")(_conv(x, width, self.start, f"conv{i}")), LEAK)
        return Dense(1, kernel_init=self.start.kernel, name="fc")(x.reshape(x.shape[0], -1))[:, 0]


def _conv(x: jax.Array, width: int, start: Start, name: str) -> jax.Array:
    biases = start.biases(x.shape[-1])
    return Conv(width, KERNEL, STRIDE, PADDING, kernel_init=start.kernel, bias_init=biases, name=name)(x)


def _conv_transpose(x: jax.Array, width: int, start: Start, name: str) -> jax.Array:
    biases = start.biases(width)  # PyTorch, whose default this is, counts a transposed layer's fan in by its outputs
    return ConvTranspose(
        width, KERNEL, STRIDE, TRANSPOSED_PADDING, kernel_init=start.kernel, bias_init=biases, name=name
    )(x)


def parts(channels: int, attributes: int) -> np.ndarray:
    """Which channels of a code hold which attribute, bool (n, C).

    The bounds are multiples of C / n, halves rounded to even: any n <= C will do. Raises ValueError for a larger one.
    """
    if attributes > channels:
        raise ValueError(f"a code of {channels} channels cannot be divided among {attributes} attributes")
    bounds = [round(channels / attributes * i) for i in range(attributes + 1)]
    places = np.arange(channels)
    return np.stack([(low <= places) & (places < high) for low, high in itertools.pairwise(bounds)])


def exchange(a: jax.Array, b: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`a` with b's channels where `mask`, and `b` with a's (eq. 2). Exchanging twice gives a and b back.

    a, b: (B, ..., C), codes or labels. mask: bool, (C,) or one for each sample (B, C).
    """
    mask = mask.reshape(*mask.shape[:-1], *(1,) * (a.ndim - mask.ndim), mask.shape[-1])
    return jnp.where(mask, b, a), jnp.where(mask, a, b)


@dataclasses.dataclass(frozen=True, eq=False)
class ELEGANT(FromConfig):
    """The method: see the module's docstring, and `methods.base.Method` for the fields."""

    parts: np.ndarray  # (n, C), see `parts`
    capabilities = frozenset({"reconstruct", "swap"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        check_trainable(self.config)
        # Both phases see one batch: the generator's update meets the fakes that the discriminators were shown, but for
        # the other attributes, which each phase draws.
        phases = (
            Phase("discriminators", ("discriminators",), self.discriminators_objective),
            Phase("generator", ("generator",), self.generator_objective),
        )
        iterations, cycle = self.config.train.iterations, len(self.attributes)
        return (Stage("train", iterations, phases, sampler=sampling.opposite_pairs, cycle=cycle),)

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        images = jnp.zeros((1, self.config.image_size, self.config.image_size, 3))
        labels = jnp.zeros((1, len(self.attributes)))
        keys = jax.random.split(key, 4)
        encoder = self.networks["encoder"].init(keys[0], images)
        features = jax.eval_shape(lambda v: self.networks["encoder"].apply(v, images), encoder)
        features = jax.tree.map(lambda f: jnp.zeros(f.shape, f.dtype), features)
        found = {
            "encoder": encoder,
            "decoder": self.networks["decoder"].init(keys[1], features[-1], features),
        }
        for name, own in zip(SCALES, keys[2:], strict=True):
            if name in self.networks:  # files of others may lack them
                found[name] = self.networks[name].init(own, images, labels)
        return {"params": {network: variables["params"] for network, variables in found.items()}}

    # Inference.

    def encode(self, variables: Variables, images: jax.Array) -> list[jax.Array]:
        """z = Enc(x), eq. 1, last of the features, which the decoder's shortcuts take."""
        return self.networks["encoder"].apply(variables_of(variables, "encoder"), images)

    def decode(
        self, variables: Variables, images: jax.Array, features: Sequence[jax.Array], code: jax.Array
    ) -> jax.Array:
        """x + Dec([code, own code]), eqs. 3-4, clipped to [-1, 1]; features: of the images themselves."""
        residual = self.networks["decoder"].apply(variables_of(variables, "decoder"), code, features)
        return jnp.clip(images + residual, -1.0, 1.0)

    def channels(self, mask: jax.Array) -> jax.Array:
        """The channels of some attributes: 0/1 or bool (..., n) -> bool (..., C)."""
        return jnp.any((jnp.asarray(mask) != 0)[..., None] & self.parts, axis=-2)

    def swapped_code(
        self, variables: Variables, features: Sequence[jax.Array], references: jax.Array, mask: jax.Array
    ) -> jax.Array:
        """The code of `features` with the parts of `mask` from the references; arguments as in `swap`."""
        if references.ndim == 4:
            references, mask = references[None], jnp.asarray(mask)[None]
        code = features[-1]
        for images, own in zip(references, self.channels(mask), strict=True):
            code, _ = exchange(code, self.encode(variables, images)[-1], own)
        return code

    def swap(self, variables: Variables, images: jax.Array, references: jax.Array, mask: jax.Array) -> jax.Array:
        """The images with the attributes of `mask` as their references wear them, (B, S, S, 3).

        references: (B, S, S, 3), or (R, B, S, S, 3) for R references of each image. mask: what to take from the
        reference, 0/1 or bool (n,), or (B, n) for each image; with R references (R, n) or (R, B, n), of which later
        ones win.
        """
        features = self.encode(variables, images)
        return self.decode(variables, images, features, self.swapped_code(variables, features, references, mask))

    def linear(
        self, variables: Variables, images: jax.Array, references: jax.Array, mask: jax.Array, steps: jax.Array
    ) -> jax.Array:
        """From the own code, at step 0, straight to the swapped one, at 1: steps (T,) -> (T, B, S, S, 3)."""
        features = self.encode(variables, images)
        swapped = self.swapped_code(variables, features, references, mask)
        return self._mixtures(variables, images, features, [swapped], jnp.asarray(steps)[:, None])

    def matrix_of_references(
        self,
        variables: Variables,
        images: jax.Array,
        references: jax.Array,
        mask: jax.Array,
        down: jax.Array,
        right: jax.Array,
    ) -> jax.Array:
        """One choice of attributes as references wear it, bilinearly between: (V, U, B, S, S, 3).

        references: (3, B, S, S, 3), for the corners upper right, lower left and lower right; the upper left one is
        the image's own. Of two, (2, B, S, S, 3), the lower right corner is halfway between them. mask: as in `swap`
        with one reference. down (V,), right (U,): places in [0, 1].
        """
        features = self.encode(variables, images)
        codes = [self.swapped_code(variables, features, reference, mask) for reference in references]
        if len(codes) == 2:
            codes.append((codes[0] + codes[1]) / 2)
        v, u = jnp.meshgrid(jnp.asarray(down), jnp.asarray(right), indexing="ij")
        return self._mixtures(variables, images, features, codes, jnp.stack([(1 - v) * u, v * (1 - u), v * u], -1))

    def matrix_of_attributes(
        self,
        variables: Variables,
        images: jax.Array,
        references: jax.Array,
        masks: jax.Array,
        down: jax.Array,
        right: jax.Array,
    ) -> jax.Array:
        """Two attributes, each from a reference of its own and along an axis of its own: (V, U, B, S, S, 3).

        references: (2, B, S, S, 3) and masks: (2, n) or (2, B, n), for downwards and rightwards. down (V,), right
        (U,): places in [0, 1]; at (1, 1) both are swapped.
        """
        features = self.encode(variables, images)
        codes = [self.swapped_code(variables, features, *pair) for pair in zip(references, masks, strict=True)]
        weights = jnp.stack(jnp.meshgrid(jnp.asarray(down), jnp.asarray(right), indexing="ij"), -1)
        return self._mixtures(variables, images, features, codes, weights)

    def _mixtures(
        self,
        variables: Variables,
        images: jax.Array,
        features: Sequence[jax.Array],
        codes: Sequence[jax.Array],
        weights: jax.Array,
    ) -> jax.Array:
        """The images decoded from mixtures of K codes with `weights` (..., K); the own code gets what is left of 1."""
        own = features[-1]
        moves = jnp.stack([code - own for code in codes])

        def mixture(row: jax.Array) -> jax.Array:
            return self.decode(variables, images, features, own + jnp.tensordot(row, moves, 1))

        flat = jax.vmap(mixture)(weights.reshape(-1, len(codes)).astype(images.dtype))
        return flat.reshape(*weights.shape[:-1], *images.shape)

    def reconstruct(self, variables: Variables, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """A' = A + Dec([z_A, z_A]), eq. 3; the labels are not looked at."""
        features = self.encode(variables, images)
        return self.decode(variables, images, features, features[-1])

    # Training. A and B are the pictures with the attribute of the iteration and those without it.

    def discriminators_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """min over D1, D2 of L_D1 + L_D2 (eqs. 7-9), each image with its labels, C and D with exchanged ones."""
        pair = self._pair(variables, batch, ctx)
        fakes = jax.lax.stop_gradient(self.decode(variables, pair.images, pair.features, pair.exchanged))
        metrics = {}
        for name in SCALES:
            real = self._discriminate(variables, name, pair.images, pair.labels)
            fake = self._discriminate(variables, name, fakes, pair.exchanged_labels)
            # The paper adds A's and B's terms; a mean over both is half of that.
            metrics[name] = 2.0 * losses.gan_discriminator(real, fake)
            metrics[f"{name}_real"], metrics[f"{name}_fake"] = (jnp.mean(nn.sigmoid(x)) for x in (real, fake))
        weights = self.config.loss.discriminators
        loss = sum(weight * metrics[name] for weight, name in zip(weights, SCALES, strict=True))
        return Out(losses={"discriminators": jnp.asarray(loss)}, metrics=metrics)

    def generator_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """min over Enc, Dec of L_rec + L_adv (eqs. 10-12).

        Neither makes D wear A's style. Three terms that the paper does not have are to: by `loss.own_part` C, given the
        part of A's own code, must decode to A, and D to B; by `loss.change` C stays near A and D near B, so that the
        part need not hold the whole face; by `loss.neutral` one face's part without the attribute is like another's.
        """
        weights = self.config.loss
        pair = self._pair(variables, batch, ctx)
        reconstructions = self.decode(variables, pair.images, pair.features, pair.features[-1])
        fakes = self.decode(variables, pair.images, pair.features, pair.exchanged)
        distance = DISTANCES[weights.distance]
        metrics = {"reconstruction": 2.0 * distance(reconstructions, pair.images)}
        loss = weights.reconstruction * metrics["reconstruction"]
        for weight, name in zip(weights.adversarial, SCALES, strict=True):
            logits = self._discriminate(variables, name, fakes, pair.exchanged_labels)
            metrics[name] = 2.0 * losses.nonsaturating_generator(logits)
            loss = loss + weight * metrics[name]
        if weights.own_part:
            metrics["own_part"] = 2.0 * distance(self._with_own_part(variables, pair, fakes), pair.images)
            loss = loss + weights.own_part * metrics["own_part"]
        if weights.change:
            metrics["change"] = 2.0 * losses.l1(fakes, pair.images)
            loss = loss + weights.change * metrics["change"]
        if weights.neutral:
            metrics["neutral"] = distance(*self._with_neutral_part(variables, pair, self._chosen(ctx.index)))
            loss = loss + weights.neutral * metrics["neutral"]
        return Out(losses={"generator": loss}, metrics=metrics)

    def _with_own_part(self, variables: Variables, pair: "_Pair", fakes: jax.Array) -> jax.Array:
        """C and D decoded with the exchanged parts of A's and B's own codes, alternating (2B, S, S, 3).

        C and D are constants here: trained, C would hide A's style in traces that nobody sees.
        """
        fakes = jax.lax.stop_gradient(fakes)
        features = self.encode(variables, fakes)
        code, _ = exchange(features[-1], pair.features[-1], interleave(pair.channels, pair.channels))
        return self.decode(variables, fakes, features, code)

    def _with_neutral_part(self, variables: Variables, pair: "_Pair", chosen: jax.Array) -> tuple[jax.Array, jax.Array]:
        """B decoded with the part of another face that lacks the chosen attribute, and B itself, (B, S, S, 3)."""
        _, images = separate(pair.images)
        features = [separate(feature)[1] for feature in pair.features]
        code, _ = exchange(features[-1], jnp.roll(features[-1], 1, axis=0), self.channels(chosen))
        return self.decode(variables, images, features, code), images

    def _chosen(self, index: jax.Array) -> jax.Array:
        """The attribute of the iteration, whose index is traced, as bool (n,)."""
        return jnp.arange(len(self.attributes)) == index

    def _pair(self, variables: Variables, batch: Batch, ctx: Ctx) -> "_Pair":
        """A and B, and what becomes of their codes and labels with the iteration's attribute, and others, exchanged."""
        a, b = batch["positive"], batch["negative"]
        images, labels = interleave(a["images"], b["images"]), interleave(a["labels"], b["labels"])
        features = self.encode(variables, images)
        others = jax.random.bernoulli(ctx.key, self.config.exchange_others, a["labels"].shape)
        exchanged = self._chosen(ctx.index) | others
        channels = self.channels(exchanged)
        own, other = separate(features[-1])
        codes = exchange(own, other, channels)
        return _Pair(
            images,
            labels,
            features,
            channels,
            interleave(*codes),
            interleave(*exchange(a["labels"], b["labels"], exchanged)),
        )

    def _discriminate(self, variables: Variables, name: str, images: jax.Array, labels: jax.Array) -> jax.Array:
        return self.networks[name].apply(variables_of(variables, name), images, labels)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """B pictures with an attribute and B without, alternating (2B, ...): a device's share keeps both of a pair."""

    images: jax.Array
    labels: jax.Array
    features: list[jax.Array]
    channels: jax.Array  # that are exchanged, bool (B, C)
    exchanged: jax.Array  # z_C and z_D
    exchanged_labels: jax.Array  # y_C and y_D


SCALES = ("discriminator1", "discriminator2")  # full size, half size
DISTANCES = {"l1": losses.l1, "l2": losses.l2}


def build(config: ml_collections.ConfigDict) -> ELEGANT:
    """ELEGANT as `config` describes it (configs/elegant_256.py says what each key means)."""
    model = config.model
    check_choice("loss.distance", config.loss.distance, DISTANCES)
    check_choice("model.decoder_activation", config.model.decoder_activation, ("leaky_relu", "relu"))
    start = Start(model.kernel_deviation, model.bias_bound)
    encoder, discriminator = (
        tuple(multiple * model.width for multiple in widths) for widths in (model.encoder, model.discriminator)
    )
    networks = {
        "encoder": Encoder(encoder, start),
        "decoder": Decoder(model.decoder_activation, model.rgb_norm, start),
        "discriminator1": Discriminator(discriminator, 1, start),
        "discriminator2": Discriminator(discriminator, 2, start),
    }
    optimizers = {
        "discriminators": Optimizer(SCALES, adam(config), learning_rate(config)),
        "generator": Optimizer(("encoder", "decoder"), adam(config), learning_rate(config)),
    }
    if not model.discriminator:
        del networks["discriminator1"], networks["discriminator2"], optimizers["discriminators"]
    return ELEGANT(config, networks, optimizers, parts(encoder[-1], len(config.attributes)))
