"""Small methods with the schedules of the papers to come, whose every update can be computed by hand."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from faceattr_jax.methods.base import Optimizer, Out, Phase, Stage

SIZE = 4


@dataclasses.dataclass(eq=False)
class Dummy:
    """A method whose networks are single vectors `w` and whose stages are given."""

    names: tuple[str, ...]
    stages: tuple[Stage, ...]
    rate: float = 0.1
    ema: float = 0.0
    joint: bool = False

    def __post_init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.networks: dict[str, Any] = {}
        self.frozen: dict[str, Any] = {}
        groups = {"all": self.names} if self.joint else {name: (name,) for name in self.names}
        self.optimizers = {
            name: Optimizer(networks, optax.scale_by_adam(), optax.constant_schedule(self.rate))
            for name, networks in groups.items()
        }

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        keys = jax.random.split(key, len(self.names))
        params = {name: {"w": jax.random.normal(k, (3,))} for name, k in zip(self.names, keys, strict=True)}
        return {"params": params, "memory": {"pool": jnp.zeros(3)}, "batch_stats": {}}


def pixels(batch: Any) -> jax.Array:
    """(3,): the mean colour of a batch."""
    return batch["images"].mean((0, 1, 2))


def quadratic(*trained: str, carry: bool = False, uses: str = "", noise: float = 0.0):
    """|w - colour - carried|^2 for each network; hands the mean of its parameters on."""

    def objective(variables, batch, carried, ctx) -> Out:
        target = pixels(batch) + (carried[uses] if uses else 0.0) + noise * jax.random.normal(ctx.key, (3,))
        params = variables["params"]
        losses = {name: jnp.sum((params[name]["w"] - target) ** 2) for name in trained}
        handed = {"seen": sum(params[name]["w"] for name in trained) + target} if carry else {}
        metrics = {"index": ctx.index.astype(jnp.float32), "repeat": ctx.repeat.astype(jnp.float32)}
        return Out(losses=losses, metrics=metrics, carry=handed)

    return objective


def clip(params):
    return jax.tree.map(lambda w: jnp.clip(w, -0.01, 0.01), params)


def diat(iterations: int = 3, repeats: tuple[int, int, int] = (12, 12, 6)) -> Dummy:
    """DIAT's: pre-training, then forward, D x12 with one clipping, F x12, smooth x6, all on one batch."""

    def forward(variables, batch, carried, ctx) -> Out:
        return Out(carry={"fake": variables["params"]["transform"]["w"] * pixels(batch)})

    d, f, s = repeats
    train = (
        Phase("forward", (), forward),
        Phase("discriminator", ("discriminator",), quadratic("discriminator", uses="fake"), repeats=d, project=clip),
        Phase("transform", ("transform", "mask"), quadratic("transform", "mask", noise=0.1), repeats=f),
        Phase("smooth", ("mask",), quadratic("mask"), repeats=s),
    )
    pretrain = (Phase("pretrain", ("transform",), quadratic("transform"), draw="update", repeats=2),)
    stages = (Stage("pretrain", 2, pretrain), Stage("train", iterations, train, reset=("transform",)))
    return Dummy(("transform", "mask", "discriminator"), stages)


def elegant(iterations: int = 6, attributes: int = 3) -> Dummy:
    """ELEGANT's: D then G on one batch of pairs for attribute `index`; G sees what D made."""

    def flat(objective):
        return lambda v, batch, c, ctx: objective(v, batch["positive"], c, ctx)

    phases = (
        Phase("d", ("d1", "d2"), flat(quadratic("d1", "d2", carry=True))),
        Phase("g", ("g",), flat(quadratic("g", uses="seen"))),
    )
    return Dummy(("d1", "d2", "g"), (Stage("train", iterations, phases, cycle=attributes),))
