"""Signed distances, anti-aliased coverage and compositing: the pencils of the synthetic faces.

Everything is elementwise over (H, W) grids in the pixels of a template picture, so it fuses, vmaps and
differentiates. A signed distance is negative inside its shape. `w` is always the width of one output pixel in
template pixels: coverage is the box filter of that width, so a picture drawn at two sizes agrees when averaged.
Square roots carry a small constant, which keeps gradients finite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array
Scalar = Array | float  # a number, or an array that broadcasts
_TINY = 1e-6


def grid(size: int, template: float) -> tuple[Array, Array, float]:
    """Centres x, y (size, size) of the output pixels in template pixels (centres at integers), and their width."""
    w = template / size
    axis = (jnp.arange(size, dtype=jnp.float32) + 0.5) * w - 0.5
    x, y = jnp.meshgrid(axis, axis)
    return x, y, w


def length(x: Array, y: Array) -> Array:
    """Euclidean norm with a finite gradient at 0."""
    return jnp.sqrt(x * x + y * y + _TINY)


def ellipse(x: Array, y: Array, rx: Scalar, ry: Scalar) -> Array:
    """Approximate distance to an axis-aligned ellipse at the origin (first order at its edge)."""
    near = length(x / rx, y / ry)
    slope = jnp.sqrt((x / (rx * rx)) ** 2 + (y / (ry * ry)) ** 2 + _TINY / (rx * ry))
    return near * (near - 1.0) / slope


def egg(x: Array, y: Array, rx: Scalar, ry: Scalar, power: Scalar) -> tuple[Array, Array]:
    """Distance to the superellipse |x/rx|^p + |y/ry|^p = 1, and its radius function (1 at the edge)."""
    a = jnp.sqrt((x / rx) ** 2 + _TINY)
    b = jnp.sqrt((y / ry) ** 2 + _TINY)
    radius = jnp.exp(jnp.log(a**power + b**power) / power)
    slope = length((a / radius) ** (power - 1) / rx, (b / radius) ** (power - 1) / ry)
    return (radius - 1.0) / slope, radius


def box(x: Array, y: Array, hx: Scalar, hy: Scalar, corner: Scalar) -> Array:
    """Distance to a box of half sizes hx, hy with rounded corners."""
    dx, dy = jnp.abs(x) - hx + corner, jnp.abs(y) - hy + corner
    return length(jnp.maximum(dx, 0), jnp.maximum(dy, 0)) + jnp.minimum(jnp.maximum(dx, dy), 0) - corner


def join(a: Array, b: Array, k: Scalar) -> Array:
    """Smooth union (minimum) of two distances over the blending width k."""
    h = jnp.clip(0.5 + 0.5 * (b - a) / k, 0.0, 1.0)
    return b + h * (a - b) - k * h * (1.0 - h)


def fill(distance: Array, w: Scalar) -> Array:
    """Coverage in [0, 1] of the inside of a shape under a box filter of width w."""
    return jnp.clip(0.5 - distance / w, 0.0, 1.0)


def stroke(distance: Array, half: Scalar, w: Scalar) -> Array:
    """Coverage of the line |distance| < half: exact for lines much thinner than a pixel, too."""
    return fill(distance - half, w) - fill(distance + half, w)


def fade(distance: Array, width: Scalar) -> Array:
    """A soft inside, 1 to 0 through 0.5 at the edge: shadows and blurred shapes."""
    return jax.nn.sigmoid(-2.0 * distance / width)


def bump(x: Array, s: Scalar) -> Array:
    """Gaussian of height 1 and standard deviation s; a product of two is a blob."""
    return jnp.exp(-0.5 * (x / s) ** 2)


def ripple(phase: Array, rate: Scalar, w: Scalar) -> Array:
    """sin(phase), damped as a box filter of width w damps it where the phase turns at `rate` radians a pixel."""
    return jnp.sin(phase) * jnp.exp(-((rate * w) ** 2) / 24.0)


def smooth(x: Array, low: Scalar, high: Scalar) -> Array:
    """Smoothstep from 0 at low to 1 at high."""
    t = jnp.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def mix(a: Scalar, b: Scalar, t: Scalar) -> Array:
    """a at t = 0, b at t = 1."""
    return jnp.asarray(a + t * (b - a))


def rgb(red: Scalar, green: Scalar, blue: Scalar) -> Array:
    """A colour (3, 1, 1) in [0, 1], ready to spread over a (3, H, W) picture."""
    return jnp.stack([jnp.asarray(red, jnp.float32), jnp.asarray(green), jnp.asarray(blue)])[:, None, None]


def hsv(hue: Scalar, saturation: Scalar, value: Scalar) -> Array:
    """The colour (3, 1, 1) of a hue in turns, a saturation and a value."""
    turn = jnp.stack([hue, hue - 1 / 3, hue - 2 / 3])[:, None, None]
    pure = jnp.clip(jnp.abs((turn - jnp.floor(turn)) * 6.0 - 3.0) - 1.0, 0.0, 1.0)
    return value * mix(1.0, pure, saturation)


def over(picture: Array, colour: Array, alpha: Array) -> Array:
    """The picture (3, H, W) with a colour laid over it where alpha (H, W) says so."""
    return picture + alpha * (colour - picture)
