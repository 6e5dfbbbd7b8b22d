"""What every brush of the synthetic faces shares: coordinates on the face, the light, and the colours of a person."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from faceattr_jax.data import drawing as d
from faceattr_jax.data.drawing import Array, mix, rgb, smooth
from faceattr_jax.data.faces import HEAD_DEPTH, MOUTH_DEPTH, NOSE_DEPTH, TEMPLATE, Face, Mouth, mouth, named, to_face


class Canvas(NamedTuple):
    """A face with its labels by name, seen on a grid; (H, W) arrays unless said otherwise.

    `u`, `v` are coordinates on the face; `nose`, `lips` and `head` are `u` as seen by parts nearer to or farther from
    the viewer than the eyes, which a turn of the head moves.
    """

    face: Face
    on: dict[str, Array]  # scalars in [0, 1]
    male: Array  # scalars, as in `on`
    old: Array
    mouth: Mouth
    w: Array  # scalar, width of an output pixel on the face
    sun: tuple[Array, Array, Array]  # direction of the light: right, down, towards the viewer
    u: Array
    v: Array
    nose: Array
    lips: Array
    head: Array
    width: Array  # half the width of the face at v
    outline: Array  # distance to the face's edge
    radius: Array  # 0 at the centre, 1 at the edge


def canvas(face: Face, labels: Array, size: int) -> Canvas:
    """The face on a grid of size x size pixels."""
    p, shot, on = face.person, face.shot, named(labels)
    male, old = on["Male"], 1 - on["Young"]
    x, y, w = d.grid(size, TEMPLATE)
    u, v = to_face(shot, x, y)
    head = u - HEAD_DEPTH * shot.yaw
    taper = p.taper - 0.11 * male - 0.05 * old
    width = (p.width + male) * (1 - taper * smooth(v, -5, p.chin + 14))
    height = jnp.where(v > 0, p.chin + 2.0 * male, 67.0)
    outline, radius = d.egg(head, v, width, height, p.square + 0.3 * male * smooth(v, 0, 30))
    norm = jnp.sqrt(shot.light_x**2 + shot.light_y**2 + 0.7)
    return Canvas(
        face=face,
        on=on,
        male=male,
        old=old,
        mouth=mouth(face, on),
        w=w / shot.scale,
        sun=(shot.light_x / norm, shot.light_y / norm, jnp.sqrt(0.7) / norm),
        u=u,
        v=v,
        nose=u - NOSE_DEPTH * shot.yaw * smooth(v, -15, p.nose_length),
        lips=u - MOUTH_DEPTH * shot.yaw,
        head=head,
        width=width,
        outline=outline,
        radius=radius,
    )


def skin_colour(c: Canvas) -> Array:
    p = c.face.person
    deep, middle, light = rgb(0.42, 0.27, 0.20), rgb(0.74, 0.52, 0.39), rgb(0.89, 0.68, 0.55)
    tone = 2 * c.face.tone
    skin = mix(deep, mix(middle, light, jnp.clip(tone - 1, 0, 1)), jnp.clip(tone, 0, 1))
    hue = rgb(1.0, 1 - 0.03 * p.skin_hue, 1 - 0.05 * p.skin_hue)
    skin = skin * hue * mix(1.0, rgb(0.97, 0.93, 0.91), c.male)
    return mix(skin, rgb(0.99, 0.88, 0.82), 0.86 * c.on["Pale_Skin"])


def hair_colour(c: Canvas) -> Array:
    """The labelled colour; red where none of the four labels is set, so that no two cases look alike."""
    s = c.face.style.shade
    colours = {
        "Black_Hair": rgb(0.085 + 0.02 * s, 0.07 + 0.01 * s, 0.07 - 0.01 * s),
        "Blond_Hair": rgb(0.87 + 0.05 * s, 0.71 + 0.07 * s, 0.42 + 0.10 * s),
        "Brown_Hair": rgb(0.37 + 0.07 * s, 0.23 + 0.05 * s, 0.14 + 0.03 * s),
        "Gray_Hair": rgb(0.66 + 0.08 * s, 0.67 + 0.08 * s, 0.69 + 0.07 * s),
    }
    total = sum(c.on[name] for name in colours)
    blend = sum(c.on[name] * colour for name, colour in colours.items()) / jnp.maximum(total, 1.0)
    return blend + jnp.maximum(1.0 - total, 0.0) * rgb(0.66 + 0.06 * s, 0.24 + 0.04 * s, 0.09)


def natural_colour(c: Canvas) -> Array:
    """Brows and beards keep the person's own colour, whatever the hair is dyed; age salts it.

    Darker on darker skin, on which it could not be seen otherwise.
    """
    p = c.face.person
    fair = smooth(p.skin, 0.1, 0.7)
    natural = mix(rgb(0.07, 0.05, 0.045), rgb(0.38, 0.25, 0.14), p.natural * fair)
    return mix(natural, rgb(0.42, 0.40, 0.39), (0.1 + 0.2 * fair) * c.old)
