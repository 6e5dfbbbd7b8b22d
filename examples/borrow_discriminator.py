"""A discriminator from here in your own training loop: AttGAN's critic teaches a small network to sharpen faces.

    python examples/borrow_discriminator.py sharpened.png

The network, the optimizers and the loop are yours; the critic, its losses and the drawn faces are borrowed.
"""

import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from faceattr_jax import grids, losses
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.data.source import open_source
from faceattr_jax.methods.attgan import Discriminator
from faceattr_jax.nn.blocks import mean_pool
from faceattr_jax.nn.pixels import replicate


class Sharpener(nn.Module):
    @nn.compact
    def __call__(self, blurred: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(32, (5, 5))(blurred))
        return jnp.clip(blurred + nn.Conv(3, (5, 5))(x), -1.0, 1.0)


def main(out: str, steps: int = 300, size: int = 32, batch: int = 16) -> dict[str, float]:
    source = open_source(f"synthetic:{max(64, batch)}", size=size)
    faces = to_float(source.images(np.arange(64)))
    net = Sharpener()
    critic = Discriminator(layers=((16, 4, 2), (32, 4, 2)), fc=32, attributes=1, norm="layer", fc_norm=False)
    optimizer, keys = optax.adam(1e-3, b1=0.5), jax.random.split(jax.random.key(0), 2)
    params = {"net": net.init(keys[0], faces[:1])["params"], "critic": critic.init(keys[1], faces[:1])["params"]}
    states = {name: optimizer.init(tree) for name, tree in params.items()}

    def objectives(params, real, key):
        blurred = replicate(mean_pool(real, 4), 4)
        sharp = net.apply({"params": params["net"]}, blurred)
        value = lambda x, held=params["critic"]: critic.apply({"params": held}, x)[0]  # noqa: E731
        fake = jax.lax.stop_gradient(sharp)
        penalty = losses.gradient_penalty(value, real, fake, key)
        held = jax.lax.stop_gradient(params["critic"])
        own = losses.wasserstein_generator(value(sharp, held)) + 100.0 * losses.l1(sharp, real)
        return own + losses.wasserstein_critic(value(real), value(fake)) + 10.0 * penalty, losses.l1(sharp, real)

    gradient = jax.jit(jax.value_and_grad(objectives, has_aux=True))
    for step in range(steps):
        key = jax.random.fold_in(jax.random.key(1), step)
        real = faces[jax.random.randint(key, (batch,), 0, len(faces))]
        (_, distance), gradients = gradient(params, real, key)
        for name in params:
            updates, states[name] = optimizer.update(gradients[name], states[name])
            params[name] = optax.apply_updates(params[name], updates)
    blurred = replicate(mean_pool(faces[:4], 4), 4)
    shown = jnp.stack([faces[:4], blurred, net.apply({"params": params["net"]}, blurred)], 1)
    grids.save_grid(out, np.asarray(to_uint8(shown)), ["Face", "Blurred", "Sharpened"])
    return {"blurred": float(losses.l1(replicate(mean_pool(faces, 4), 4), faces)), "sharpened": float(distance)}


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
