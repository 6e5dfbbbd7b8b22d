"""DIAT's face hallucination (Li, Zuo, Zhang 2018, section III-D): DIAT without a mask, F = T.

T draws faces of an eighth of the size (`config.scale`) at full size. The truth is there beside them (eqs. 19-20): the
source set are faces that are degraded first, to 8 bits, and the guided set all faces. T is pre-trained on what it will
be given, where eq. 17 has the faces themselves.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from faceattr_jax import losses
from faceattr_jax.data import sampling
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.methods.base import Frozen, Phase, Stage, Variables, uniform
from faceattr_jax.methods.denoiser import unit
from faceattr_jax.methods.diat import DIAT, Transferred


class Hallucination(DIAT):
    """Faces of an eighth of the size (`config.scale`) drawn at full size: F = T, section III-D."""

    capabilities = frozenset({"restore"})

    def sampler(self, key: jax.Array, indices: np.ndarray, labels: np.ndarray, batch_size: int) -> sampling.Sampler:
        """Two streams of all faces: those to degrade, and those that D compares the results with."""
        return sampling.source_guided(key, indices, indices, batch_size)

    def inputs(self, images: jax.Array) -> jax.Array:
        """Images (B, S, S, 3) as they come back from `config.scale` times fewer pixels each way, of 8 bits."""
        batch, size, _, channels = images.shape
        small = (batch, size // self.config.scale, size // self.config.scale, channels)
        return self.enlarge(to_float(to_uint8(jax.image.resize(images, small, "cubic"))))

    def enlarge(self, small: jax.Array) -> jax.Array:
        """Small faces (B, s, s, 3) at full size by bicubic interpolation: what `restore` takes."""
        size = self.config.image_size
        return jnp.clip(jax.image.resize(small, (small.shape[0], size, size, small.shape[3]), "cubic"), -1.0, 1.0)

    def transfer(self, variables: Variables, images: jax.Array, train: bool = False) -> Transferred:
        transformed, stats = self._run(variables, "transform", images, train)
        return Transferred(transformed, transformed, None, stats)

    def constraints(self, made: Transferred, images: jax.Array) -> dict[str, jax.Array]:
        """|F(x) - y|^2 (eq. 19)."""
        return {"reconstruction": losses.squared_distance(unit(made.result), unit(images))}

    # Inference.

    def degrade(self, images: jax.Array, key: jax.Array) -> jax.Array:
        """Images (B, S, S, 3) as `inputs` has them; nothing is random."""
        return self.inputs(images)

    def restore(self, variables: Variables, images: jax.Array) -> jax.Array:
        """T(x) of enlarged faces (B, S, S, 3)."""
        return self.transfer(variables, images).result


class HallucinationBaseline(Hallucination):
    """The U-Net of table VII: T alone, with the reconstruction loss alone."""

    frozen: Mapping[str, Frozen] = {}

    @property
    def stages(self) -> tuple[Stage, ...]:
        phase = Phase(
            "reconstruction", ("transfer",), self.reconstruction_objective, mutates=("batch_stats/transform",)
        )
        return (Stage("train", self.config.train.iterations, (phase,), uniform),)


TASKS: dict[str, type[DIAT]] = {"hallucination": Hallucination, "unet": HallucinationBaseline}
