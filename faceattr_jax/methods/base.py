"""What a paper is made of: networks, losses, and an update schedule.

A method names its networks and optimizers and lists its stages. A stage is a number of iterations of a fixed
sequence of phases; a phase is one objective, the optimizers that follow its gradient, and how often it repeats.
`training.step` compiles and runs the schedule; nothing here knows how.

Variables are `{collection: {network: tree}}` with the collections ``params``, ``batch_stats`` and ``memory``; in
training also ``frozen``, the weights that a method borrows (`Frozen`), which nothing changes and no checkpoint holds.
Images are NHWC float32 in [-1, 1]; labels and requests are 0/1.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from faceattr_jax.data import sampling
from faceattr_jax.errors import UserError, check_choice

Variables = Mapping[str, Mapping[str, Any]]
Batch = Any
Carry = Mapping[str, Any]
Schedule = Callable[[jax.Array], jax.Array]
SamplerBuilder = Callable[..., sampling.Sampler]


def uniform(key: jax.Array, indices: np.ndarray, labels: np.ndarray, batch_size: int) -> sampling.Sampler:
    """Every picture once an epoch, whatever its labels."""
    return sampling.uniform(key, indices, batch_size)


SAMPLERS: dict[str, SamplerBuilder] = {"uniform": uniform, "balanced": sampling.balanced}


def sampler(config: ml_collections.ConfigDict) -> SamplerBuilder:
    """That of `config.sampler`; UserError for one that there is not."""
    check_choice("sampler", config.sampler, SAMPLERS)
    return SAMPLERS[config.sampler]


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """One optimizer, which may own several networks (AttGAN: encoder and decoder).

    `transform` yields an ascent-free direction (``optax.scale_by_adam``); the step multiplies it by minus
    `schedule(iteration)`. The schedule counts iterations, not updates, so that five critic updates an iteration
    do not decay five times faster.
    """

    networks: tuple[str, ...]
    transform: optax.GradientTransformation
    schedule: Schedule


class Frozen(Protocol):
    """A network trained elsewhere, which no optimizer owns. sha256: of its weights, for the run's record."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def variables(self) -> Mapping[str, Any]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """Variables of a network, or a part of its tree, out of a file: a Frozen that a fresh run goes on from."""

    name: str
    sha256: str
    variables: Mapping[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ctx:
    """Where an update stands; every field is traced.

    iteration: of the stage, from 0. index: iteration modulo the stage's cycle (ELEGANT's attribute).
    repeat: of the phase, from 0. key: fresh for this (iteration, phase, repeat).
    """

    iteration: jax.Array
    index: jax.Array
    repeat: jax.Array
    key: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Out:
    """What an objective returns.

    losses: optimizer name -> scalar, all computed from the same old parameters.
    mutated: ``"batch_stats/decoder"`` -> its new tree; each must be declared in the phase's `mutates`.
    metrics: name -> scalar. carry: values handed to later phases of the iteration, gradients stopped.
    """

    losses: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)
    mutated: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, jax.Array] = dataclasses.field(default_factory=dict)
    carry: Carry = dataclasses.field(default_factory=dict)


Objective = Callable[[Variables, Batch, Carry, Ctx], Out]


@dataclasses.dataclass(frozen=True)
class Phase:
    """One objective of an iteration and what it may change.

    trains: optimizers that step; empty for a forward pass only. mutates: other variables it replaces.
    draw: ``"iteration"`` takes the batch that all such phases of the iteration share, ``"update"`` a fresh one
    per repeat, ``"last"`` the one drawn last. project: applied to the params (network -> tree) of the trained
    networks once, after the last repeat (DIAT's weight clipping).
    """

    name: str
    trains: tuple[str, ...]
    objective: Objective
    mutates: tuple[str, ...] = ()
    repeats: int = 1
    draw: Literal["iteration", "update", "last"] = "iteration"
    project: Callable[[Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """`iterations` runs of `phases`.

    sampler: makes the stage's sampler from (key, dataset indices (M,), their labels (M, n), batch size). cycle: of
    `Ctx.index`. reset: optimizers that start anew with the stage. identity: whether batches hold ``identity`` (B,)
    int32, the people of the training split counted from 0, and the sampler gets that of its indices (M,) as
    ``identity``.
    """

    name: str
    iterations: int
    phases: tuple[Phase, ...]
    sampler: SamplerBuilder = uniform
    cycle: int = 1
    reset: tuple[str, ...] = ()
    identity: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EditRequest:
    """What to change: 0/1 attributes of the images (B, n) and the wanted ones (B, n).

    source: None lets the method read the attributes off the images. strength: 0 gives the unedited image's
    reconstruction (or the image), 1 the value seen in training, 2 twice that (the peers' ``test_int`` doubling); a
    scalar, or (n,) with one for each attribute. named: which attributes somebody asked for, whatever was read off the
    images, (n,) or (B, n) bool; None for those alone that are to change.
    """

    target: jax.Array
    source: jax.Array | None = None
    strength: jax.Array | float = 1.0
    named: jax.Array | None = None


def edited_signs(
    source: jax.Array, target: jax.Array, strength: jax.Array | float, named: jax.Array | None = None
) -> jax.Array:
    """Signed attributes of an edit: between source and target up to strength 1, multiples of the target beyond.

    source, target: 0/1 (B, n). Attributes that the edit neither changes nor names keep their own value at any strength.
    """
    a, b = 2.0 * source - 1.0, 2.0 * target - 1.0
    towards = a + jnp.minimum(strength, 1.0) * (b - a)
    meant = a != b if named is None else (a != b) | named
    return jnp.where(meant, towards * jnp.maximum(strength, 1.0), a)


class Method(Protocol):
    """One paper. Built from its config by `build`; pure: every call takes the variables it reads.

    capabilities: which of ``classify``, ``edit``, ``embed``, ``encode``, ``generate``, ``mask``, ``reconstruct``,
    ``restore``, ``slide``, ``swap`` it has as methods. One that edits takes attributes, one that swaps other faces that
    have them, and interpolates, too (``linear``, ``matrix_of_references``, ``matrix_of_attributes``). One that
    generates draws a z (``draw_latents``) and a face of it (``decode``), one that encodes tells that of faces
    (``latents``, vectors). One that slides has a slider from -1 to 1 for each attribute, and tells how strong those of
    faces are (``intensities``, 0 to 1).
    ema: decay of the exponential moving average of the parameters that inference uses, 0 for none.
    frozen: the networks that its objectives borrow, by role; read when training begins, of no use in inference.
    given: by network, what a fresh run starts from instead of random numbers; read once, when a run begins.
    towards: attributes that it edits in one direction only, with the value that they get.
    """

    config: ml_collections.ConfigDict
    attributes: tuple[str, ...]
    networks: Mapping[str, Any]
    optimizers: Mapping[str, Optimizer]
    stages: tuple[Stage, ...]
    ema: float
    capabilities: frozenset[str]
    frozen: Mapping[str, Frozen]
    given: Mapping[str, Given]
    towards: Mapping[str, int]

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        """Fresh variables."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class FromConfig:
    """What every method takes straight from its config; the fields are those of `Method`."""

    config: ml_collections.ConfigDict
    networks: dict[str, Any]  # flax modules, whose `apply` is typed too widely to be of use
    optimizers: dict[str, Optimizer]
    capabilities: ClassVar[frozenset[str]]

    @property
    def frozen(self) -> Mapping[str, Frozen]:
        return {}

    @property
    def given(self) -> Mapping[str, Given]:
        return {}

    @property
    def towards(self) -> Mapping[str, int]:
        return {}

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(self.config.attributes)

    @property
    def ema(self) -> float:
        return self.config.ema

    def own(self, variables: Variables, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """The `labels` of the images, 0/1 (B, n), or where there are none those that the method's own head reads.

        Raises UserError for a method without such a head.
        """
        if labels is not None:
            return labels
        if not hasattr(self, "classify") or "classify" not in self.capabilities:
            raise UserError(
                f"this {self.config.method} model cannot read attributes off a face: give those it has (--source), "
                "or a classifier that can (--judge)"
            )
        return (self.classify(variables, images) > 0.5).astype(images.dtype)


def check_trainable(config: ml_collections.ConfigDict) -> None:
    """Raise UserError where `config.model.discriminator` is empty, as of a model from files that hold none."""
    if not config.model.discriminator:
        raise UserError(
            f"this {config.method} model has no discriminator (model.discriminator is empty), so it cannot be trained: "
            "convert it again with the discriminator's weights."
        )


def variables_of(variables: Variables, network: str) -> dict[str, Any]:
    """What one network's `apply` takes: its parameters, and its batch statistics where it has some."""
    return {c: variables[c][network] for c in ("params", "batch_stats") if network in variables.get(c, {})}


def build(config: ml_collections.ConfigDict) -> Any:
    """The method that `config.method` names: the `build` function of `faceattr_jax.methods.<method>`."""
    method = importlib.import_module(f"faceattr_jax.methods.{config.method}").build(config)
    if config.get("train", {}).get("remat"):
        method.networks.update({name: Rematerialized(network) for name, network in method.networks.items()})
    return method


class Rematerialized:
    """A network that keeps of a pass its inputs alone, and computes the pass again when gradients flow back."""

    def __init__(self, network: Any) -> None:
        self.network, self.init = network, network.init

    def apply(self, variables: Any, *inputs: Any, **options: Any) -> Any:
        return jax.checkpoint(functools.partial(self.network.apply, **options))(variables, *inputs)


def adam(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Adam's direction with the betas of `config.optimizer`, weight decay inside if `weight_decay` is set."""
    direction = optax.scale_by_adam(b1=config.optimizer.b1, b2=config.optimizer.b2)
    decay = config.optimizer.get("weight_decay", 0.0)
    return optax.chain(optax.add_decayed_weights(decay), direction) if decay else direction


def rmsprop(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """RMSProp's direction with the `decay` and `epsilon` of `config.optimizer`, the latter added to the root."""
    return optax.scale_by_rms(decay=config.optimizer.decay, eps=config.optimizer.epsilon, eps_in_sqrt=False)


def learning_rate(config: ml_collections.ConfigDict) -> Schedule:
    """`config.optimizer.learning_rate` under `config.optimizer.schedule`, in iterations.

    ``()`` is constant; ``("step", at, factor)`` multiplies once, ``("exponential", every, factor)`` after every
    `every` iterations; ``("linear", start, stop)`` falls from full at `start` to 0 at `stop`.
    """
    rate = config.optimizer.learning_rate
    match tuple(config.optimizer.schedule):
        case ():
            return optax.constant_schedule(rate)
        case ("step", int(at), float(factor)):
            return optax.piecewise_constant_schedule(rate, {at: factor})
        case ("exponential", int(every), float(factor)):
            return optax.exponential_decay(rate, every, factor, staircase=True)
        case ("linear", int(start), int(stop)):
            return optax.linear_schedule(rate, 0.0, stop - start, start)
        case other:
            raise ValueError(
                f"config.optimizer.schedule is {other!r}; it must be (), ('step', at, factor), "
                "('exponential', every, factor) or ('linear', start, stop)"
            )
