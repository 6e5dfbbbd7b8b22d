"""DIAT: deep identity-aware transfer of facial attributes (Li, Zuo, Zhang 2018).

A transform network T redraws the face and a mask network M says where: F(x) = M(x) T(x) + (1 - M(x)) x (eq. 1). One
model gives one attribute one value. It learns from a source set of faces without that value and a guided set of faces
that have it: a discriminator D tells F(x) from guided faces (eqs. 7-8), its own middle layers (eqs. 9-10) and a frozen
face network (eq. 11) see to it that x remains, a denoiser DN hands out a penalty for what is no clean face (eq. 13),
and M is to cover a given share of the picture (eq. 14). T, D and DN are pre-trained, and then every mini-batch trains D
twelve times, F twelve times, and F six times more for smoothness alone (algorithm 1). Its face hallucination, which is
the same without a mask, is in `diat_hallucination`.

No code was published; where the paper is silent or contradicts itself the choice is a config key. Chosen here: batch
norm on M's last convolution, too, as on the others; a blur that sees the border's pixels repeated; F's RMSProp goes on
from stage one; the fixed perceptual loss of DIAT-1 looks at convolutions before their ReLU, the adaptive one after it.
"""

import abc
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from faceattr_jax import losses
from faceattr_jax.data import sampling
from faceattr_jax.errors import UserError, check_choice, nearest
from faceattr_jax.methods.base import (
    Batch,
    Carry,
    Ctx,
    EditRequest,
    FromConfig,
    Frozen,
    Optimizer,
    Out,
    Phase,
    Stage,
    Variables,
    learning_rate,
    rmsprop,
    variables_of,
)
from faceattr_jax.methods.denoiser import Denoiser, denoising, frozen_denoiser, noisy, unit
from faceattr_jax.nn.blocks import LEAK, batch_norm, interleave, xavier
from faceattr_jax.nn.conv import Conv
from faceattr_jax.nn.pixels import binarize, depth_to_space, gaussian_blur, replicate
from faceattr_jax.nn.precision import Dense, full

MASK_FACTOR = 4  # pixels of the picture to one of the binary mask, in each direction
MASK_BLUR = (5, 1.6)  # size and deviation of the Gaussian that smooths the mask


class Transform(nn.Module):
    """T of table I: images (B, S, S, 3) -> images (B, S, S, 3) in [-1, 1].

    Each of `widths` halves the size; the way back moves channels to space, convolves, and adds the map of that size.
    """

    widths: Sequence[int]
    momentum: float

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x, maps = images, []
        for i, width in enumerate(self.widths, 1):
            x = Conv(width, 4, 2, use_bias=False, kernel_init=xavier, name=f"conv{i}")(x)
            x = nn.leaky_relu(batch_norm(self.momentum, train, name=f"norm{i}")(x), LEAK)
            maps.append(x)
        for i, skip in enumerate(reversed(maps[:-1]), len(self.widths) + 1):
            x = depth_to_space(x, 2)
            x = Conv(skip.shape[-1], 3, use_bias=False, kernel_init=xavier, name=f"conv{i}")(x)
            x = nn.relu(batch_norm(self.momentum, train, name=f"norm{i}")(x)) + skip
        x = Conv(3, 5, kernel_init=xavier, name=f"conv{2 * len(self.widths)}")(depth_to_space(x, 2))
        return jnp.tanh(full(x))


class Mask(nn.Module):
    """M of table II, before its binarisation: images (B, S, S, 3) -> e (B, S / 4, S / 4, 1) in (0, 1).

    widths: of all convolutions but the last; the first two halve the size.
    """

    widths: Sequence[int]
    momentum: float

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        x = images
        for i, width in enumerate((*self.widths, 1), 1):
            kernel, stride = (4, 2) if i <= 2 else (3, 1)
            x = Conv(width, kernel, stride, use_bias=False, kernel_init=xavier, name=f"conv{i}")(x)
            x = batch_norm(self.momentum, train, name=f"norm{i}")(x)
            x = nn.relu(x) if i <= len(self.widths) else nn.sigmoid(full(x))
        return x


def smooth_mask(binary: jax.Array) -> jax.Array:
    """The final mask M(x) (B, S, S, 1) of a binary one (B, S / 4, S / 4, 1): replicated, then blurred."""
    return gaussian_blur(replicate(binary, MASK_FACTOR), *MASK_BLUR)


class Discriminator(nn.Module):
    """D of table III: images (B, S, S, 3) -> scores (B,) and the outputs of its convolutions, first to last.

    layers: (width, kernel, stride) of the convolutions; fc: hidden units. A leaky ReLU after each; no norm.
    """

    layers: Sequence[tuple[int, int, int]]
    fc: int

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        x, maps = images, []
        for i, (width, kernel, stride) in enumerate(self.layers, 1):
            x = nn.leaky_relu(Conv(width, kernel, stride, kernel_init=xavier, name=f"conv{i}")(x), LEAK)
            maps.append(x)
        x = nn.leaky_relu(Dense(self.fc, kernel_init=xavier, name="fc")(x.reshape(x.shape[0], -1)), LEAK)
        return Dense(1, kernel_init=xavier, name="score")(x)[:, 0], maps


class Transferred(NamedTuple):
    """result: F(x). transformed: T(x). binary: the mask before it is spread, if any. stats: as `Out.mutated`."""

    result: jax.Array
    transformed: jax.Array
    binary: jax.Array | None
    stats: Mapping[str, Any]


def open_face(config: ml_collections.ConfigDict) -> Any:
    """The face network that `config.face` names (`pretrained.FaceNetwork`), for images of the config's crop."""
    from faceattr_jax.pretrained import face_network

    return face_network(config.face, config.crop)


def seen_by(face: Any, variables: Mapping[str, Any], images: jax.Array, layers: Sequence[str]) -> list[jax.Array]:
    """What a face network makes of images: its features (B, D), and the outputs of its `layers`, "block1/conv0".

    Raises UserError for a layer that it does not have.
    """
    found: dict[str, jax.Array] = {}

    def keep(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            found["/".join(context.module.path)] = output
        return output

    with nn.intercept_methods(keep):
        features = face.features(variables, images)
    for layer in layers:
        if layer not in found:
            known = [name for name in found if name]
            raise UserError(
                f"loss.perceptual_layers names '{layer}', which the face network '{face.name}' does not have"
                f"{nearest(layer, known)}; it has {', '.join(known)}"
            )
    return [features, *(found[layer] for layer in layers)]


class DIAT(FromConfig, abc.ABC):
    """What every `config.task` has in common; for the fields see `methods.base.Method`.

    Batches are {"source", "guided"}: faces to transfer, and faces as they should come out.
    """

    @functools.cached_property
    def frozen(self) -> Mapping[str, Frozen]:
        weights, networks = self.config.loss, dict[str, Frozen]()
        if weights.identity or self._fixed:
            networks["face"] = open_face(self.config)
        if self.config.denoiser and weights.smoothness == "denoiser":
            networks["denoiser"] = frozen_denoiser(self.config.denoiser)
        return networks

    @property
    def stages(self) -> tuple[Stage, ...]:
        config, steps = self.config, self.config.steps
        first = [
            Phase("reconstruction", ("transfer",), self.reconstruction_objective, mutates=("batch_stats/transform",)),
            Phase("regression", ("discriminator",), self.regression_objective),
        ]
        if "denoiser" in self.networks:
            first.append(Phase("denoising", ("denoiser",), self.denoising_objective))
        clip = functools.partial(clipped, bound=config.loss.clip) if config.loss.adversarial == "clip" else None
        second = (
            # The averages of the batch norms move here, once a batch, and not in each of its updates.
            Phase(
                "forward",
                (),
                self.forward_objective,
                mutates=tuple(f"batch_stats/{name}" for name in self.optimizers["transfer"].networks),
            ),
            Phase(
                "discriminator",
                ("discriminator",),
                self.discriminator_objective,
                repeats=steps.discriminator,
                project=clip,
            ),
            Phase("transfer", ("transfer",), self.transfer_objective, repeats=steps.transfer),
            Phase("smoothing", ("transfer",), self.smoothing_objective, repeats=steps.smoothing),
        )
        return (
            Stage("pretrain", config.pretrain.iterations, tuple(first), self.sampler),
            Stage("train", config.train.iterations, second, self.sampler),
        )

    @abc.abstractmethod
    def sampler(self, key: jax.Array, indices: np.ndarray, labels: np.ndarray, batch_size: int) -> sampling.Sampler:
        """So many of the source set and so many of the guided set."""

    @abc.abstractmethod
    def inputs(self, images: jax.Array) -> jax.Array:
        """What F is given of faces of the source set."""

    @abc.abstractmethod
    def transfer(self, variables: Variables, images: jax.Array, train: bool = False) -> Transferred:
        """F of images (B, S, S, 3)."""

    @abc.abstractmethod
    def constraints(self, made: Transferred, images: jax.Array) -> dict[str, jax.Array]:
        """The terms of L_F that are the task's own, by the name of their weight; images: of the source set."""

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        images = jnp.zeros((1, self.config.image_size, self.config.image_size, 3))
        keys = jax.random.split(key, len(self.networks))
        found = {name: net.init(k, images) for (name, net), k in zip(self.networks.items(), keys, strict=True)}
        return {
            "params": {name: variables["params"] for name, variables in found.items()},
            "batch_stats": {name: found[name]["batch_stats"] for name in self.optimizers["transfer"].networks},
        }

    # Stage one (section III-C, initialization).

    def reconstruction_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """|x - T(x)|^2 on both sets (eq. 17); T of a degraded x in hallucination."""
        images = _pictures(batch)
        made, stats = self._run(variables, "transform", self.inputs(images), train=True)
        return Out(losses={"transfer": losses.squared_distance(unit(made), unit(images))}, mutated=stats)

    def regression_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """(y - D(x))^2 with y 1 on the guided set and -1 on what F is given (eq. 18)."""
        guided, _ = self._discriminate(variables, batch["guided"]["images"])
        source, _ = self._discriminate(variables, self.inputs(batch["source"]["images"]))
        return Out(
            losses={"discriminator": jnp.mean((1.0 - guided) ** 2) + jnp.mean((1.0 + source) ** 2)},
            metrics={"accuracy": (jnp.mean(guided > 0) + jnp.mean(source <= 0)) / 2.0},
        )

    def denoising_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """Eq. 12, on both sets."""
        sets = jnp.stack([leaf["images"] for leaf in batch.values()])
        noised = interleave(*noisy(sets, ctx.key, self.config.noise))
        params = variables["params"]["denoiser"]
        loss = denoising(self.networks["denoiser"], params, interleave(*sets), noised)
        return Out(losses={"denoiser": loss})

    # Stage two (algorithm 1).

    def forward_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """F(x), for D's updates, and what the frozen face network makes of x, for F's."""
        images = self.inputs(batch["source"]["images"])
        made = self.transfer(variables, images, train=True)
        face = self._faces(variables, images) if "face" in self.frozen else []
        return Out(mutated=made.stats, carry={"fakes": made.result, "face": face})

    def discriminator_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """min over D of E D(F(x)) - E D(a) (eq. 8), with a gradient penalty where weights are not clipped."""
        real, fakes = batch["guided"]["images"], carry["fakes"]

        def critic(images: jax.Array) -> jax.Array:
            return self._discriminate(variables, images)[0]

        adversarial = losses.wasserstein_critic(critic(real), critic(fakes))
        if self.config.loss.adversarial == "clip":
            return Out(losses={"discriminator": adversarial})
        penalty = losses.gradient_penalty(critic, real, fakes, ctx.key)
        return Out(
            losses={"discriminator": adversarial + self.config.loss.gradient_penalty * penalty},
            metrics={"adversarial": adversarial, "gradient_penalty": penalty},
        )

    def transfer_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """min over T, M of L_F: eq. 15 without its smoothness, or eq. 20."""
        weights, source = self.config.loss, batch["source"]["images"]
        images = self.inputs(source)
        made = self.transfer(variables, images, train=True)
        compared = {"T": made.transformed, "F": made.result}[weights.compared]
        scores, _ = self._discriminate(variables, made.result)
        terms = self.constraints(made, source)
        if "face" in self.frozen:
            vector, *maps = self._faces(variables, compared)
            if weights.identity:
                terms["identity"] = losses.squared_distance(vector, carry["face"][0])
            if self._fixed:
                terms["perceptual"] = losses.perceptual(maps, carry["face"][1:], self._layer_weights)
        if weights.perceptual and not self._fixed:
            ours, theirs = (
                [self._discriminate(variables, x)[1][number - 1] for number, _ in weights.perceptual_layers]
                for x in (compared, images)
            )
            terms["perceptual"] = losses.perceptual(ours, theirs, self._layer_weights)
        adversarial = losses.wasserstein_generator(scores)
        total = adversarial + sum((weights[name] * term for name, term in terms.items()), start=jnp.float32(0))
        return Out(losses={"transfer": total}, metrics={"adversarial": adversarial, **terms})

    def smoothing_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """max(0, |DN(F(x))|^2 - t) (eq. 13), or the same of the total variation."""
        made = self.transfer(variables, self.inputs(batch["source"]["images"]), train=True)
        result, weights = unit(made.result), self.config.loss
        if weights.smoothness == "denoiser":
            roughness = jnp.sum(self._residual(variables, result) ** 2, axis=(1, 2, 3))
        else:
            roughness = losses.total_variation(result)
        return Out(
            losses={"transfer": losses.excess(roughness, weights.threshold)},
            metrics={"roughness": jnp.mean(roughness)},
        )

    @property
    def _fixed(self) -> bool:
        """Whether the perceptual loss is the frozen face network's (DIAT-1)."""
        return bool(self.config.loss.perceptual) and self.config.loss.perceptual_network == "face"

    @property
    def _layer_weights(self) -> list[float]:
        return [weight for _, weight in self.config.loss.perceptual_layers]

    def _run(
        self, variables: Variables, network: str, images: jax.Array, train: bool
    ) -> tuple[jax.Array, dict[str, Any]]:
        """A network with batch norm: its output, and in training its moved averages as `Out.mutated` has them."""
        own = variables_of(variables, network)
        if not train:
            return self.networks[network].apply(own, images), {}
        output, new = self.networks[network].apply(own, images, train=True, mutable=["batch_stats"])
        return output, {f"batch_stats/{network}": new["batch_stats"]}

    def _discriminate(self, variables: Variables, images: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        return self.networks["discriminator"].apply({"params": variables["params"]["discriminator"]}, images)

    def _faces(self, variables: Variables, images: jax.Array) -> list[jax.Array]:
        layers = [name for name, _ in self.config.loss.perceptual_layers] if self._fixed else []
        return seen_by(self.frozen["face"], variables["frozen"]["face"], images, layers)

    def _residual(self, variables: Variables, images: jax.Array) -> jax.Array:
        if "denoiser" in self.networks:
            return self.networks["denoiser"].apply({"params": variables["params"]["denoiser"]}, images)
        lent: Any = self.frozen["denoiser"]
        return lent.network.apply(variables["frozen"]["denoiser"], images)


class AttributeTransfer(DIAT):
    """DIAT itself: `config.attributes`' one attribute gets `config.value`."""

    capabilities = frozenset({"edit", "mask"})

    @property
    def towards(self) -> Mapping[str, int]:
        return {self.attributes[0]: self.config.value}

    def sampler(self, key: jax.Array, indices: np.ndarray, labels: np.ndarray, batch_size: int) -> sampling.Sampler:
        """The guided set is every face with the value, the source set `config.source_images` of the others."""
        has = labels[:, 0] == self.config.value
        source, count = indices[~has], self.config.source_images
        if 0 < count < len(source):
            source = np.random.default_rng(self.config.seed).choice(source, count, replace=False)
        return sampling.source_guided(key, source, indices[has], batch_size)

    def inputs(self, images: jax.Array) -> jax.Array:
        return images

    def transfer(self, variables: Variables, images: jax.Array, train: bool = False) -> Transferred:
        """Eq. 1. Where the mask is 0, F(x) is x to the bit."""
        transformed, stats = self._run(variables, "transform", images, train)
        e, mask_stats = self._run(variables, "mask", images, train)
        binary = binarize(e)
        mask = smooth_mask(binary)
        return Transferred(mask * transformed + (1.0 - mask) * images, transformed, binary, {**stats, **mask_stats})

    def constraints(self, made: Transferred, images: jax.Array) -> dict[str, jax.Array]:
        weights = self.config.loss
        assert made.binary is not None
        return {"ratio": losses.region_share(made.binary, weights.share, per=weights.ratio_per)}

    # Inference.

    def mask(self, variables: Variables, images: jax.Array) -> jax.Array:
        """M(x): where the images would be changed, (B, S, S, 1) in [0, 1]."""
        return smooth_mask(binarize(self._run(variables, "mask", images, train=False)[0]))

    def own(self, variables: Variables, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """The labels, or where there are none the value that the model changes: D is no judge of attributes."""
        if labels is not None:
            return labels
        return jnp.broadcast_to(jnp.asarray(1.0 - self.config.value, images.dtype), (images.shape[0], 1))

    def edit(self, variables: Variables, images: jax.Array, request: EditRequest) -> jax.Array:
        """F(x) where the model's value is wanted and the face does not have it yet; elsewhere x itself.

        The paper knows no strength. Here it blends: 0 is the image, 1 is F(x), and beyond 1 the difference is
        extrapolated and clipped to [-1, 1].
        """
        source = self.own(variables, images, request.source)
        result = self.transfer(variables, images).result
        blend = (1.0 - request.strength) * images + request.strength * result
        wanted = (request.target == self.config.value) & (source != self.config.value)
        return jnp.where(wanted[:, :, None, None], jnp.clip(blend, -1.0, 1.0), images)

    def reconstruct(self, variables: Variables, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """The images: F is asked only where something is to change."""
        return images


def clipped(params: Any, *, bound: float) -> Any:
    """Every parameter in [-bound, bound]."""
    return jax.tree.map(lambda p: jnp.clip(p, -bound, bound), params)


def _pictures(batch: Batch) -> jax.Array:
    """All images of a batch, plain or {"source", "guided"}."""
    if "images" in batch:
        return batch["images"]
    return interleave(*(leaf["images"] for leaf in batch.values()))


CHOICES = {
    "adversarial": ("clip", "penalty"),
    "perceptual_network": ("discriminator", "face"),
    "compared": ("T", "F"),
    "smoothness": ("denoiser", "tv"),
    "ratio_per": ("sum", "mean"),
}


def build(config: ml_collections.ConfigDict) -> DIAT:
    """The model as `config` describes it (configs/diat_128.py and diat_hallucination.py say what each key means).

    Raises UserError for more than one attribute, a size that the networks cannot halve, and unknown choices.
    """
    from faceattr_jax.methods import diat_hallucination  # which builds on this

    tasks: dict[str, type[DIAT]] = {"transfer": AttributeTransfer, **diat_hallucination.TASKS}
    _check(config, tasks)
    model = config.model
    networks: dict[str, nn.Module] = {
        "transform": Transform(tuple(multiple * model.width for multiple in model.transform), model.batch_norm_momentum)
    }
    if config.task == "transfer":
        networks["mask"] = Mask(tuple(model.mask), model.batch_norm_momentum)
    owned = {"transfer": tuple(networks)}
    if config.task != "unet":
        layers = tuple((multiple * model.discriminator_width, k, s) for multiple, k, s in model.discriminator)
        networks["discriminator"] = Discriminator(layers, model.fc)
        owned["discriminator"] = ("discriminator",)
        if config.loss.smoothness == "denoiser" and not config.denoiser:
            networks["denoiser"] = Denoiser(tuple(model.denoiser))
            owned["denoiser"] = ("denoiser",)
    optimizers = {name: Optimizer(names, rmsprop(config), learning_rate(config)) for name, names in owned.items()}
    return tasks[config.task](config, networks, optimizers)


def _check(config: ml_collections.ConfigDict, tasks: Collection[str]) -> None:
    check_choice("task", config.task, tasks)
    for key, known in CHOICES.items():
        if key in config.get("loss", {}):
            check_choice(f"loss.{key}", config.loss[key], known)
    if config.get("loss", {}).get("perceptual") and config.loss.perceptual_network == "discriminator":
        last = len(config.model.discriminator)
        for number, _ in config.loss.perceptual_layers:
            if number not in range(1, last + 1):
                raise UserError(f"loss.perceptual_layers names {number!r}; D's convolutions are 1 to {last}")
    if config.task == "transfer":
        if len(config.attributes) != 1:
            raise UserError(
                f"a DIAT model gives one attribute a value, not {len(config.attributes)}; give one, such as "
                "--config.attributes=Eyeglasses, and train a model for each"
            )
        if config.value not in (0, 1):
            raise UserError(f"value is {config.value}; an attribute is 0 or 1")
    if config.model.width % 4:
        raise UserError(f"model.width is {config.model.width}; T moves channels to space, which takes a multiple of 4")
    halvings = len(config.model.transform)
    multiple = 2**halvings if config.task == "transfer" else np.lcm(2**halvings, config.scale)
    if config.image_size % multiple:
        raise UserError(f"image_size is {config.image_size}; the {halvings} layers of T need a multiple of {multiple}")
