"""Warped windows of R-CNN: a proposal with its surroundings, stretched to the network's square input.

Girshick et al., CVPR 2014, section 2.1 and appendix A; `rcnn_im_crop.m` of the released code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline import imaging
from pipeline.detector.preprocessing import Preprocessing


def warp_window(
    image: NDArray[np.uint8],
    box: NDArray[np.floating],
    size: int,
    context: int,
    fill: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Warp one box of an image to a square window `(size, size, 3)`.

    The box itself fills the middle `size - 2 context` pixels, whatever its aspect ratio; around it are
    `context` pixels of its surroundings at the same stretch. What lies outside the image is `fill`.

    Args:
        image: uint8 RGB `(H, W, 3)`.
        box: `(4,)`, half open, in its pixels; it overlaps the image.
        size: side of the window, in pixels.
        context: pixels of the window on each side of the box.
        fill: RGB `(3,)`.

    Unlike the released code, which samples without smoothing, a large box is reduced by area.
    """
    height, width = image.shape[:2]
    left, right = _widen(box[0], box[2], size, context, width)
    top, bottom = _widen(box[1], box[3], size, context, height)
    window = np.empty((size, size, 3), np.uint8)
    window[:] = fill
    columns = _place(left, right, width, size)
    rows = _place(top, bottom, height, size)
    part = image[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    window[rows, columns] = imaging.resize(
        np.ascontiguousarray(part), columns.stop - columns.start, rows.stop - rows.start
    )
    return window


def _widen(low: float, high: float, size: int, context: int, limit: int) -> tuple[int, int]:
    """Ends of the box in whole pixels after adding the context; at least one lies inside the image."""
    half = (float(high) - float(low)) / 2 * size / (size - 2 * context)
    centre = (float(low) + float(high)) / 2
    first = min(round(centre - half), limit - 1)
    return first, max(round(centre + half), first + 1, 1)


def _place(first: int, end: int, limit: int, size: int) -> slice:
    """Where the part of `first` to `end` that the image has, up to `limit`, comes in the window."""
    stretch = size / (end - first)
    start = min(round(max(0, -first) * stretch), size - 1)
    length = round((min(limit, end) - max(0, first)) * stretch)
    return slice(start, min(size, start + max(1, length)))


def warp_windows(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating],
    size: int,
    context: int,
    fill: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Warp boxes `(N, 4)` to windows `(N, size, size, 3)`, see `warp_window`."""
    windows = np.empty((len(boxes), size, size, 3), np.uint8)
    for index, box in enumerate(boxes):
        windows[index] = warp_window(image, box, size, context, fill)
    return windows


def choose_fill(preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """The RGB colour `(3,)` that normalises to 0, as nearly as 8 bits allow."""
    colour = np.asarray(preprocessing.mean, np.float64) / preprocessing.scale
    if preprocessing.channel_order == "BGR":
        colour = colour[::-1]
    return np.clip(np.rint(colour), 0, 255).astype(np.uint8)
