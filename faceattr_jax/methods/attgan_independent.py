"""AttGAN whose latent must not tell the attributes: the ablation of section 4.2 (arXiv 1711.10678v1).

IcGAN and Fader networks ask for a latent that is independent of the attributes. The paper holds that this costs
reconstruction, and shows it by adding Fader's constraint to AttGAN: a discriminator learns to read a off z, and the
encoder to make it read 1 - a. Everything else is `methods.attgan`. With the weight `loss.independence` at 0 this is
AttGAN itself on other draws, watched; with `loss.generator_classification` at 0 the constraint alone has to make edits
happen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from faceattr_jax import losses
from faceattr_jax.methods import attgan
from faceattr_jax.methods.base import Batch, Carry, Ctx, Optimizer, Out, Phase, Variables, adam, learning_rate
from faceattr_jax.nn.blocks import MLP


class AttGANIndependent(attgan.AttGAN):
    """The method: see the module's docstring, and `methods.base.Method` for the fields."""

    capabilities = attgan.AttGAN.capabilities | {"encode"}

    def init(self, key: jax.Array) -> dict[str, dict[str, Any]]:
        own_key, latent_key = jax.random.split(key)
        variables = super().init(own_key)
        size = self.config.image_size
        latents = jax.eval_shape(self.latents, variables, jnp.zeros((1, size, size, 3)))
        params = self.networks["latent_discriminator"].init(latent_key, jnp.zeros(latents.shape))["params"]
        return {**variables, "params": {**variables["params"], "latent_discriminator": params}}

    def latents(self, variables: Variables, images: jax.Array) -> jax.Array:
        """z alone as vectors, (B, d)."""
        return self.encode(variables, images)[-1].reshape(len(images), -1)

    @property
    def opponents(self) -> tuple[Phase, ...]:
        return (attgan.opponent(self.config, "latent", self.latent_objective),)

    def latent_objective(self, variables: Variables, batch: Batch, carry: Carry, ctx: Ctx) -> Out:
        """The latent discriminator learns to read a off z."""
        features, encoder_stats = self._train_encode(variables, batch["images"])
        logits, labels = self._read(variables, features), batch["labels"]
        return Out(
            losses={"latent": losses.sigmoid_cross_entropy(logits, labels)},
            mutated={"batch_stats/encoder": encoder_stats},
            metrics={"accuracy": jnp.mean((logits > 0) == (labels > 0.5))},
        )

    def _constrain(
        self, variables: Variables, features: Sequence[jax.Array], labels: jax.Array, ctx: Ctx
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        """The latent discriminator is to read 1 - a; the weight grows from 0 through `loss.independence_ramp`."""
        weights = self.config.loss
        ramp = jnp.minimum(ctx.iteration / max(weights.independence_ramp, 1), 1.0)
        fooled = losses.sigmoid_cross_entropy(self._read(variables, features), 1.0 - labels)
        return weights.independence * ramp * fooled, {"independence": fooled}

    def _read(self, variables: Variables, features: Sequence[jax.Array]) -> jax.Array:
        """Logits of the attributes, (B, n)."""
        own = {"params": variables["params"]["latent_discriminator"]}
        return self.networks["latent_discriminator"].apply(own, features[-1])


def build(config: ml_collections.ConfigDict) -> AttGANIndependent:
    """The constrained AttGAN as `config` describes it (configs/attgan_independent_64.py says what each key means)."""
    plain = attgan.build(config)
    reader = MLP(tuple(config.model.latent_discriminator), len(config.attributes))
    latent = Optimizer(("latent_discriminator",), adam(config), learning_rate(config))
    return AttGANIndependent(
        config, {**plain.networks, "latent_discriminator": reader}, {**plain.optimizers, "latent": latent}
    )
