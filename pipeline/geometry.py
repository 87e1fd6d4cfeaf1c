"""Geometry of boxes, for numpy arrays and torch tensors alike.

Boxes are `(N, 4)`: x1, y1, x2, y2 in pixels, continuous coordinates whose origin is the top-left
corner of the top-left pixel, half open, so width is x2 - x1. `array_api_compat` finds the library of each
array, so that importing this module never imports torch.
"""

from __future__ import annotations

from typing import Any

import array_api_compat

Array = Any  # numpy.ndarray or torch.Tensor: they share no static type


def area(boxes: Array) -> Array:
    """Areas `(N,)` of boxes `(N, 4)`."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersection(a: Array, b: Array) -> Array:
    """Areas of overlap `(N, M)` of every box of `a` `(N, 4)` with every box of `b` `(M, 4)`."""
    xp = array_api_compat.array_namespace(a, b)
    left_top = xp.maximum(a[:, None, :2], b[None, :, :2])
    right_bottom = xp.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = xp.clip(right_bottom - left_top, 0, None)
    return sides[..., 0] * sides[..., 1]


def iou(a: Array, b: Array) -> Array:
    """Intersection over union `(N, M)` of boxes `a` `(N, 4)` with `b` `(M, 4)`; 0 for empty boxes."""
    xp = array_api_compat.array_namespace(a, b)
    overlap = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :] - overlap
    return xp.where(union > 0, overlap / xp.where(union > 0, union, xp.ones_like(union)), 0.0)


PAIRS_PER_BLOCK = 300_000
"""Pairs of boxes that are compared at a time. Their values fit in a cache: with 2 million pairs, a pair took
twice the time."""


def find_best_overlaps(a: Array, b: Array) -> tuple[Array, Array]:
    """For every box of `a` `(N, 4)`, its largest IoU `(N,)` with a box of `b` `(M, 4)`, M > 0, and that box.

    Boxes are compared in blocks, so memory does not grow with N x M. Of equal overlaps, the first counts.
    """
    xp = array_api_compat.array_namespace(a, b)
    rows = max(1, PAIRS_PER_BLOCK // len(b))
    best, match = [], []
    for start in range(0, max(len(a), 1), rows):
        overlaps = iou(a[start : start + rows], b)
        best.append(xp.max(overlaps, axis=1))
        match.append(xp.argmax(overlaps, axis=1))
    return xp.concat(best), xp.concat(match)


def clip(boxes: Array, width: float, height: float) -> Array:
    """Boxes `(N, 4)` clipped to the image `[0, width] x [0, height]`; boxes outside become empty."""
    xp = array_api_compat.array_namespace(boxes)
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    return xp.stack(
        [
            xp.clip(x1, 0, width),
            xp.clip(y1, 0, height),
            xp.clip(x2, 0, width),
            xp.clip(y2, 0, height),
        ],
        axis=-1,
    )


def is_nonempty(boxes: Array) -> Array:
    """Mask `(N,)` of the boxes `(N, 4)` with x2 > x1 and y2 > y1."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def scale(boxes: Array, x: float, y: float) -> Array:
    """Boxes `(N, 4)` after a resize by the factors `x` and `y`."""
    xp = array_api_compat.array_namespace(boxes)
    return xp.stack(
        [boxes[..., 0] * x, boxes[..., 1] * y, boxes[..., 2] * x, boxes[..., 3] * y], axis=-1
    )


def turn(boxes: Array, orientation: int, width: float, height: float) -> Array:
    """Boxes `(N, 4)` of the stored image, where they are after its EXIF orientation is applied.

    Args:
        boxes: in an image of stored pixels.
        orientation: EXIF's, 1 to 8.
        width: of the stored image.
        height: of the stored image.
    """
    xp = array_api_compat.array_namespace(boxes)
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    if orientation in (2, 3, 7, 8):  # stored right is displayed left, or at the top or bottom
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    if orientation >= 5:
        x1, y1, x2, y2 = y1, x1, y2, x2
    return xp.stack([x1, y1, x2, y2], axis=-1)


def flip_horizontally(boxes: Array, width: float) -> Array:
    """Boxes `(N, 4)` of the image mirrored left to right."""
    xp = array_api_compat.array_namespace(boxes)
    return xp.stack(
        [width - boxes[..., 2], boxes[..., 1], width - boxes[..., 0], boxes[..., 3]], axis=-1
    )


def from_inclusive(boxes: Array, origin: int) -> Array:
    """Half-open boxes from boxes that include their last pixel; `origin` is the first pixel: 1 for VOC."""
    xp = array_api_compat.array_namespace(boxes)
    return xp.stack(
        [
            boxes[..., 0] - origin,
            boxes[..., 1] - origin,
            boxes[..., 2] - origin + 1,
            boxes[..., 3] - origin + 1,
        ],
        axis=-1,
    )


def to_inclusive(boxes: Array, origin: int) -> Array:
    """The inverse of `from_inclusive`."""
    xp = array_api_compat.array_namespace(boxes)
    return xp.stack(
        [
            boxes[..., 0] + origin,
            boxes[..., 1] + origin,
            boxes[..., 2] + origin - 1,
            boxes[..., 3] + origin - 1,
        ],
        axis=-1,
    )


def from_xywh(boxes: Array) -> Array:
    """Boxes `(N, 4)` from COCO's x, y, width, height."""
    xp = array_api_compat.array_namespace(boxes)
    return xp.concat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def to_xywh(boxes: Array) -> Array:
    """COCO's x, y, width, height `(N, 4)` of boxes `(N, 4)`."""
    xp = array_api_compat.array_namespace(boxes)
    return xp.concat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def encode_deltas(boxes: Array, reference: Array) -> Array:
    """Regression targets `(N, 4)`: t_x, t_y, t_w, t_h of `boxes` relative to `reference`, both `(N, 4)`.

    t_x = (G_x - P_x) / P_w, t_w = log(G_w / P_w), with centres and sides; R-CNN (Girshick et al.,
    CVPR 2014), appendix C, equations 6-9, which Fast R-CNN section 2.3 adopts.
    """
    xp = array_api_compat.array_namespace(boxes, reference)
    sides, reference_sides = boxes[:, 2:] - boxes[:, :2], reference[:, 2:] - reference[:, :2]
    centres = boxes[:, :2] + 0.5 * sides
    reference_centres = reference[:, :2] + 0.5 * reference_sides
    return xp.concat(
        [(centres - reference_centres) / reference_sides, xp.log(sides / reference_sides)], axis=1
    )


# log(1000 / 16): a delta grows a side by a factor of 62.5 at most and cannot overflow
LARGEST_LOG_SCALE = 4.135166556742356


def decode_deltas(deltas: Array, reference: Array) -> Array:
    """Boxes `(N, K, 4)` from deltas `(N, K, 4)` and `reference` `(N, 4)`; inverts `encode_deltas`."""
    xp = array_api_compat.array_namespace(deltas, reference)
    reference_sides = (reference[:, 2:] - reference[:, :2])[:, None, :]
    reference_centres = reference[:, None, :2] + 0.5 * reference_sides
    centres = deltas[..., :2] * reference_sides + reference_centres
    sides = xp.exp(xp.clip(deltas[..., 2:], None, LARGEST_LOG_SCALE)) * reference_sides
    return xp.concat([centres - 0.5 * sides, centres + 0.5 * sides], axis=-1)
