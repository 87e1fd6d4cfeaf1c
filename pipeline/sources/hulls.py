"""The upright box around a polygon, a rotated rectangle or an ellipse, in pixels.

Angles are in degrees, clockwise as an image is displayed, as labelling tools write them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2, half open."""


def enclose_points(points: Sequence[tuple[float, float]]) -> Corners:
    """The box around points, of which there must be at least one."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    # min and max would skip a NaN that is not the first number
    if not all(map(math.isfinite, [*xs, *ys])):
        return (math.nan,) * 4
    return min(xs), min(ys), max(xs), max(ys)


def enclose_rotated(box: Corners, angle: float, pivot: tuple[float, float]) -> Corners:
    """The box around a rectangle that is rotated about a point; the rectangle itself at angle 0."""
    if angle == 0:
        return box
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x1, y1, x2, y2 = box
    offsets = [(x - pivot[0], y - pivot[1]) for x in (x1, x2) for y in (y1, y2)]
    return enclose_points(
        [(pivot[0] + x * cosine - y * sine, pivot[1] + x * sine + y * cosine) for x, y in offsets]
    )


def enclose_ellipse(
    centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0
) -> Corners:
    """The box around an ellipse that is rotated about its centre."""
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    half_width = math.hypot(radii[0] * cosine, radii[1] * sine)
    half_height = math.hypot(radii[0] * sine, radii[1] * cosine)
    x, y = centre
    return x - half_width, y - half_height, x + half_width, y + half_height
