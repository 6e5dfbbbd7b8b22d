"""Paints the features of a synthetic face: the shaded head, age, eyes, brows, mouth and beard.

The face is shaded as a relief: an egg with Gaussian bumps (nose, sockets, cheeks, chin) whose slopes give normals for
one directed light.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from faceattr_jax.data import drawing as d
from faceattr_jax.data.canvas import Canvas, natural_colour, skin_colour
from faceattr_jax.data.drawing import Array, Scalar, bump, fade, fill, hsv, mix, over, rgb, ripple, smooth, stroke


def _slope(u: Array, v: Array, bumps: Sequence[Sequence[Scalar]]) -> tuple[Array, Array]:
    """Slopes along u and v of a sum of Gaussian bumps (u0, v0, width, height, rise)."""
    du = dv = jnp.zeros_like(u)
    for u0, v0, su, sv, rise in bumps:
        there = rise * bump(u - u0, su) * bump(v - v0, sv)
        du, dv = du - (u - u0) / su**2 * there, dv - (v - v0) / sv**2 * there
    return du, dv


def _normal(c: Canvas) -> tuple[Array, Array, Array]:
    """The unit normal of the face towards the viewer: right, down, out."""
    p, male, smile, v = c.face.person, c.male, c.on["Smiling"], c.v
    side, length, high = jnp.abs(c.u), p.nose_length, p.nose_height
    both = _slope(side, v, [
        (p.eye_distance, -2, 10, 6.5, -5.0),
        (p.eye_distance + 1, -p.brow_height - 1, 13, 4, 1.2 + 1.6 * male),
        (p.width - 17, 19 - 2 * smile, 11, 10, p.cheek * (3.5 + 3.5 * smile)),
        (p.width - 8, -16, 6, 14, -1.5),
    ])  # fmt: skip
    middle = _slope(c.nose, v, [
        (0, 6, 4.5, 13, 4.5 * high),
        (0, length - 2, 5.5, 5, 5.5 * high),
        (0, p.mouth_height, 17, 9, 2.0),
        (0, p.mouth_height + 7.5, 9, 3, -1.2),
        (0, p.chin - 9, 9, 6, 3.0),
        (0, p.mouth_height - 9, 2.2, 4, -1.0),
    ])  # fmt: skip
    wing = _slope(jnp.abs(c.nose), v, [(p.nose_width, length + 1, 3.5, 3.5, 2.6 * high)])
    bend = 0.75 * c.radius**2 + 0.15
    x = 1.1 * bend * c.head / p.width - both[0] * jnp.sign(c.u) - middle[0] - wing[0] * jnp.sign(c.nose)
    y = 0.9 * bend * v / 65 - both[1] - middle[1] - wing[1]
    z = jnp.sqrt(jnp.maximum(1.2 - 0.75 * jnp.minimum(c.radius, 1.2) ** 2, 0.15))
    norm = jnp.sqrt(x**2 + y**2 + z**2)
    return x / norm, y / norm, z / norm


def paint_head(c: Canvas, hair_shadow: Array, under_brim: Array, picture: Array) -> Array:
    """Ears and face, given the shadow of the hair and the distance below the edge of a hat (0 above it)."""
    p, t, on, male, v, w = c.face.person, c.face.style, c.on, c.male, c.v, c.w
    (nx, ny, nz), (lx, ly, lz), base = _normal(c), c.sun, skin_colour(c)
    beside = jnp.abs(c.head) - c.width - 1.5
    ear = d.ellipse(beside + 0.12 * (v - 5), v - 5, 5.5, 11.5)
    fold = (0.85 + 0.2 * lx * jnp.sign(c.head)) * (1 - 0.35 * bump(beside - 0.5, 2) * bump(v - 5, 6))
    picture = over(picture, base * fold * rgb(1.0, 0.92, 0.9), fill(ear, w))

    side, x, below = jnp.abs(c.u), jnp.abs(c.nose), v - p.nose_length
    shade = 1.02 - 0.8 * c.face.shot.contrast * (1 - jnp.maximum(nx * lx + ny * ly + nz * lz, 0.0))
    shade = shade * (1 - 0.32 * hair_shadow) * (1 - 0.35 * on["Wearing_Hat"] * bump(under_brim, 7))
    shade = shade * (1 - 0.3 * bump(c.nose + 5 * lx, p.nose_width) * bump(below - 5.5, 2.6))
    nostril = d.ellipse(x - 0.52 * p.nose_width, below - 3.2 + 0.15 * x, 2.1, 1.25)
    shade = shade * (1 - 0.6 * fill(nostril, w + 1.0))
    crease = bump(d.length(x - p.nose_width + 1.5, below) - 4.2, 0.9)
    shade = shade * (1 - 0.22 * crease * smooth(x, p.nose_width - 1, p.nose_width + 2))
    shade = shade * (1 - 0.14 * male * smooth(c.radius, 0.76, 0.96) * smooth(v, 5, 30)) * _age(c)
    glow = jnp.maximum(shade, 0.05)
    skin = base * jnp.stack([glow**0.85, glow**1.05, glow**1.12])  # light in skin comes back red

    cheek = bump(side - p.width + 15, 9.5) * bump(v - 20, 8.5)
    flush = 0.25 * bump(c.nose, 8) * bump(below, 6) + 0.2 * cheek
    skin = skin * (1 - flush * rgb(0.0, 0.14, 0.13))
    rosy = mix(base, rgb(1.0, 0.22, 0.33), 0.85) * shade
    skin = over(skin, rosy, 0.75 * on["Rosy_Cheeks"] * t.blush * cheek)
    skin = over(skin, base * rgb(0.62, 0.62, 0.66), 0.42 * male * t.stubble * _beard_area(c, jnp.float32(22.0)))
    half = jnp.sqrt(lx**2 + ly**2 + (lz + 1) ** 2)
    gloss = jnp.maximum((nx * lx + ny * ly + nz * (lz + 1)) / half, 0.0) ** 24
    skin = skin + (0.09 + 0.25 * on["Bald"] * smooth(-v, 15, 45)) * gloss * rgb(1.0, 0.97, 0.93)
    return over(picture, skin * (1 - 0.25 * fade(-c.outline - 1.5, 4.0)), fill(c.outline, w))


def _age(c: Canvas) -> Array:
    """Folds, bags and creases of age as a factor of the shade; a smile shows a touch of the folds."""
    p, v, smile = c.face.person, c.v, c.on["Smiling"]
    side, x, eye = jnp.abs(c.u), jnp.abs(c.nose), jnp.abs(c.u) - p.eye_distance
    run = smooth(v, p.nose_length - 3, p.nose_length + 3) * (1 - smooth(v, p.mouth_height + 2, p.mouth_height + 9))
    fold = run * bump(x - p.nose_width - 2.5 - 0.62 * (v - p.nose_length) - 1.5 * smile, 2.0)
    bag = bump(d.length(0.75 * eye, v - 1) - 9.5, 1.6) * smooth(v, 3, 7)
    brow = bump(jnp.sin(0.9 * (v + 0.004 * c.u**2 + jnp.sin(0.11 * c.u + c.face.style.phase))), 0.45)
    brow = brow * smooth(-v, 19, 24) * smooth(v, -42, -34) * (1 - smooth(side, 18, 30))
    feet = bump(jnp.sin(0.85 * (v + 1) / (1 + 0.06 * jnp.maximum(eye - 11, 0))), 0.5) * bump(v, 7)
    feet = feet * smooth(eye, 10, 13) * (1 - smooth(eye, 17, 20))
    jowl = bump(side - 20, 3) * bump(v - p.mouth_height - 12, 7)
    drop = bump(x - p.mouth_width - 3 - 0.15 * (v - p.mouth_height), 1.6)
    drop = drop * smooth(v, p.mouth_height, p.mouth_height + 4) * (1 - smooth(v, 52, 58))
    deep = 0.42 * fold + 0.34 * bag + 0.22 * brow + 0.2 * feet + 0.16 * jowl + 0.3 * drop
    return (1 - c.old * c.face.style.wrinkles * jnp.minimum(deep, 0.6)) * (1 - 0.16 * (1 - c.old) * smile * fold)


def paint_eyes(c: Canvas, picture: Array) -> Array:
    p, s, on, male, w, v = c.face.person, c.face.shot, c.on, c.male, c.w, c.v
    x = jnp.abs(c.u) - p.eye_distance  # mirrored: grows outwards on both sides
    squint = (1 - 0.6 * on["Narrow_Eyes"]) * (1 - 0.14 * c.old)
    high = p.eye_height * squint * mix(1.05, 0.88, male)
    low = 0.62 * p.eye_height * squint * (1 - 0.3 * on["Smiling"] * c.face.style.smile)
    tilt = (p.eye_tilt - 0.05 * c.old) * x
    along = x / p.eye_width
    arch = jnp.maximum(1 - along**2, -4.0)
    above, below = -high * arch - tilt - v, v - low * arch + tilt  # > 0 outside the lids

    socket = bump(x - 1, 11) * bump(v + 4, 5)
    picture = picture * (1 - 0.14 * socket * mix(1.0, 1.3, male) * rgb(0.8, 1.0, 1.0))
    lid = fade(-above, 1.5) * fade(-v - high - 5, 3) * fade(v + 1, 2) * fade(jnp.abs(x) - p.eye_width - 1, 3)
    picture = over(picture, picture * rgb(0.62, 0.5, 0.55), 0.45 * (1 - male) * lid)
    crease = stroke(above - 3.2 - 0.8 * c.old, 0.5, w) * fade(jnp.abs(x) - p.eye_width, 2)
    picture = picture * (1 - 0.45 * crease)

    ball = rgb(0.91, 0.89, 0.87) * (0.7 + 0.3 * smooth(-above, 0, 5)) * (1 - 0.25 * jnp.minimum(along**2, 1.0))
    iu, iv = c.u - jnp.sign(c.u) * p.eye_distance - s.gaze - 1.2 * s.yaw, v + 0.4
    gap = d.length(iu, iv)
    hue = 3 * p.iris * smooth(p.skin, 0.15, 0.6)  # light eyes go with light skin
    stops = (rgb(0.24, 0.13, 0.07), rgb(0.42, 0.29, 0.12), rgb(0.32, 0.42, 0.27), rgb(0.30, 0.46, 0.64))
    iris = sum(jnp.maximum(1 - jnp.abs(hue - k), 0.0) * stop for k, stop in enumerate(stops))
    iris = iris * (0.75 + 0.6 * smooth(iv, -2, 4)) * (1 - 0.5 * smooth(gap, 3.6, 5.0))
    ball = over(ball, iris, fill(gap - 4.8, w))
    ball = over(ball, rgb(0.03, 0.02, 0.02), fill(gap - 2.3, w))
    ball = over(ball, rgb(1.0, 1.0, 1.0), 0.9 * fill(d.length(iu - 1.6 * jnp.sign(s.light_x), iv + 1.7) - 1.1, w))
    picture = over(picture, ball, fill(0.9 * jnp.maximum(above, below), w))

    wing = 1.25 * (1 - male)
    lash = stroke(0.9 * above + 0.3, mix(1.25, 0.75, male), w) * fill(jnp.abs(x - wing) - p.eye_width - wing, w + 1)
    picture = over(picture, rgb(0.08, 0.05, 0.05), 0.9 * lash)
    rim = stroke(below, 0.45, w) * fill(jnp.abs(x) - p.eye_width, w + 1)
    return over(picture, rgb(0.3, 0.16, 0.13), 0.55 * rim)


def paint_brows(c: Canvas, picture: Array) -> Array:
    p, t, male, bushy, w, v = c.face.person, c.face.style, c.male, c.on["Bushy_Eyebrows"], c.w, c.v
    x = jnp.abs(c.u) - p.eye_distance
    rise = p.brow_arch * mix(1.0, 0.45, male) * (1 - ((x - 4) / 13) ** 2)
    middle = v + p.brow_height - 2.0 * male + rise + 0.5 - 0.8 * c.on["Smiling"]
    inner, outer = 10.0 + 3.0 * bushy, 13.5 + 2.0 * bushy
    end = smooth(x, -inner, -inner + 5) * (1 - smooth(x, outer - 8, outer))
    half = t.brow_weight * mix(1.5, 2.0, male) * (1 + 1.15 * bushy) * (0.35 + 0.65 * end)
    hairs = ripple(1.9 * x - 1.4 * v + t.phase, 2.4, w) + ripple(3.1 * x + 1.1 * v, 3.3, w)
    cover = stroke(middle + hairs * (0.08 + 0.12 * bushy), half, w) * jnp.clip(3 * end, 0, 1)
    colour = natural_colour(c) * mix(1.0, 0.7, bushy) * (1 + 0.15 * hairs)
    return over(picture, colour, mix(0.68, 0.95, bushy) * cover)


def paint_mouth(c: Canvas, picture: Array) -> Array:
    t, on, m, w, x, v, lx = c.face.style, c.on, c.mouth, c.w, c.lips, c.v, c.sun[0]
    paint, parted = on["Wearing_Lipstick"], on["Mouth_Slightly_Open"]
    along = x / m.width
    arch = 1 - along**2
    gape = m.opening * jnp.maximum(arch, 0.0)
    line = m.height - m.lift * along**2 - 0.8 * (1 - parted) * bump(x, 3)
    top, bottom = line - 0.15 * gape, line + 0.85 * gape
    full = (
        c.face.person.lip
        * mix(1.0, 0.78, c.male)
        * (1 - 0.15 * c.old)
        * (1 - 0.12 * on["Smiling"])
        * (1 + 0.12 * paint)
    )
    bow = 1 - 0.28 * bump(x, 2.6) + 0.12 * bump(jnp.abs(x) - 4.5, 3)
    above = top - 4.6 * full * arch * bow
    below = bottom + 5.6 * full * arch * (0.8 + 0.2 * arch)
    within = fill(jnp.abs(x) - m.width, w)

    picture = picture * (1 - 0.28 * bump(x, 9) * bump(v - below - 2.0, 2))  # the hollow under the lip
    corner = bump(jnp.abs(x) - m.width - 0.5, 1.6) * bump(v - m.height + m.lift, 1.8)
    picture = picture * (1 - 0.35 * corner)
    bare = skin_colour(c) * rgb(0.88, 0.64, 0.62)
    lip = mix(bare, hsv(t.lipstick_hue, 0.87, t.lipstick_value), 0.92 * paint)
    lip = lip * mix(1.02, 0.74, fade(v - line, 0.8)) * (1 - 0.12 * jnp.clip(along, -1, 1) * lx)
    lip = lip + (0.10 + 0.2 * paint) * bump(x - 3 * lx, 5) * bump(v - bottom - 2.6 * full, 1.1)
    picture = over(picture, lip, within * fill(0.95 * jnp.maximum(above - v, v - below), w))
    picture = over(picture, rgb(0.22, 0.06, 0.06), 0.8 * (1 - parted) * within * stroke(v - line, 0.6, w))

    tongue = fade(bottom - v - 1.8, 1.5) * bump(x, 7)
    inside = over(rgb(0.16, 0.03, 0.04), rgb(0.62, 0.25, 0.25), tongue)
    gaps = 1 - 0.14 * jnp.maximum(ripple(1.5 * jnp.abs(x) + 1.57, 1.5, w), 0) ** 4
    teeth = fill(jnp.maximum(v - top - 0.42 * gape, jnp.abs(x) - 0.8 * m.width), w)
    inside = over(inside, rgb(0.95, 0.93, 0.88) * gaps * (1 - 0.3 * jnp.minimum(along**2, 1.0)), teeth)
    return over(picture, inside, parted * within * fill(jnp.maximum(top - v, v - bottom), w))


def _beard_area(c: Canvas, band: Array) -> Array:
    """Jaw, chin and upper lip in [0, 1]: a band of the given width along the edge of the face, from the ears down."""
    p, u, v = c.face.person, c.head, c.v
    start = 0.3 * p.mouth_height
    inner = d.ellipse(u, v - start, c.width - band, p.chin + 2.0 * c.male - start - 0.8 * band)
    lip = jnp.maximum(jnp.abs(u) - 0.55 * c.width, jnp.maximum(p.nose_length + 7 - v, v - p.mouth_height - 4))
    return jnp.maximum(fade(-inner, 5), 0.85 * fade(lip, 3)) * smooth(v, 4, 14)


def paint_beard(c: Canvas, picture: Array) -> Array:
    """Three independent parts: the beard along the jaw (No_Beard = 0), the goatee and the mustache."""
    p, t, on, m, w, x, v = c.face.person, c.face.style, c.on, c.mouth, c.w, c.lips, c.v
    flow = 1.6 * jnp.sin(0.31 * v + 0.17 * x) + 1.1 * jnp.sin(0.23 * x - 0.4 * v + t.phase)
    hairs = (
        ripple(1.7 * x + 0.4 * v + 2.0 * flow, 2.2, w)
        + ripple(1.1 * v - 2.4 * x + 1.7 * flow, 2.8, w)
        + 0.7 * ripple(0.9 * x + 0.5 * v - 2.3 * flow, 1.5, w)
    )
    colour = natural_colour(c) * (0.95 + 0.25 * c.sun[0] * c.head / 45 + 0.10 * hairs)
    curve = m.lift * jnp.minimum((x / m.width) ** 2, 1.4)
    lips = jnp.maximum(jnp.abs(x) - m.width - 1, jnp.maximum(m.height - curve - 5 - v, v - m.height - m.opening - 6))
    beard = _beard_area(c, t.beard_line) * fill(c.outline - 1.5 - 0.4 * hairs, w + 2) * fade(-lips, 1.5)
    picture = over(picture, colour * 1.1, (1 - on["No_Beard"]) * t.beard_density * (0.92 + 0.07 * hairs) * beard)

    long = t.goatee_length
    tip = d.ellipse(x, v - p.chin + 5 - 0.35 * long, t.goatee_width, 10 + 0.65 * long)
    patch = d.box(x, v - m.height - m.opening - 8, 3.0, 4.0, 1.5)
    goatee = jnp.maximum(d.join(tip, patch, 4.0) - 0.5 * hairs, m.height + m.opening + 6.0 - v)
    picture = over(picture, colour * 0.8, 0.94 * on["Goatee"] * fill(goatee, w + 0.6))

    along = x / (m.width * t.mustache_width)
    middle = m.height - curve - 0.15 * m.opening - 6.0 + t.mustache_droop * along**2 * jnp.abs(along)
    half = t.mustache_weight * jnp.maximum(1.05 - along**2, 0.0) * (1 - 0.25 * bump(x, 1.5))
    mustache = jnp.maximum(jnp.abs(v - middle) - half - 0.35 * hairs, jnp.abs(x) - m.width * t.mustache_width)
    return over(picture, colour * 0.8, 0.94 * on["Mustache"] * fill(mustache, w + 0.6))
