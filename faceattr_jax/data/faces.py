"""The parameters of a synthetic face: a person, one shot of that person, and the styles of its attributes.

Every field is a float scalar drawn from the range written beside it, so a `Face` is a pytree of continuous
parameters that can be interpolated, vmapped over and differentiated. Lengths are pixels of CelebA's aligned
178 x 218 picture; v = 0 is the line of the eyes, v grows downwards.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from faceattr_jax.data.drawing import Array

ATTRIBUTES = (
    "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Bushy_Eyebrows", "Eyeglasses", "Goatee",
    "Gray_Hair", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Pale_Skin", "Rosy_Cheeks",
    "Smiling", "Wearing_Hat", "Wearing_Lipstick", "Young",
)  # fmt: skip
TEMPLATE = 178.0  # side of the centre crop of CelebA's 178 x 218 picture
ROW_OFFSET = 20.0  # the crop's first row in the original picture
EYES = (88.5, 91.0)  # midpoint of the eyes in the crop (88.5, 111 in the original)


class Person(NamedTuple):
    """What all pictures of one identity share."""

    width: Any = (40.5, 45.5)  # half the face, at the cheekbones
    chin: Any = (61.5, 67.0)  # height of the chin below the eyes
    taper: Any = (0.20, 0.34)  # narrowing from the cheekbones to the chin
    square: Any = (2.15, 2.5)  # power of the superellipse of the face
    skin: Any = (0.0, 1.0)  # deep to light
    skin_hue: Any = (-1.0, 1.0)  # olive to ruddy
    eye_distance: Any = (18.2, 20.0)  # half the distance between the pupils
    eye_width: Any = (9.6, 11.4)
    eye_height: Any = (5.2, 6.6)
    eye_tilt: Any = (-0.02, 0.14)
    iris: Any = (0.0, 1.0)  # brown, hazel, green, blue
    brow_height: Any = (13.5, 16.5)
    brow_arch: Any = (1.0, 4.0)
    nose_length: Any = (22.0, 26.0)
    nose_width: Any = (6.5, 9.5)
    nose_height: Any = (0.7, 1.3)
    mouth_height: Any = (41.5, 45.0)
    mouth_width: Any = (14.5, 17.5)
    lip: Any = (0.8, 1.25)
    natural: Any = (0.0, 1.0)  # natural colour of brows and beard: black to dark blond
    part: Any = (-1.0, 1.0)  # side of the parting
    hairline: Any = (40.0, 45.0)
    curl: Any = (0.0, 1.0)  # straight to wavy
    cheek: Any = (0.6, 1.4)


class Shot(NamedTuple):
    """What changes from picture to picture of one identity."""

    yaw: Any = (-1.0, 1.0)
    roll: Any = (-0.05, 0.05)
    shift_x: Any = (-1.5, 1.5)
    shift_y: Any = (-1.5, 1.5)
    scale: Any = (0.97, 1.04)
    gaze: Any = (-1.3, 1.3)
    light_x: Any = (-0.85, 0.85)
    light_y: Any = (-0.75, -0.15)
    light: Any = (0.92, 1.06)  # exposure
    contrast: Any = (0.45, 0.72)  # share of directed light
    warmth: Any = (-1.0, 1.0)
    back_hue: Any = (0.0, 1.0)
    back_saturation: Any = (0.05, 0.4)
    back_value: Any = (0.3, 0.9)
    back_shift: Any = (-0.15, 0.15)  # hue of the gradient's other end
    back_angle: Any = (0.0, 6.28)
    back_gradient: Any = (-0.25, 0.25)
    back_phase: Any = (0.0, 6.28)
    back_rate: Any = (0.02, 0.06)
    back_texture: Any = (0.02, 0.10)
    cloth_hue: Any = (0.0, 1.0)
    cloth_saturation: Any = (0.1, 0.7)
    cloth_value: Any = (0.2, 0.85)
    collar: Any = (6.0, 22.0)


class Style(NamedTuple):
    """The free choices within the attributes: what two faces that share all labels may still differ in."""

    long_hair: Any = (48.0, 105.0)  # Male = 0
    long_spread: Any = (2.0, 12.0)
    short_hair: Any = (0.0, 8.0)  # Male = 1
    volume: Any = (5.0, 11.0)
    stubble: Any = (0.5, 1.0)
    shade: Any = (-1.0, 1.0)  # within the hair colour
    phase: Any = (0.0, 6.28)  # of hair strands
    bangs_length: Any = (16.0, 22.0)  # from the eyes up to their ends
    bangs_sweep: Any = (-0.22, 0.22)
    brow_weight: Any = (0.85, 1.2)
    glasses_width: Any = (13.0, 16.0)
    glasses_height: Any = (9.5, 13.0)
    glasses_corner: Any = (0.35, 1.0)
    glasses_thickness: Any = (1.3, 2.3)
    glasses_hue: Any = (0.0, 1.0)
    glasses_saturation: Any = (0.1, 0.8)
    glasses_value: Any = (0.04, 0.3)
    glasses_tint: Any = (0.03, 0.25)
    mustache_width: Any = (0.95, 1.3)
    mustache_weight: Any = (3.2, 4.6)
    mustache_droop: Any = (0.0, 7.0)
    goatee_width: Any = (9.0, 14.0)
    goatee_length: Any = (4.0, 12.0)
    beard_density: Any = (0.6, 0.9)
    beard_line: Any = (6.0, 16.0)  # width of the band along the jaw
    hat_hue: Any = (0.0, 1.0)
    hat_saturation: Any = (0.2, 0.85)
    hat_value: Any = (0.2, 0.8)
    hat_brim: Any = (-10.0, 26.0)  # how far the brim reaches beyond the crown: none (a beanie) to wide
    hat_height: Any = (40.0, 52.0)
    hat_band: Any = (0.0, 1.0)  # hue of the band
    lipstick_hue: Any = (0.90, 1.03)
    lipstick_value: Any = (0.55, 0.85)
    blush: Any = (0.75, 1.0)
    wrinkles: Any = (0.8, 1.15)
    mouth_open: Any = (8.0, 11.5)
    smile: Any = (0.85, 1.2)


STYLES_OF: dict[str, tuple[str, ...]] = {
    attribute: tuple(name for name in Style._fields if name.startswith(prefix))
    for attribute, prefix in {
        "Bangs": "bangs_", "Eyeglasses": "glasses_", "Goatee": "goatee_", "Mouth_Slightly_Open": "mouth_open",
        "Mustache": "mustache_", "No_Beard": "beard_", "Rosy_Cheeks": "blush", "Smiling": "smile",
        "Wearing_Hat": "hat_", "Wearing_Lipstick": "lipstick_",
    }.items()
}  # fmt: skip
"""Fields of `Style` that belong to one attribute alone."""

FREE_STYLES: dict[str, tuple[str, ...]] = {
    **STYLES_OF,
    **dict.fromkeys(("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"), ("shade",)),
    "Bald": ("long_hair", "long_spread", "short_hair", "volume", "shade"),  # of a head that is bald
    "Male": ("long_hair", "long_spread", "short_hair", "stubble"),
    "Young": ("wrinkles",),
}
"""Fields of `Style` that an edit of the attribute leaves free: its own, which get a new value, and hidden ones."""


class Face(NamedTuple):
    """One picture: its person, shot and styles (NamedTuples of float scalars) and its own labels (A,) in {0, 1}.

    tone: of the skin, deep (0) to light (1), where Pale_Skin = 0.
    """

    person: Person
    shot: Shot
    style: Style
    labels: Array
    tone: Array


Kind = TypeVar("Kind", Person, Shot, Style)


def draw(kind: type[Kind], key: Array) -> Kind:
    """Parameters of one `kind`, each uniform in its declared range."""
    low, high = jnp.array(list(kind._field_defaults.values()), jnp.float32).T
    return kind(*(low + (high - low) * jax.random.uniform(key, low.shape, jnp.float32)))


def named(labels: Array) -> dict[str, Array]:
    """Labels (A,) by attribute name."""
    return dict(zip(ATTRIBUTES, labels, strict=True))


# --- pose -----------------------------------------------------------------------------------------------------

_TURN = 12.0  # how much wider the near half of a turned face is than the far half


def _foreshorten(u: Array, yaw: Array) -> Array:
    s = (u / 40.0) ** 2
    return _TURN * yaw * s / (1.0 + s)


def to_face(shot: Shot, x: Array, y: Array) -> tuple[Array, Array]:
    """Coordinates (u, v) on the upright, frontal face of points (x, y) of the template crop."""
    x = x - EYES[0] - shot.shift_x
    y = y - EYES[1] - shot.shift_y
    c, s = jnp.cos(shot.roll) / shot.scale, jnp.sin(shot.roll) / shot.scale
    u, v = c * x + s * y, c * y - s * x
    return u + _foreshorten(u, shot.yaw), v


def to_picture(shot: Shot, u: Array, v: Array) -> tuple[Array, Array]:
    """Inverse of `to_face`."""
    flat = u
    for _ in range(8):  # a contraction: |d foreshorten / du| < 0.2
        flat = u - _foreshorten(flat, shot.yaw)
    c, s = jnp.cos(shot.roll) * shot.scale, jnp.sin(shot.roll) * shot.scale
    return c * flat - s * v + EYES[0] + shot.shift_x, s * flat + c * v + EYES[1] + shot.shift_y


NOSE_DEPTH, MOUTH_DEPTH, HEAD_DEPTH = 7.0, 3.0, -4.5  # how far a turn moves each relative to the eyes


class Mouth(NamedTuple):
    """Where the lips meet: corners at (+-width, height - lift), opening in the middle."""

    height: Array
    width: Array
    lift: Array
    opening: Array


def mouth(face: Face, on: dict[str, Array]) -> Mouth:
    """The mouth that labels `on` give the face."""
    smile = on["Smiling"] * face.style.smile
    return Mouth(
        face.person.mouth_height - 0.5 * smile,
        face.person.mouth_width + 3.5 * smile,
        0.6 + 6.2 * smile,
        on["Mouth_Slightly_Open"] * face.style.mouth_open,
    )


def landmarks(face: Face, size: int) -> Array:
    """Left eye, right eye, nose, left and right mouth corner of the face with its own labels.

    Returns (5, 2) float32: x, y in pixels of a size x size picture, pixel centres at integers, left as seen in it.
    """
    p, m = face.person, mouth(face, named(face.labels))
    turn = face.shot.yaw
    u = jnp.stack([-p.eye_distance, p.eye_distance, NOSE_DEPTH * turn,
                   MOUTH_DEPTH * turn - m.width, MOUTH_DEPTH * turn + m.width])  # fmt: skip
    zero = jnp.zeros_like(p.eye_distance)
    corner = m.height - m.lift
    x, y = to_picture(face.shot, u, jnp.stack([zero, zero, p.nose_length, corner, corner]))
    return (jnp.stack([x, y], -1) + 0.5) * (size / TEMPLATE) - 0.5
