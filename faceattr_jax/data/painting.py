"""Paints a synthetic face, back to front: background, hair behind, neck, clothes, face, eyes, mouth, hair, hat.

The face is shaded as a relief: an egg with Gaussian bumps (nose, sockets, cheeks, chin) whose slopes give normals
for one directed light. Attributes enter as factors in [0, 1] of coverage and geometry, so the picture is
differentiable in them as well.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax.numpy as jnp

from faceattr_jax.data import drawing as d
from faceattr_jax.data.drawing import Array, blob, fade, fill, hsv, mix, over, rgb, ripple, smooth, stroke
from faceattr_jax.data.faces import (
    HEAD_DEPTH,
    MOUTH_DEPTH,
    NOSE_DEPTH,
    TEMPLATE,
    Face,
    Mouth,
    mouth,
    named,
    to_face,
)


class Canvas(NamedTuple):
    """What every brush needs: the face, its labels by name, face coordinates, pixel width and the light."""

    face: Face
    on: dict[str, Array]
    u: Array  # (H, W), eyes
    v: Array
    head: Array  # u of the skull and the hair
    w: Array  # width of an output pixel on the face
    sun: tuple[Array, Array, Array]
    skin: Array  # (3, 1, 1)


def render(face: Face, labels: Array, size: int) -> Array:
    """The face with `labels` (A,) in [0, 1], in the order of ATTRIBUTES, as a picture (size, size, 3) in [-1, 1].

    Pure; usable under jit (`size` static), vmap and grad. The face's own picture is that of `face.labels`.
    """
    x, y, w = d.grid(size, TEMPLATE)
    shot, on = face.shot, named(labels)
    u, v = to_face(shot, x, y)
    norm = jnp.sqrt(shot.light_x**2 + shot.light_y**2 + 0.7)
    sun = (shot.light_x / norm, shot.light_y / norm, 0.8366 / norm)
    c = Canvas(face, on, u, v, u - HEAD_DEPTH * shot.yaw, w / shot.scale, sun, _skin_colour(face, on))

    hair = _hair(c)
    picture = _background(c, x, y)
    picture = over(picture, hair.colour * 0.55, hair.behind)
    picture = _body(c, picture)
    picture = _head(c, hair, picture)
    picture = _mouth(c, mouth(face, on), picture)
    picture = _eyes(c, picture)
    picture = _facial_hair(c, mouth(face, on), picture)
    picture = over(picture, hair.colour, hair.front)
    picture = _glasses(c, picture)
    picture = _hat(c, picture)
    tint = rgb(1 + 0.03 * shot.warmth, 1.0, 1 - 0.04 * shot.warmth)
    return jnp.moveaxis(jnp.clip(picture * tint * shot.light, 0.0, 1.0), 0, -1) * 2.0 - 1.0


# --- colours --------------------------------------------------------------------------------------------------


def _skin_colour(face: Face, on: dict[str, Array]) -> Array:
    p = face.person
    deep, middle, light = rgb(0.40, 0.25, 0.18), rgb(0.72, 0.50, 0.37), rgb(0.88, 0.68, 0.55)
    skin = mix(deep, mix(middle, light, jnp.clip(2 * p.skin - 1, 0, 1)), jnp.clip(2 * p.skin, 0, 1))
    skin = skin * rgb(1.0, 1 - 0.03 * p.skin_hue, 1 - 0.05 * p.skin_hue)
    skin = skin * mix(1.0, rgb(0.97, 0.93, 0.91), on["Male"])
    pale = rgb(0.97, 0.91, 0.89) * rgb(1.0, 1 - 0.01 * p.skin_hue, 1 - 0.02 * p.skin_hue)
    return mix(skin, pale, 0.85 * on["Pale_Skin"])


def _hair_colour(face: Face, on: dict[str, Array]) -> Array:
    """Colour of the labelled hair; red where none of the four labels is set, so that no two cases look alike."""
    s = face.style.shade
    colours = {
        "Black_Hair": rgb(0.075 + 0.02 * s, 0.065 + 0.01 * s, 0.07 - 0.01 * s),
        "Blond_Hair": rgb(0.88 + 0.05 * s, 0.72 + 0.07 * s, 0.42 + 0.10 * s),
        "Brown_Hair": rgb(0.36 + 0.07 * s, 0.22 + 0.05 * s, 0.13 + 0.03 * s),
        "Gray_Hair": rgb(0.66 + 0.08 * s, 0.67 + 0.08 * s, 0.70 + 0.07 * s),
    }
    total = sum(on[name] for name in colours)
    blend = sum(on[name] * colour for name, colour in colours.items()) / jnp.maximum(total, 1.0)
    return blend + jnp.maximum(1.0 - total, 0.0) * rgb(0.66 + 0.06 * s, 0.24 + 0.04 * s, 0.08)


def _natural_colour(face: Face, on: dict[str, Array]) -> Array:
    """Brows and beards keep the person's own colour, whatever the hair is dyed; age salts it."""
    dark, fair = rgb(0.07, 0.05, 0.045), rgb(0.40, 0.26, 0.14)
    return mix(mix(dark, fair, face.person.natural), rgb(0.42, 0.40, 0.39), 0.35 * (1 - on["Young"]))


# --- behind the face ------------------------------------------------------------------------------------------


def _background(c: Canvas, x: Array, y: Array) -> Array:
    s = c.face.shot
    a, b = jnp.cos(s.back_angle), jnp.sin(s.back_angle)
    along, across = (a * (x - 89) + b * (y - 89)) / 110, (b * (x - 89) - a * (y - 89)) / 110
    near = hsv(s.back_hue, s.back_saturation, jnp.clip(s.back_value - s.back_gradient, 0.1, 1))
    far = hsv(s.back_hue + s.back_shift, s.back_saturation, jnp.clip(s.back_value + s.back_gradient, 0.1, 1))
    rate = s.back_rate
    waves = (
        jnp.sin(rate * x + 2 * jnp.sin(0.7 * rate * y + s.back_phase))
        + jnp.sin(1.3 * rate * y + 1.5 * jnp.sin(rate * x - s.back_phase) + 3 * s.back_phase)
        + 0.6 * jnp.sin(2.1 * rate * (x * a + y * b) + 2 * across)
    )
    return mix(near, far, smooth(along, -1, 1)) * (1 + s.back_texture * waves)


class Hair(NamedTuple):
    colour: Array  # (3, H, W), shaded strands
    behind: Array  # coverage behind neck and shoulders
    front: Array  # coverage over the face
    shadow: Array  # of the hair on the forehead


def _brim(c: Canvas) -> Array:
    """Height of v above the lower edge of a hat; negative above it."""
    return c.v + 35.0 - 0.0022 * c.head**2


def _hair(c: Canvas) -> Hair:
    p, t, on = c.face.person, c.face.style, c.on
    u, v, male = c.head, c.v, c.on["Male"]
    half = p.width + 2.5 + 0.5 * t.volume
    cap = d.ellipse(u, v + 10.0, half, 60.0 + t.volume)
    down = jnp.maximum(v + 10.0, 0.0)
    wave = p.curl * (2.2 * jnp.sin(0.16 * v + t.phase) + 1.2 * jnp.sin(0.31 * v + 2 * t.phase))
    side = half + t.long_spread * smooth(v, -10, 50) - 0.0012 * down**2 + wave * smooth(v, 0, 30)
    locks = jnp.maximum(
        jnp.abs(u) - side, jnp.maximum(-v - 10.0, v - t.long_hair - 0.15 * jnp.abs(u) - 2 * jnp.sin(0.5 * u))
    )
    long = d.join(cap, locks, 6.0)
    short = d.join(jnp.maximum(cap, v - t.short_hair), cap + 30.0, 2.0)
    outer = mix(long, short, male)

    # the opening in front of the face: hairline above, straight edges below
    top = p.hairline - 2.0 + 3.0 * (1 - on["Young"]) + 2.0 * male
    opening = p.width - mix(5.0 + 0.02 * jnp.maximum(v, 0) - 0.1 * wave, 1.5 + 0.0, male)
    tilt = u - 5.0 * p.part * smooth(-v, 5, 45)
    inner = d.ellipse(tilt, jnp.minimum(v - 2.0, 0.0), opening, top + 2.0)
    ray = (u - 10 * p.part) / (v + 110.0)  # strands fan out from above the crown
    rate = 1 / (v + 110.0)
    bend = (0.3 + p.curl) * jnp.sin(0.09 * v + t.phase)
    strands = (
        ripple(37 * ray + t.phase + bend, 37 * rate, c.w)
        + 0.7 * ripple(83 * ray - 2 * t.phase + 2 * bend, 83 * rate, c.w)
        + 0.6 * ripple(211 * ray + 3 * jnp.sin(29 * ray + t.phase) + 3 * bend, 211 * rate, c.w)
        + 0.5 * ripple(433 * ray + 4 * jnp.sin(47 * ray) + 5 * bend, 433 * rate, c.w)
    )
    fringe = v + t.bangs_length - t.bangs_sweep * u - 0.9 * strands - 0.006 * u**2
    inner = mix(inner, jnp.maximum(inner, -fringe), on["Bangs"])
    front = jnp.maximum(outer, -inner)

    uncovered = 1 - on["Wearing_Hat"] * fill(_brim(c), c.w)
    there = (1 - on["Bald"]) * uncovered
    lx, ly, lz = c.sun
    light = 0.72 + 0.4 * jnp.maximum(lx * u / 60 + ly * (v + 15) / 75 + lz * 0.6, 0)
    sheen = blob(u - 40 * lx, v + 58 - 0.009 * u**2, 30, 6) * (0.25 + 0.1 * strands)
    depth = 1 - 0.25 * fade(-inner - 5, 6) * 0 - 0.35 * smooth(v, 0, 70)
    colour = _hair_colour(c.face, on) * light * depth * (1 + 0.13 * strands) + 0.35 * sheen * (
        0.3 + _hair_colour(c.face, on)
    )
    shadow = there * jnp.exp(jnp.minimum(inner, 0) / 4.0)
    return Hair(colour, fill(outer, c.w) * there * (1 - male), fill(front, c.w) * there, shadow)


def _body(c: Canvas, picture: Array) -> Array:
    p, s, male = c.face.person, c.face.shot, c.on["Male"]
    u, v = c.u - 0.5 * HEAD_DEPTH * s.yaw, c.v
    neck = mix(21.0, 29.0, male) + 0.006 * jnp.maximum(v - 60, 0) ** 2
    lx = c.sun[0]
    round_ = 0.92 + 0.25 * lx * u / 30 - 0.25 * (u / 30) ** 2
    under = 1 - 0.5 * fade(v - p.chin - 9 + 0.004 * u**2, 9)
    picture = over(
        picture, c.skin * round_ * under * rgb(1.0, 0.96, 0.94), fill(jnp.abs(u) - neck, c.w) * fill(30 - v, c.w)
    )
    shoulder = mix(72.0, 68.0, male) + 0.16 * jnp.maximum(jnp.abs(u) - 28, 0) + s.collar * blob(u, 0 * v, 17, 1)
    cloth = hsv(s.cloth_hue, s.cloth_saturation, s.cloth_value)
    folds = 0.9 + 0.2 * lx * u / 80 + 0.05 * jnp.sin(0.12 * u + 0.05 * v * s.back_phase)
    hem = 1 - 0.3 * blob(v - shoulder - 3, 0 * v, 1.5, 1)
    return over(picture, cloth * folds * hem, fill(shoulder - v, c.w))


# --- the face -------------------------------------------------------------------------------------------------


def _slope(u: Array, v: Array, bumps) -> tuple[Array, Array]:
    """Slopes of a sum of Gaussian bumps (u0, v0, su, sv, height)."""
    parts = [(u - u0, v - v0, su, sv, h) for u0, v0, su, sv, h in bumps]
    terms = [(du / su**2, dv / sv**2, h * blob(du, dv, su, sv)) for du, dv, su, sv, h in parts]
    return sum(-a * g for a, _, g in terms), sum(-b * g for _, b, g in terms)


def _head(c: Canvas, hair: Hair, picture: Array) -> Array:
    p, on, s = c.face.person, c.on, c.face.shot
    old, male, smile = 1 - on["Young"], on["Male"], on["Smiling"]
    u, v = c.head, c.v
    lower = jnp.where(v > 0, p.chin + 2.0 * male, 67.0)
    taper = p.taper - 0.11 * male - 0.05 * old
    width = (p.width + 1.0 * male) * (1 - taper * smooth(v, -5, p.chin + 14))
    outline, radius = d.egg(u, v, width, lower, p.square + 0.3 * male * smooth(v, 0, 30))

    lx, ly, lz = c.sun
    ear_u = jnp.abs(u) - width - 1.5
    ear = d.ellipse(ear_u + 0.12 * (v - 5), v - 5, 5.5, 11.5)
    ear_shade = (0.85 + 0.2 * lx * jnp.sign(u)) * (1 - 0.35 * blob(ear_u - 0.5, v - 5, 2, 6))
    picture = over(picture, c.skin * ear_shade * rgb(1.0, 0.92, 0.9), fill(ear, c.w))

    nose_u = c.u - NOSE_DEPTH * s.yaw * smooth(v, -15, p.nose_length)
    side, nw, nl, nh = jnp.abs(c.u), p.nose_width, p.nose_length, p.nose_height
    around = _slope(side, v, [
        (p.eye_distance, -2, 10, 6.5, -5.0), (p.eye_distance + 1, -p.brow_height - 1, 13, 4, 1.2 + 1.6 * male),
        (p.width - 17, 19 - 2 * smile, 11, 10, p.cheek * (3.5 + 3.5 * smile)),
        (p.width - 8, -16, 6, 14, -1.5),
    ])  # fmt: skip
    centre = _slope(nose_u, v, [
        (0, 6, 4.5, 13, 4.5 * nh), (0, nl - 2, 5.5, 5, 5.5 * nh), (0, p.mouth_height, 17, 9, 2.0),
        (0, p.mouth_height + 7.5, 9, 3, -1.2), (0, p.chin - 9, 9, 6, 3.0), (0, p.mouth_height - 9, 2.2, 4, -1.0),
    ])  # fmt: skip
    wing = _slope(jnp.abs(nose_u), v, [(nw, nl + 1, 3.5, 3.5, 2.6 * nh)])
    bend = radius**2 * 0.75 + 0.15
    nx = u / p.width * bend * 1.1 - around[0] * jnp.sign(c.u) - centre[0] - wing[0] * jnp.sign(nose_u)
    ny = v / lower * bend * 0.9 - around[1] - centre[1] - wing[1]
    nz = jnp.sqrt(jnp.maximum(1.2 - 0.75 * jnp.minimum(radius, 1.2) ** 2, 0.15))
    norm = jnp.sqrt(nx**2 + ny**2 + nz**2)
    facing = jnp.maximum((nx * lx + ny * ly + nz * lz) / norm, 0.0)
    shade = 1.02 - s.contrast * (1 - facing) * 0.8
    shade = shade * (1 - 0.32 * hair.shadow * mix(1.0, 0.6, male))
    shade = shade * (1 - 0.35 * on["Wearing_Hat"] * blob(jnp.maximum(_brim(c), 0), 0 * v, 7, 1))
    shade = shade * (1 - 0.3 * blob(nose_u + 5 * lx, v - nl - 5.5, nw, 2.6))  # under the nose
    nostril = d.ellipse(jnp.abs(nose_u) - 0.52 * nw, v - nl - 3.2 + 0.15 * jnp.abs(nose_u), 2.1, 1.25)
    shade = shade * (1 - 0.6 * fill(nostril, c.w + 1.0))
    crease = d.length((jnp.abs(nose_u) - nw + 1.5) * 1.0, v - nl - 0.0) - 4.2
    shade = shade * (1 - 0.22 * blob(crease, 0 * v, 0.9, 1) * smooth(jnp.abs(nose_u), nw - 1, nw + 2))
    shade = shade * (1 - 0.14 * male * fade(-(radius - 0.86) * 30, 6) * smooth(v, 5, 30))
    shade = shade * _age(c, nose_u, old, smile)
    glow = jnp.power(jnp.maximum(shade, 0.05), 1.0)
    skin = c.skin * jnp.concatenate([(glow**e)[None] for e in (0.85, 1.05, 1.12)])
    flush = 0.25 * blob(nose_u, v - nl, 8, 6) + 0.2 * blob(side - p.width + 15, v - 20, 9, 8)
    skin = skin * (1 - flush * rgb(0.0, 0.14, 0.13))
    rosy = on["Rosy_Cheeks"] * c.face.style.blush * blob(side - p.width + 14, v - 20, 9.5, 7.5)
    skin = over(skin, mix(c.skin, rgb(0.95, 0.28, 0.36), 0.7) * shade, 0.8 * rosy)
    skin = over(skin, c.skin * rgb(0.62, 0.62, 0.66), 0.42 * male * c.face.style.stubble * _beard_shape(c, 22.0))
    half = jnp.sqrt(lx**2 + ly**2 + (lz + 1) ** 2)
    gloss = jnp.maximum((nx * lx + ny * ly + nz * (lz + 1)) / (norm * half), 0.0) ** 24
    bald = on["Bald"] * smooth(-v, 15, 45)
    skin = skin + (0.10 + 0.25 * bald) * gloss * rgb(1.0, 0.97, 0.93)
    rim = 1 - 0.25 * fade(-outline - 1.5, 4.0)
    return over(picture, skin * rim, fill(outline, c.w))


def _age(c: Canvas, nose_u: Array, old: Array, smile: Array) -> Array:
    """Folds, bags and creases of age as a factor of the shade; a smile shows a touch of the folds."""
    p, t, v = c.face.person, c.face.style, c.v
    side, x = jnp.abs(c.u), jnp.abs(nose_u)
    run = smooth(v, p.nose_length - 3, p.nose_length + 3) * (1 - smooth(v, p.mouth_height + 2, p.mouth_height + 9))
    fold = blob(x - p.nose_width - 2.5 - 0.62 * (v - p.nose_length) - 1.5 * smile, 0 * v, 2.0, 1) * run
    eye = side - p.eye_distance
    bag = blob(d.length(eye * 0.75, v - 1) - 9.5, 0 * v, 1.6, 1) * smooth(v, 3, 7)
    brow = blob(jnp.sin(0.9 * (v + 0.004 * c.u**2)), 0 * v, 0.45, 1) * smooth(-v, 19, 24) * smooth(v, -42, -34)
    brow = brow * (1 - smooth(side, 18, 30))
    feet = blob(jnp.sin(0.85 * (v + 1) / (1 + 0.06 * jnp.maximum(eye - 11, 0))), 0 * v, 0.5, 1)
    feet = feet * smooth(eye, 10, 13) * (1 - smooth(eye, 17, 20)) * blob(v, 0 * v, 7, 1)
    jowl = blob(side - 20, v - p.mouth_height - 12, 3.0, 7)
    marionette = blob(x - p.mouth_width - 3 - 0.15 * (v - p.mouth_height), 0 * v, 1.6, 1)
    marionette = marionette * smooth(v, p.mouth_height, p.mouth_height + 4) * (1 - smooth(v, 52, 58))
    deep = 0.42 * fold + 0.34 * bag + 0.22 * brow + 0.2 * feet + 0.16 * jowl + 0.3 * marionette
    return (1 - old * t.wrinkles * jnp.minimum(deep, 0.6)) * (1 - 0.16 * (1 - old) * smile * fold)


def _eyes(c: Canvas, picture: Array) -> Array:
    p, s, t, on = c.face.person, c.face.shot, c.face.style, c.on
    male, old = on["Male"], 1 - on["Young"]
    sign = jnp.sign(c.u)
    x, v = jnp.abs(c.u) - p.eye_distance, c.v  # mirrored: x grows outwards on both sides
    w = c.w
    squint = (1 - 0.55 * on["Narrow_Eyes"]) * (1 - 0.14 * old)
    high = p.eye_height * squint * mix(1.05, 0.88, male)
    low = 0.62 * p.eye_height * squint * (1 - 0.3 * on["Smiling"] * t.smile)
    tilt = p.eye_tilt - 0.05 * old
    along = x / p.eye_width
    arch = jnp.maximum(1 - along**2, -4.0)
    upper, lower = -high * arch - tilt * x, low * arch - tilt * x
    lid = upper - v  # > 0 above the upper lid
    white = jnp.maximum(lid, v - lower) * 0.9
    open_ = fill(white, w)

    socket = blob(x - 1, v + 4, 11, 5)
    picture = picture * (1 - 0.14 * socket * mix(1.0, 1.3, male) * rgb(0.8, 1.0, 1.0))
    makeup = (
        (1 - male) * fade(-lid, 1.5) * fade(jnp.abs(x) - p.eye_width - 1, 3) * fade(-v - high - 5, 3) * fade(v + 1, 2)
    )
    picture = over(picture, picture * rgb(0.62, 0.5, 0.55), 0.45 * makeup)
    crease = stroke(lid - 3.2 - 0.8 * old, 0.5, w) * fade(jnp.abs(x) - p.eye_width, 2)
    picture = picture * (1 - 0.45 * crease)

    ball = rgb(0.94, 0.92, 0.90) * (0.78 + 0.22 * smooth(v - upper, 0, 5)) * (1 - 0.25 * jnp.minimum(along**2, 1.0))
    turn = s.gaze + 1.2 * s.yaw
    iu, iv = c.u - sign * p.eye_distance - turn, v + 0.4
    gap = d.length(iu, iv)
    stops = rgb(0.26, 0.14, 0.07), rgb(0.42, 0.30, 0.12), rgb(0.30, 0.42, 0.26), rgb(0.28, 0.46, 0.66)
    weights = [jnp.maximum(1 - jnp.abs(3 * p.iris - k), 0.0) for k in range(4)]
    iris = reduce(jnp.add, [k * stop for k, stop in zip(weights, stops, strict=True)])
    iris = iris * (0.75 + 0.6 * smooth(iv, -2, 4)) * (1 - 0.5 * smooth(gap, 3.6, 5.0))
    ball = over(ball, iris, fill(gap - 4.8, w))
    ball = over(ball, rgb(0.03, 0.02, 0.02), fill(gap - 2.2, w))
    shine = d.length(iu - 1.6 * jnp.sign(s.light_x + 1e-3), iv + 1.7)
    ball = over(ball, rgb(1.0, 1.0, 1.0), 0.9 * fill(shine - 1.1, w))
    picture = over(picture, ball, open_)

    weight = mix(1.25, 0.75, male)
    wing = (1 - male) * 2.5
    lash = stroke(lid * 0.9 + 0.3, weight, w) * fill(jnp.abs(x - 0.5 * wing) - p.eye_width - 0.5 * wing, w + 1)
    picture = over(picture, rgb(0.08, 0.05, 0.05), 0.9 * lash)
    rim = stroke(v - lower, 0.45, w) * fill(jnp.abs(x) - p.eye_width, w + 1)
    picture = over(picture, rgb(0.3, 0.16, 0.13), 0.55 * rim)
    return _brows(c, x, picture)


def _brows(c: Canvas, x: Array, picture: Array) -> Array:
    p, t, on = c.face.person, c.face.style, c.on
    male, bushy = on["Male"], on["Bushy_Eyebrows"]
    bend = mix(1.0, 0.45, male)
    rise = p.brow_arch * bend * (1 - ((x - 4) / 13) ** 2)
    middle = c.v + p.brow_height - 2.0 * male + rise + 0.5 - 0.8 * on["Smiling"]
    outer, inner = 13.5 + 2 * bushy, 10.0 + 3.0 * bushy
    end = smooth(x, -inner, -inner + 5) * (1 - smooth(x, outer - 8, outer))
    half = t.brow_weight * mix(1.5, 2.0, male) * (1 + 1.0 * bushy) * (0.35 + 0.65 * end)
    hairs = ripple(1.9 * x - 1.4 * c.v + t.phase, 2.4, c.w) + ripple(3.1 * x + 1.1 * c.v, 3.3, c.w)
    rough = hairs * (0.25 + 0.6 * bushy)
    cover = stroke(middle + 0.5 * rough * 0.6, half, c.w) * jnp.clip(end * 3, 0, 1)
    strength = mix(0.68, 0.95, bushy)
    colour = _natural_colour(c.face, on) * mix(1.0, 0.7, bushy) * (1 + 0.15 * hairs)
    return over(picture, colour, strength * cover)


def _mouth(c: Canvas, m: Mouth, picture: Array) -> Array:
    p, t, on, w = c.face.person, c.face.style, c.on, c.w
    x, v = c.u - MOUTH_DEPTH * c.face.shot.yaw, c.v
    along = x / m.width
    arch = 1 - along**2
    gape = m.opening * jnp.maximum(arch, 0.0) ** 0.75 if False else m.opening * jnp.maximum(arch, 0.0)
    line = (
        m.height - m.lift * along**2 + 0.35 * m.lift * 0 - 0.8 * blob(x, 0 * v, 3, 1) * (1 - on["Mouth_Slightly_Open"])
    )
    top, bottom = line - 0.15 * gape, line + 0.85 * gape
    male = on["Male"]
    thin = p.lip * mix(1.0, 0.78, male) * (1 - 0.15 * (1 - on["Young"])) * (1 - 0.12 * on["Smiling"])
    bow = 1 - 0.28 * blob(x, 0 * v, 2.6, 1) + 0.12 * blob(jnp.abs(x) - 4.5, 0 * v, 3, 1)
    above = top - 4.6 * thin * arch * bow
    below = bottom + 6.0 * thin * arch * (0.8 + 0.2 * arch)
    lips = jnp.maximum(above - v, v - below) * 0.95
    inside = fill(lips, w) * fill(jnp.abs(x) - m.width, w)

    paint = on["Wearing_Lipstick"]
    bare = c.skin * rgb(0.86, 0.62, 0.60)
    colour = mix(bare, hsv(t.lipstick_hue, 0.82, t.lipstick_value), 0.92 * paint)
    upper = fade(v - line, 0.8)
    lx = c.sun[0]
    tone = mix(1.02, 0.74, upper) * (1 - 0.12 * along * lx)
    lip = colour * tone
    lip = lip + (0.10 + 0.2 * paint) * blob(x - 3 * lx, v - bottom - 2.6 * thin, 5, 1.1)
    picture = picture * (1 - 0.28 * blob(x, v - below - 2.0, 9, 2.0))  # the hollow under the lip
    corner = blob(jnp.abs(x) - m.width - 0.5, v - m.height + m.lift, 1.6, 1.8)
    picture = picture * (1 - 0.35 * corner)
    picture = over(picture, lip, inside)
    picture = over(
        picture,
        rgb(0.22, 0.06, 0.06),
        0.8 * stroke(v - line, 0.6, w) * fill(jnp.abs(x) - m.width, w) * (1 - on["Mouth_Slightly_Open"]),
    )

    hollow = fill(jnp.maximum(top - v, v - bottom), w) * fill(jnp.abs(x) - m.width, w) * on["Mouth_Slightly_Open"]
    deep = over(
        rgb(0.16, 0.03, 0.04) + 0 * v, rgb(0.62, 0.25, 0.25), fade(bottom - v - 1.8, 1.5) * blob(x, 0 * v, 7, 1)
    )
    teeth = fill(v - top - 0.42 * gape, w) * fill(jnp.abs(x) - 0.8 * m.width, w)
    gaps = 1 - 0.14 * jnp.maximum(ripple(1.5 * jnp.abs(x) + 1.57, 1.5, w), 0) ** 4
    deep = over(deep, rgb(0.95, 0.93, 0.88) * gaps * (1 - 0.3 * along**2), teeth)
    return over(picture, deep, hollow)


# --- beards, glasses, hats ------------------------------------------------------------------------------------


def _beard_shape(c: Canvas, band: Array) -> Array:
    """The jaw, chin and upper lip in [0, 1]: a band of the given width along the face's edge, from the ears down."""
    p, male, old = c.face.person, c.on["Male"], 1 - c.on["Young"]
    u, v = c.head, c.v
    taper = p.taper - 0.11 * male - 0.05 * old
    width = (p.width + 1.0 * male) * (1 - taper * smooth(v, -5, p.chin + 14))
    chin = p.chin + 2.0 * male
    inner = d.ellipse(u, v - 0.30 * p.mouth_height, width - band, chin - 0.30 * p.mouth_height - 0.8 * band)
    lip = jnp.maximum(jnp.abs(u) - 0.55 * width, jnp.maximum(p.nose_length + 7 - v, v - p.mouth_height - 4))
    return jnp.maximum(fade(-inner, 5), 0.85 * fade(lip, 3)) * smooth(v, 4, 14)


def _facial_hair(c: Canvas, m: Mouth, picture: Array) -> Array:
    p, t, on, w = c.face.person, c.face.style, c.on, c.w
    x, v = c.u - MOUTH_DEPTH * c.face.shot.yaw, c.v
    male, old = on["Male"], 1 - on["Young"]
    hairs = (
        ripple(1.7 * x + 0.6 * v + t.phase, 1.8, w)
        + ripple(2.3 * v - 1.2 * x, 2.6, w)
        + ripple(0.9 * x - 1.1 * v, 1.4, w)
    )
    lx = c.sun[0]
    colour = _natural_colour(c.face, on) * (0.95 + 0.25 * lx * c.head / 45 + 0.16 * hairs)
    keep = 1 - fade(
        jnp.maximum(
            jnp.abs(x) - m.width - 1,
            jnp.maximum(m.height - m.lift * (x / m.width) ** 2 - 5 - v, v - m.height - m.opening - 6),
        ),
        1.5,
    )

    taper = p.taper - 0.11 * male - 0.05 * old
    width = (p.width + 1.0 * male) * (1 - taper * smooth(v, -5, p.chin + 14))
    outline, _ = d.egg(c.head, v, width, p.chin + 2.0 * male, p.square + 0.3 * male * smooth(v, 0, 30))
    beard = _beard_shape(c, t.beard_line) * fill(outline - 1.5 - 0.6 * hairs, w + 2) * keep
    picture = over(picture, colour * 1.1, (1 - on["No_Beard"]) * t.beard_density * (0.92 + 0.12 * hairs) * beard)

    long = t.goatee_length
    tip = d.ellipse(x, v - p.chin + 5 - 0.35 * long, t.goatee_width, 10 + 0.65 * long)
    patch = d.box(x, v - m.height - m.opening - 8, 3.0, 4.0, 1.5)
    goatee = d.join(tip, patch, 4.0) - 0.5 * hairs
    below_lip = m.height + m.opening + 6.0
    goatee = jnp.maximum(goatee, below_lip - v)
    picture = over(picture, colour * 0.8, 0.94 * on["Goatee"] * fill(goatee, w + 0.6))

    along = x / (m.width * t.mustache_width)
    lip_top = m.height - m.lift * along**2 - 0.15 * m.opening - 4.2
    middle = lip_top - 1.8 + t.mustache_droop * along**2 * jnp.abs(along)
    half = t.mustache_weight * jnp.maximum(1.05 - along**2, 0.0) * (1 - 0.25 * blob(x, 0 * v, 1.5, 1))
    must = jnp.abs(v - middle) - half - 0.35 * hairs
    must = jnp.maximum(must, jnp.abs(x) - m.width * t.mustache_width)
    return over(picture, colour * 0.8, 0.94 * on["Mustache"] * fill(must, w + 0.6))


def _glasses(c: Canvas, picture: Array) -> Array:
    p, t, w = c.face.person, c.face.style, c.w
    wear = c.on["Eyeglasses"]
    side, v = jnp.abs(c.u), c.v
    x = side - p.eye_distance - 1.0
    hx = jnp.minimum(t.glasses_width, p.eye_distance - 2.0)
    hy = t.glasses_height
    lens = d.box(x, v - 1.5 - 0.02 * x, hx, hy, t.glasses_corner * hy)
    frame = stroke(lens, t.glasses_thickness, w)
    bridge = stroke(v + 3.0 + 0.03 * side**2, 0.9 * t.glasses_thickness, w) * fill(side - p.eye_distance + hx - 1, w)
    ear = p.width + 1
    arm = stroke(v + 3.5, 0.8 * t.glasses_thickness, w) * fill(p.eye_distance + 1 + hx - side, w) * fill(side - ear, w)
    inside = fill(lens, w)
    glare = stroke(0.8 * c.u + 0.6 * v + 6 * c.sun[0] - 4 * jnp.sign(c.u), 2.4, w) * inside
    tint = hsv(t.glasses_hue, 0.35, 0.55)
    picture = over(picture, picture * 0.6 + 0.4 * tint, 2 * t.glasses_tint * wear * inside)
    picture = over(picture, rgb(1.0, 1.0, 1.0), 0.22 * wear * glare)
    shadow = stroke(lens - 0.0 + 0 * v, t.glasses_thickness + 1.5, w + 2) * fill(-v, 6.0)
    picture = picture * (1 - 0.12 * wear * shadow)
    solid = jnp.maximum(frame, jnp.maximum(bridge, arm))
    return over(picture, hsv(t.glasses_hue, t.glasses_saturation, t.glasses_value), wear * solid)


def _hat(c: Canvas, picture: Array) -> Array:
    p, t, w = c.face.person, c.face.style, c.w
    wear = c.on["Wearing_Hat"]
    u, v = c.head, c.v
    lx = c.sun[0]
    half = p.width + 8.0 + 0.4 * t.volume
    edge = _brim(c)
    crown, _ = d.egg(u, jnp.minimum(edge, 0.0), half, t.hat_height, 2.6)
    crown = jnp.maximum(crown, edge)
    knit = 1 + 0.06 * ripple(1.1 * u, 1.1, w) * (1 - smooth(t.hat_brim, 0, 6))
    light = (0.9 + 0.3 * lx * u / 60 - 0.25 * (u / 60) ** 2) * knit
    colour = hsv(t.hat_hue, t.hat_saturation, t.hat_value)
    picture = over(picture, colour * light, wear * fill(crown, w))
    band = fill(-edge - 9.0, w) * fill(crown, w)
    picture = over(picture, hsv(t.hat_band, 0.5, 0.35 + 0.4 * smooth(t.hat_value, 0.6, 0.4)) * light, wear * band)
    reach = half + jnp.maximum(t.hat_brim, 0.0)
    brim = d.ellipse(u, edge + 1.0, reach, 4.2)
    picture = over(picture, colour * light * 0.8, wear * fill(brim, w) * smooth(t.hat_brim, -0.5, 1.5))
    return picture
