"""AttGAN with a slider for each attribute (section 3.2 of He, Zuo, Kan, Shan, Chen; arXiv 1711.10678v1).

Of the latent (z', z_int), z_int has one number in [0, 1] for each attribute, which an adversary makes uniform as in
an adversarial autoencoder. The decoder is fed b_int = z_int (2b - 1), eq. 15, in place of b; D, C and all losses stay
as they are (`methods.attgan`). An edit then keeps each attribute as strong as the encoder finds it, and whoever sets
one element of b_int instead slides that attribute through [-1, 1]. There is no code, and the paper gives neither what
makes z_int, here one fully connected layer on z, which stays z' as it is, nor its adversary, a config key.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from faceattr_jax import attributes as attribute_names
from faceattr_jax import losses
from faceattr_jax.methods import attgan
from faceattr_jax.methods.base import (
    Batch,
    Carry,
    Ctx,
    Optimizer,
    Out,
    Phase,
    Variables,
    adam,
    learning_rate,
    variables_of,
)
from faceattr_jax.nn.blocks import MLP


class AttGANIntensity(attgan.AttGAN):
    """The method: see the module's docstring, and `methods.base.Method` for the fields."""

    capabilities = attgan.AttGAN.capabilities | {"slide"}

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        own_key, intensity_key, critic_key = jax.random.split(key, 3)
        variables = super().init(own_key)
        size, n = self.config.image_size, len(self.attributes)
        features = jax.eval_shape(self.encode, variables, jnp.zeros((1, size, size, 3)))
        z = jnp.zeros(features[-1].shape)
        intensity = self.networks["z_int"].init(intensity_key, z)["params"]
        critic = self.networks["prior_critic"].init(critic_key, jnp.zeros((1, n)))["params"]
        return {**variables, "params": {**variables["params"], "z_int": intensity, "prior_critic": critic}}

    # Inference.

    def intensities(self, variables: Variables, images: jax.Array) -> jax.Array:
        """z_int of faces, (B, n): how strong each attribute is, or its absence."""
        return self._intensities(variables, self.encode(variables, images))

    def slide(
        self,
        variables: Variables,
        images: jax.Array,
        column: jax.Array | int,
        value: jax.Array | float,
        source: jax.Array | None = None,
    ) -> jax.Array:
        """The faces with element `column` of b_int at `value` in [-1, 1]; the others are a_int, as strong as they are.

        source: own attributes 0/1 (B, n), by default what C reads. Those that the attribute rules out are absent at
        values above 0 (`attributes.CONFLICTS`).
        """
        features = self.encode(variables, images)
        chosen = jax.nn.one_hot(column, len(self.attributes))
        ruled_out = chosen @ attribute_names.conflict_matrix(self.attributes) * (value > 0)
        own = self.own(variables, images, source) * (1.0 - ruled_out)
        code = jnp.where(chosen > 0, value, self._code(variables, features, 2.0 * own - 1.0))
        return self.networks["decoder"].apply(variables_of(variables, "decoder"), features, code)

    # Training.

    @property
    def opponents(self) -> tuple[Phase, ...]:
        return (attgan.opponent(self.config, "prior", self.prior_objective),)

    def prior_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """The critic learns to tell z_int from U(0, 1)^n, by WGAN-GP as D does."""
        features, encoder_stats = self._train_encode(variables, batch["images"])
        found = self._intensities(variables, features)
        draw_key, penalty_key = jax.random.split(ctx.key)
        drawn = jax.random.uniform(draw_key, found.shape)
        adversarial = losses.wasserstein_critic(self._criticize(variables, drawn), self._criticize(variables, found))
        penalty = losses.gradient_penalty(lambda x: self._criticize(variables, x), drawn, found, penalty_key)
        return Out(
            losses={"prior": adversarial + self.config.loss.gradient_penalty * penalty},
            mutated={"batch_stats/encoder": encoder_stats},
            metrics={"distance": -adversarial, "penalty": penalty},
        )

    def _constrain(
        self, variables: Variables, features: Sequence[jax.Array], labels: jax.Array, ctx: Ctx
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        """z_int is to look uniform to its critic."""
        adversarial = losses.wasserstein_generator(self._criticize(variables, self._intensities(variables, features)))
        return self.config.loss.prior * adversarial, {"prior": adversarial}

    def _code(self, variables: Variables, features: Sequence[jax.Array], signs: jax.Array) -> jax.Array:
        """b_int, eq. 15, (B, n); no strength of an edit leads out of [-1, 1]."""
        return jnp.clip(self._intensities(variables, features) * signs, -1.0, 1.0)

    def _intensities(self, variables: Variables, features: Sequence[jax.Array]) -> jax.Array:
        """sigmoid(FC(z / sqrt(d))) of the d elements of z, (B, n).

        A step of Adam moves a layer of thousands of inputs as far as all of them together: without the root z_int goes
        from one end to the other in a few steps, and its critic never catches up.
        """
        own, z = {"params": variables["params"]["z_int"]}, features[-1]
        return nn.sigmoid(self.networks["z_int"].apply(own, z / z[0].size ** 0.5))

    def _criticize(self, variables: Variables, intensities: jax.Array) -> jax.Array:
        return self.networks["prior_critic"].apply({"params": variables["params"]["prior_critic"]}, intensities)[:, 0]


def build(config: ml_collections.ConfigDict) -> AttGANIntensity:
    """The extended AttGAN as `config` describes it (configs/attgan_intensity_64.py says what each key means)."""
    plain = attgan.build(config)
    generator = plain.optimizers["generator"]
    return AttGANIntensity(
        config,
        {
            **plain.networks,
            "z_int": MLP((), len(config.attributes)),
            "prior_critic": MLP(tuple(config.model.prior_critic), 1),
        },
        {
            **plain.optimizers,
            "generator": dataclasses.replace(generator, networks=(*generator.networks, "z_int")),
            "prior": Optimizer(("prior_critic",), adam(config), learning_rate(config)),
        },
    )
