"""The shapes, textures and backgrounds of the drawn dataset, as functions of pixel coordinates."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Colour = NDArray[np.float64]


def _radius(u: Plane, v: Plane) -> Plane:
    return np.asarray(np.hypot(u, v))


def _circle(u: Plane, v: Plane) -> Plane:
    return _radius(u, v) - 0.95


def _square(u: Plane, v: Plane) -> Plane:
    return np.asarray(np.maximum(np.abs(u), np.abs(v))) - 0.8


def _triangle(u: Plane, v: Plane) -> Plane:
    """Equilateral, with its corners on a circle of radius 1.05."""
    return np.asarray(np.maximum(v, np.abs(u) * np.sqrt(3) / 2 - v / 2)) - 0.525


def _star(u: Plane, v: Plane) -> Plane:
    """Five points at radius 1.05, with notches between them at 0.46."""
    angle = np.abs((np.arctan2(v, u) * 5 / (2 * np.pi)) % 1 - 0.5) * 2  # 1 at a point, 0 in a notch
    turn = angle * np.pi / 5
    notch = np.pi / 5
    # The edge from notch to point is a straight line between the two radii, in polar form.
    inner, outer = 0.46, 1.05
    edge: Plane = (
        inner * outer * np.sin(notch) / (outer * np.sin(notch - turn) + inner * np.sin(turn))
    )
    return _radius(u, v) - edge


def _ring(u: Plane, v: Plane) -> Plane:
    return np.abs(_radius(u, v) - 0.75) - 0.24


def _cross(u: Plane, v: Plane) -> Plane:
    long, short = np.maximum(np.abs(u), np.abs(v)), np.minimum(np.abs(u), np.abs(v))
    return np.maximum(long - 0.95, short - 0.3)


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "circle": _circle,
    "cross": _cross,
    "ring": _ring,
    "square": _square,
    "star": _star,
    "triangle": _triangle,
}
"""By class: a signed distance in the object's own coordinates, about -1 to 1; it is negative inside."""

TEXTURES = ("plain", "stripes", "checker", "gradient", "noise", "dots")


def compute_texture(kind: str, u: Plane, v: Plane, generator: np.random.Generator) -> Plane:
    """The share of an object's second colour in each pixel, 0 to 1, from the object's own coordinates."""
    waves = generator.uniform(1.5, 3.0)
    if kind == "stripes":
        return (np.sin(2 * np.pi * waves * u) > 0).astype(float)
    if kind == "checker":
        return (np.sin(np.pi * waves * u) * np.sin(np.pi * waves * v) > 0).astype(float)
    if kind == "gradient":
        return np.clip((u + 1) / 2, 0, 1)
    if kind == "noise":
        return generator.uniform(0, 0.8, u.shape)
    if kind == "dots":
        near_u, near_v = (waves * u) % 1 - 0.5, (waves * v) % 1 - 0.5
        return (np.hypot(near_u, near_v) < 0.28).astype(float)
    return np.zeros_like(u)


def hsv_to_rgb(hue: float, saturation: float, value: float) -> Colour:
    """RGB `(3,)`, 0 to 255, from hue, saturation and value, 0 to 1; a hue outside wraps around."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value)) * 255


def draw_background(width: int, height: int, generator: np.random.Generator) -> Plane:
    """Draw a muted image `(H, W, 3)`, 0 to 255: a gradient with patches, lines and noise."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    value = generator.uniform(0.35, 0.8)
    hue = generator.uniform()
    first = hsv_to_rgb(hue, generator.uniform(0.05, 0.25), value)
    second = hsv_to_rgb(
        hue + generator.uniform(-0.1, 0.1), 0.15, value + generator.uniform(-0.15, 0.15)
    )
    turn = generator.uniform(0, 2 * np.pi)
    along = (x / width - 0.5) * np.cos(turn) + (y / height - 0.5) * np.sin(turn) + 0.5
    image = first + np.clip(along, 0, 1)[..., None] * (second - first)
    for _ in range(generator.integers(2, 6)):
        _add_patch(image, x, y, generator)
    for _ in range(generator.integers(0, 4)):
        _add_line(image, x, y, generator)
    grain = generator.normal(0, 1, (height, width, 1)) * generator.uniform(1, 6)
    return np.asarray(np.clip(image + grain, 0, 255))


def _add_patch(image: Plane, x: Plane, y: Plane, generator: np.random.Generator) -> None:
    """Add a rotated rectangle or ellipse that shifts the background's colour slightly."""
    height, width = x.shape
    centre_x, centre_y = generator.uniform(0, width), generator.uniform(0, height)
    turn = generator.uniform(0, np.pi)
    u = (x - centre_x) * np.cos(turn) + (y - centre_y) * np.sin(turn)
    v = (y - centre_y) * np.cos(turn) - (x - centre_x) * np.sin(turn)
    u, v = u / generator.uniform(30, 130), v / generator.uniform(30, 130)
    is_inside = (np.hypot(u, v) if generator.uniform() < 0.5 else np.maximum(abs(u), abs(v))) < 1
    image[is_inside] += generator.normal(0, 10, 3) + generator.choice([-14, 14])


def _add_line(image: Plane, x: Plane, y: Plane, generator: np.random.Generator) -> None:
    height, width = x.shape
    turn = generator.uniform(0, np.pi)
    distance = (x - generator.uniform(0, width)) * np.sin(turn) - (
        y - generator.uniform(0, height)
    ) * np.cos(turn)
    image[np.abs(distance) < generator.uniform(0.7, 2.5)] += generator.choice([-28, 28])
