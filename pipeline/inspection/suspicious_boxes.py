"""Annotated boxes that no one would draw: outside their image, tiny, thin, or drawn twice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry

KINDS = {
    "outside": ("boxes that reach outside", "A side lies more than a pixel outside the image."),
    "tiny": ("tiny boxes", "A side is shorter than 4 pixels."),
    "thin": ("thin boxes", "One side is more than 20 times the other."),
    "repeated": (
        "repeated boxes",
        "Another box of the same class overlaps it by an IoU of 0.9 or more.",
    ),
    "two-classes": (
        "boxes of two classes",
        "A box of another class overlaps it by an IoU of 0.9 or more.",
    ),
}
"""Titles and meanings of the kinds."""

OUTSIDE = 1.0
"""Pixels: tools round differently."""
TINY_SIDE = 4.0
"""Pixels."""
THIN_ASPECT = 20.0
SAME_IOU = 0.9
_COMPARED_TOGETHER = 512

Flags = dict[str, NDArray[np.bool_]]
"""By kind, which of B boxes are suspicious, `(B,)`."""


def find_suspicious_boxes(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    images: NDArray[np.int64],
    sizes: NDArray[np.int64],
    crowd: NDArray[np.bool_],
) -> Flags:
    """Find the suspicious ones among the boxes of several images.

    Args:
        boxes: `(B, 4)` in pixels, image by image.
        labels: `(B,)` classes, as any numbers.
        images: `(B,)` position of each box's image, ascending.
        sizes: `(N, 2)` width and height of each image; 0 if unknown.
        crowd: `(B,)` boxes of crowds, which may lie on others.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    size = sizes[images].astype(np.float64)
    is_known = (size > 0).all(axis=1)
    reaches_out = (boxes[:, :2] < -OUTSIDE).any(axis=1) | (boxes[:, 2:] > size + OUTSIDE).any(
        axis=1
    )
    shorter, longer = sides.min(axis=1, initial=np.inf), sides.max(axis=1, initial=0)
    repeated, two_classes = _find_overlapping(boxes, labels, images, crowd)
    return {
        "outside": is_known & reaches_out,
        "tiny": shorter < TINY_SIDE,
        "thin": longer > THIN_ASPECT * shorter,
        "repeated": repeated,
        "two-classes": two_classes,
    }


def _find_overlapping(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    images: NDArray[np.int64],
    crowd: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Boxes that lie on another one of the same class, and on one of another class."""
    repeated, two_classes = np.zeros(len(boxes), bool), np.zeros(len(boxes), bool)
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    ends = np.append(starts[1:], len(boxes))[: len(starts)]
    for start, end in zip(starts, ends, strict=True):
        if end - start < 2:
            continue
        of_image = np.arange(start, end)[~crowd[start:end]]
        for first in range(0, len(of_image), _COMPARED_TOGETHER):
            rows = of_image[first : first + _COMPARED_TOGETHER]
            overlaps = geometry.iou(boxes[rows], boxes[of_image]) >= SAME_IOU
            overlaps &= rows[:, None] != of_image
            is_same = labels[rows][:, None] == labels[of_image]
            repeated[rows] = (overlaps & is_same).any(axis=1)
            two_classes[rows] = (overlaps & ~is_same).any(axis=1)
    return repeated, two_classes
