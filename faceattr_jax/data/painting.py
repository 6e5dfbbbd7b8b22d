"""Paints a synthetic face, back to front: background, hair behind, neck, clothes, face, hair in front, glasses, hat.

Attributes enter as factors in [0, 1] of coverage, colour and geometry, so the picture is differentiable in them and
in every parameter of the face.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from faceattr_jax.data import drawing as d
from faceattr_jax.data.canvas import Canvas, canvas, hair_colour, skin_colour
from faceattr_jax.data.drawing import Array, bump, fade, fill, hsv, mix, over, rgb, ripple, smooth, stroke
from faceattr_jax.data.faces import HEAD_DEPTH, TEMPLATE, Face
from faceattr_jax.data.features import paint_beard, paint_brows, paint_eyes, paint_head, paint_mouth


def render(face: Face, labels: Array, size: int) -> Array:
    """The face with `labels` (A,) in [0, 1], in the order of ATTRIBUTES, as a picture (size, size, 3) in [-1, 1].

    Pure; usable under jit (`size` static), vmap and grad. The face's own picture is that of `face.labels`.
    """
    c, shot = canvas(face, labels, size), face.shot
    hair = _hair(c)
    picture = over(_background(c, size), hair.colour * 0.55, hair.behind)
    picture = _body(c, picture)
    picture = paint_head(c, hair.shadow, jnp.maximum(_under_brim(c), 0.0), picture)
    for brush in (paint_mouth, paint_eyes, paint_brows, paint_beard):
        picture = brush(c, picture)
    picture = over(picture, hair.colour, hair.front)
    picture = _hat(c, _glasses(c, picture))
    tint = rgb(1 + 0.03 * shot.warmth, 1.0, 1 - 0.04 * shot.warmth)
    return jnp.moveaxis(jnp.clip(picture * tint * shot.light, 0.0, 1.0), 0, -1) * 2.0 - 1.0


def _background(c: Canvas, size: int) -> Array:
    s, rate = c.face.shot, c.face.shot.back_rate
    x, y, _ = d.grid(size, TEMPLATE)
    a, b = jnp.cos(s.back_angle), jnp.sin(s.back_angle)
    along = a * (x - 89) + b * (y - 89)
    near = hsv(s.back_hue, s.back_saturation, jnp.clip(s.back_value - s.back_gradient, 0.12, 0.95))
    far = hsv(s.back_hue + s.back_shift, s.back_saturation, jnp.clip(s.back_value + s.back_gradient, 0.12, 0.95))
    waves = (
        jnp.sin(rate * x + 2 * jnp.sin(0.7 * rate * y + s.back_phase))
        + jnp.sin(1.3 * rate * y + 1.5 * jnp.sin(rate * x - s.back_phase) + 3 * s.back_phase)
        + 0.6 * jnp.sin(2.1 * rate * along + 2 * s.back_phase)
    )
    return mix(near, far, smooth(along, -110, 110)) * (1 + s.back_texture * waves)


class Hair(NamedTuple):
    colour: Array  # (3, H, W), shaded strands
    behind: Array  # coverage behind neck and shoulders
    front: Array  # coverage over the face
    shadow: Array  # on the forehead


def _under_brim(c: Canvas) -> Array:
    """Distance below the lower edge of a hat; negative above it."""
    return c.v + 35.0 - 0.0022 * c.head**2


def _hair(c: Canvas) -> Hair:
    p, t, on, u, v, w = c.face.person, c.face.style, c.on, c.head, c.v, c.w
    root = 14.0 * p.part  # strands fan out from the parting on the crown
    reach = d.length(u - root, v + 74.0) + 6.0
    ray = (u - root) / reach
    bend = (0.4 + p.curl) * jnp.sin(0.085 * v + t.phase)
    strands = (
        ripple(19 * ray + t.phase + bend, 19 / reach, w)
        + 0.8 * ripple(43 * ray - 2 * t.phase + 2 * bend + jnp.sin(9 * ray), 43 / reach, w)
        + 0.7 * ripple(109 * ray + 3 * jnp.sin(17 * ray + t.phase) + 3 * bend, 109 / reach, w)
        + 0.6 * ripple(223 * ray + 4 * jnp.sin(31 * ray) + 4 * bend, 223 / reach, w)
    )

    # The outside: a cap that ends over the ears, or one with locks to the shoulders.
    half = p.width + 1.5 + 0.6 * t.volume
    cap = d.ellipse(u, v + 10.0, half, 60.0 + t.volume)
    wave = p.curl * (2.2 * jnp.sin(0.16 * v + t.phase) + 1.2 * jnp.sin(0.31 * v + 2 * t.phase))
    side = (
        half + t.long_spread * smooth(v, -10, 50) - 0.0012 * jnp.maximum(v + 10.0, 0.0) ** 2 + wave * smooth(v, 0, 30)
    )
    ends = v - t.long_hair - 0.15 * jnp.abs(u) + 1.5 * strands
    long = d.join(cap, jnp.maximum(jnp.abs(u) - side, jnp.maximum(-v - 10.0, ends)), 6.0)
    crop, _ = d.egg(u - 0.3 * root * smooth(-v, 20, 70), v + 20.0, half - 0.5, 47.0 + 1.3 * t.volume, 2.35)
    short = jnp.maximum(crop - 0.5 * strands, v - t.short_hair - 0.8 * strands)
    outer = mix(long, short, c.male)

    # The opening in front of the face: a hairline above, straight edges below.
    top = p.hairline + 3.0 * c.old + 2.0 * c.male
    opening = p.width - mix(4.5 + 0.02 * jnp.maximum(v, 0) - 0.3 * wave, 1.5, c.male)
    temple = u - 0.75 * root * smooth(-v, 2, 45)
    inner, _ = d.egg(temple, jnp.minimum(v - 2.0, 0.0), opening, top, mix(2.0, 2.6, c.male))
    inner = inner + 0.5 * strands * smooth(-v, 0, 20)
    fringe = v + t.bangs_length - t.bangs_sweep * u - 0.9 * strands - 0.005 * u**2
    inner = mix(inner, jnp.maximum(inner, -fringe), on["Bangs"])
    front = jnp.maximum(outer, -inner)

    lx, ly, lz = c.sun
    light = 0.70 + 0.42 * jnp.maximum(lx * u / 60 + ly * (v + 15) / 75 + 0.6 * lz, 0)
    depth = (1 - 0.3 * smooth(v, 0, 75)) * (1 - 0.25 * jnp.exp(-jnp.maximum(inner, 0) / 5) * smooth(v, -30, 10))
    parting = bump(u - root, 1.3) * smooth(-v, top - 4, top + 2) * (1 - on["Bangs"]) * (1 - 0.6 * c.male)
    sheen = bump(u - 40 * lx, 30) * bump(v + 57 - 0.009 * u**2, 6) * (0.25 + 0.08 * strands)
    base = hair_colour(c)
    colour = base * light * depth * (1 + 0.10 * strands) * (1 - 0.35 * parting) + 0.3 * sheen * (0.3 + base)

    there = (1 - on["Bald"]) * (1 - on["Wearing_Hat"] * fill(_under_brim(c), w))
    shadow = there * jnp.exp(jnp.minimum(inner, 0) / 4.0) * mix(1.0, 0.6, c.male)
    return Hair(colour, fill(outer, w) * there * (1 - c.male), fill(front, w) * there, shadow)


def _body(c: Canvas, picture: Array) -> Array:
    p, s, v, w, lx = c.face.person, c.face.shot, c.v, c.w, c.sun[0]
    u = c.u - 0.5 * HEAD_DEPTH * s.yaw
    neck = mix(21.0, 29.0, c.male) + 0.006 * jnp.maximum(v - 60, 0) ** 2
    shade = 0.92 + 0.25 * lx * u / 30 - 0.25 * (u / 30) ** 2
    shade = shade * (1 - 0.5 * fade(v - p.chin - 9 + 0.004 * u**2, 9))  # of the chin
    cords = 1 - 0.07 * bump(jnp.abs(u) - 11 + 0.25 * (v - 60), 1.8)
    skin = skin_colour(c) * shade * cords * rgb(1.0, 0.96, 0.94)
    picture = over(picture, skin, fill(jnp.maximum(jnp.abs(u) - neck, 30 - v), w))
    shoulder = mix(72.0, 68.0, c.male) + 0.16 * jnp.maximum(jnp.abs(u) - 28, 0) + s.collar * bump(u, 17)
    cloth = hsv(s.cloth_hue, s.cloth_saturation, s.cloth_value)
    folds = 0.9 + 0.2 * lx * u / 80 + 0.05 * jnp.sin(0.12 * u + 0.05 * v * s.back_phase)
    hem = 1 - 0.3 * bump(v - shoulder - 3, 1.5)
    return over(picture, cloth * folds * hem, fill(shoulder - v, w))


def _glasses(c: Canvas, picture: Array) -> Array:
    p, t, w, v, wear = c.face.person, c.face.style, c.w, c.v, c.on["Eyeglasses"]
    side, thick = jnp.abs(c.u), t.glasses_thickness
    x = side - p.eye_distance - 1.0
    hx, hy = jnp.minimum(t.glasses_width, p.eye_distance - 2.0), t.glasses_height
    lens = d.box(x, v - 1.5 - 0.02 * x, hx, hy, t.glasses_corner * hy)
    bridge = stroke(v + 3.0 + 0.03 * side**2, 0.9 * thick, w) * fill(side - p.eye_distance + hx - 1, w)
    arm = stroke(v + 3.5, 0.8 * thick, w) * fill(jnp.maximum(p.eye_distance + 1 + hx - side, side - p.width - 1), w)
    solid = jnp.maximum(stroke(lens, thick, w), jnp.maximum(bridge, arm))
    glare = stroke(0.8 * c.u + 0.6 * v + 6 * c.sun[0] - 4 * jnp.sign(c.u), 2.4, w)
    inside = wear * fill(lens, w)
    picture = picture * (1 - 0.15 * wear * fade(jnp.abs(lens + 1.5) - thick, 2.0))  # the frame's shadow
    picture = over(picture, picture * 0.6 + 0.4 * hsv(t.glasses_hue, 0.35, 0.55), 2 * t.glasses_tint * inside)
    picture = over(picture, rgb(1.0, 1.0, 1.0), 0.22 * glare * inside)
    rim = 1 + 0.35 * bump(lens + 0.5 * thick, 0.5 * thick) * smooth(-v, -6, 10)
    return over(picture, hsv(t.glasses_hue, t.glasses_saturation, t.glasses_value) * rim, wear * solid)


def _hat(c: Canvas, picture: Array) -> Array:
    t, w, u, lx, wear = c.face.style, c.w, c.head, c.sun[0], c.on["Wearing_Hat"]
    half = c.face.person.width + 8.0 + 0.4 * t.volume
    edge = _under_brim(c)
    crown, _ = d.egg(u, jnp.minimum(edge, 0.0), half, t.hat_height, 2.6)
    crown = jnp.maximum(crown, edge)
    knit = 1 + 0.09 * ripple(1.1 * u, 1.1, w) * (1 - smooth(t.hat_brim, -2, 1))
    light = (0.9 + 0.3 * lx * u / 60 - 0.25 * (u / 60) ** 2 - 0.12 * smooth(edge, -14, 0)) * knit
    colour = hsv(t.hat_hue, t.hat_saturation, t.hat_value)
    picture = over(picture, colour * light, wear * fill(crown, w))
    band = hsv(t.hat_band, 0.5, 0.35 + 0.4 * (1 - smooth(t.hat_value, 0.4, 0.6)))
    picture = over(picture, band * light, wear * fill(jnp.maximum(crown, -edge - 9.0), w))
    brim = d.ellipse(u, edge + 1.0, half + jnp.maximum(t.hat_brim, 0.0), 4.2)
    return over(picture, colour * light * 0.8, wear * fill(brim, w) * smooth(t.hat_brim, -2.0, 1.0))
