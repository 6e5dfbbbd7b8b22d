"""A discriminator from here in your own training loop: AttGAN's critic teaches a small network to sharpen faces.

    python examples/borrow_discriminator.py sharpened.png

The network, the optimizer and the loop are yours; the critic, its losses and the drawn faces are borrowed.
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
        return jnp.clip(blurred + nn.Conv(3, (5, 5))(nn.relu(nn.Conv(32, (5, 5))(blurred))), -1.0, 1.0)


def main(out: str, steps: int = 300, batch: int = 16) -> dict[str, float]:
    faces = jnp.asarray(to_float(open_source("synthetic:64", size=32).images(np.arange(64))))
    blurred = replicate(mean_pool(faces, 4), 4)
    net, optimizer = Sharpener(), optax.adam(1e-3, b1=0.5)
    critic = Discriminator(layers=((16, 4, 2), (32, 4, 2)), fc=32, attributes=1, norm="layer", fc_norm=False)
    params = {"net": net.init(jax.random.key(0), faces[:1]), "critic": critic.init(jax.random.key(1), faces[:1])}
    state = optimizer.init(params)

    def objective(params, rows, key):
        """What each network minimises, added up: what is not its own has its gradient stopped."""
        sharp = net.apply(params["net"], blurred[rows])
        real, fake, held = faces[rows], jax.lax.stop_gradient(sharp), jax.lax.stop_gradient(params["critic"])
        values = lambda images, params=params["critic"]: critic.apply(params, images)[0]  # noqa: E731
        ours = losses.wasserstein_generator(values(sharp, held)) + 100.0 * losses.l1(sharp, real)
        theirs = losses.wasserstein_critic(values(real), values(fake))
        return ours + theirs + 10.0 * losses.gradient_penalty(values, real, fake, key)

    gradient = jax.jit(jax.grad(objective))
    for step in range(steps):
        key = jax.random.key(step)
        rows = jax.random.randint(key, (batch,), 0, len(faces))
        updates, state = optimizer.update(gradient(params, rows, key), state)
        params = optax.apply_updates(params, updates)
    sharp = net.apply(params["net"], blurred)
    grids.save_grid(out, np.asarray(to_uint8(jnp.stack([faces, blurred, sharp], 1)[:4])))
    return {"blurred": float(losses.l1(blurred, faces)), "sharpened": float(losses.l1(sharp, faces))}


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
