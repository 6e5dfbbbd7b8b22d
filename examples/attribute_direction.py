"""A generator inside your own `jax.grad`: the latent direction that gives faces an attribute, found by optimisation.

    python examples/attribute_direction.py runs/attgan runs/judge Smiling directions.png

The editor need not know the attribute: a judge that does is differentiated through the decoder. One direction is found
for all faces, as short as will do. Works for models with a latent map and attribute signs (AttGAN and its kin).
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import faceattr_jax as fj
from faceattr_jax import grids
from faceattr_jax.data.images import to_float, to_uint8
from faceattr_jax.data.source import open_source


def find_direction(editor: fj.Editor, judge: fj.Editor, faces: jax.Array, attribute: str, steps: int) -> jax.Array:
    """What to add to the latents of `faces` (B, S, S, 3) so that the judge sees the attribute: (h, w, C)."""
    column = judge.attributes.index(attribute)
    features, signs = encoded(editor, faces)

    def objective(direction: jax.Array) -> jax.Array:
        moved = editor.method.decode(editor.variables, [*features[:-1], features[-1] + direction], signs)
        seen = judge.method.classify(judge.variables, moved)[:, column]
        return -jnp.mean(jnp.log(seen + 1e-6)) + 0.1 * jnp.mean(direction**2)

    optimizer, gradient = optax.adam(0.02), jax.jit(jax.grad(objective))
    direction = jnp.zeros(features[-1].shape[1:])
    state = optimizer.init(direction)
    for _ in range(steps):
        updates, state = optimizer.update(gradient(direction), state)
        direction = optax.apply_updates(direction, updates)
    return direction


def encoded(editor: fj.Editor, faces: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """The encoder's outputs, the latents last, and the faces' own attributes as -1 and 1."""
    own = editor.method.own(editor.variables, faces)
    return editor.method.encode(editor.variables, faces), 2.0 * own - 1.0


def main(model: str, judge: str, attribute: str, out: str, steps: int = 200) -> None:
    editor = fj.load(model)
    source = open_source(editor.config.data.path, size=editor.size, crop=editor.crop)
    faces = jnp.asarray(to_float(source.images(source.table.indices("test")[:8])))
    direction = find_direction(editor, fj.load(judge), faces, attribute, steps)
    features, signs = encoded(editor, faces)
    moved = [[*features[:-1], features[-1] + step * direction] for step in (0.0, 0.5, 1.0)]
    rows = [editor.method.decode(editor.variables, latents, signs) for latents in moved]
    grids.save_grid(out, np.asarray(to_uint8(jnp.stack([faces, *rows], 1))), ["Input", "0", "0.5", "1"])


if __name__ == "__main__":
    main(*sys.argv[1:])
