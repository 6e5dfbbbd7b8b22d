"""The denoising network of DIAT (Li et al. 2018, table IV): its residual says how much of an image is no clean face.

Six convolutions predict what to add to a face under Gaussian noise so that the clean face comes out (eq. 12). DIAT
trains one itself in its first stage; a run of this method can be lent to it instead (`frozen_denoiser`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from faceattr_jax import losses
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
    learning_rate,
    rmsprop,
)
from faceattr_jax.nn.conv import Conv
from faceattr_jax.nn.precision import full


class Denoiser(nn.Module):
    """DN: images (B, S, S, 3) in [0, 1] -> the residual DN(y) (B, S, S, 3), such that y + DN(y) is clean.

    widths: of all convolutions but the last, each followed by a ReLU.
    """

    widths: Sequence[int]

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for i, width in enumerate(self.widths, 1):
            x = nn.relu(Conv(width, 3, name=f"conv{i}")(x))
        return full(Conv(3, 3, name=f"conv{len(self.widths) + 1}")(x))


def unit(images: jax.Array) -> jax.Array:
    """[-1, 1] to [0, 1], the scale of the paper's thresholds."""
    return (images + 1.0) / 2.0


def noisy(images: jax.Array, key: jax.Array, deviation: float) -> jax.Array:
    """Images in [-1, 1] under Gaussian noise; deviation: in 8-bit levels."""
    return images + deviation / 127.5 * jax.random.normal(key, images.shape, images.dtype)


def denoising(network: Any, params: Any, images: jax.Array, noised: jax.Array) -> jax.Array:
    """|DN(y) + y - x|^2 of clean x and noisy y in [-1, 1] (eq. 12): a sum over each image, a mean over them."""
    y = unit(noised)
    return losses.squared_distance(network.apply({"params": params}, y) + y, unit(images))


class FaceDenoiser(FromConfig):
    """One network, one phase."""

    capabilities = frozenset({"restore"})

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage("train", self.config.train.iterations, (Phase("denoise", ("denoiser",), self.objective),)),)

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        size = self.config.image_size
        return {"params": {"denoiser": self.networks["denoiser"].init(key, jnp.zeros((1, size, size, 3)))["params"]}}

    def degrade(self, images: jax.Array, key: jax.Array) -> jax.Array:
        """The images (B, S, S, 3) under the noise of training."""
        return noisy(images, key, self.config.noise)

    def restore(self, variables: Variables, images: jax.Array) -> jax.Array:
        """y + DN(y), clipped to [-1, 1]."""
        params = {"params": variables["params"]["denoiser"]}
        return jnp.clip(images + 2.0 * self.networks["denoiser"].apply(params, unit(images)), -1.0, 1.0)

    def objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """Eq. 12."""
        params, images = variables["params"]["denoiser"], batch["images"]
        noised = noisy(images, ctx.key, self.config.noise)
        return Out(losses={"denoiser": denoising(self.networks["denoiser"], params, images, noised)})


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenDenoiser:
    """A trained denoiser as another method's `methods.base.Frozen`."""

    network: Denoiser
    variables: Mapping[str, Any]
    sha256: str
    name: str = "denoiser"


def frozen_denoiser(path: str) -> FrozenDenoiser:
    """The denoiser of the run in workdir `path`; UserError where that is a run of another method."""
    from faceattr_jax.editor import hash_variables, load

    model = load(path)
    if not isinstance(model.method, FaceDenoiser):
        raise UserError(f"denoiser is '{path}', a run of {model.config.method}; it should be one of denoiser, or empty")
    variables = {"params": model.variables["params"]["denoiser"]}
    return FrozenDenoiser(model.method.networks["denoiser"], variables, hash_variables(variables))


def build(config: ml_collections.ConfigDict) -> FaceDenoiser:
    """The denoiser as `config` describes it (configs/denoiser_128.py says what each key means)."""
    optimizer = Optimizer(("denoiser",), rmsprop(config), learning_rate(config))
    return FaceDenoiser(config, {"denoiser": Denoiser(tuple(config.model.denoiser))}, {"denoiser": optimizer})
