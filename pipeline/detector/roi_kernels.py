"""Loops over proposals, compiled by Numba; they do not hold Python's lock, which the detector needs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int64
from numpy.typing import NDArray

from pipeline.kernel_cache import njit


@njit(cache=True, nogil=True)
def clip(boxes: NDArray[np.float32], width: Any, height: Any, kept: NDArray[np.float32]) -> int:
    """Clip `boxes` `(N, 4)` to the image.

    Those that are not empty become the first rows of `kept`; returns their number.
    """
    count = 0
    for row in range(len(boxes)):
        x1, y1, x2, y2 = boxes[row, 0], boxes[row, 1], boxes[row, 2], boxes[row, 3]
        is_nan = np.isnan(x1) or np.isnan(y1) or np.isnan(x2) or np.isnan(y2)
        x1, x2 = min(max(x1, float32(0)), width), min(max(x2, float32(0)), width)
        y1, y2 = min(max(y1, float32(0)), height), min(max(y2, float32(0)), height)
        if x2 > x1 and y2 > y1 and not is_nan:
            kept[count, 0], kept[count, 1], kept[count, 2], kept[count, 3] = x1, y1, x2, y2
            count += 1
    return count


@njit(cache=True, nogil=True)
def find_distinct(
    rois: NDArray[np.float32], scale: Any, first: NDArray[np.int64], index: NDArray[np.int64]
) -> int:
    """Find RoIs `(R, 4)` that pool the same cells; their last pixels are x2 - 1 and y2 - 1.

    Args:
        rois: corners in pixels.
        scale: cells per pixel, float32.
        first: `(R,)`, receives the first RoI of each distinct one, in order.
        index: `(R,)`, receives for each RoI its number among the distinct ones.

    Returns:
        The number of distinct ones.
    """
    cells = np.empty((len(rois), 4), np.int64)
    places = 16
    while places < 2 * len(rois):
        places *= 2
    numbers = np.full(places, -1, np.int64)  # a hash table of numbers among the distinct ones
    count = 0
    for row in range(len(rois)):
        place = int64(0)
        for side in range(4):
            pixel = rois[row, side] - (float32(0) if side < 2 else float32(1))
            scaled = float32(pixel * scale)
            below = np.floor(scaled)
            cells[row, side] = int64(below) + (1 if scaled - below >= float32(0.5) else 0)
            place = place * int64(1000003) + cells[row, side]
        place = (place ^ (place >> 17)) & (places - 1)
        while numbers[place] >= 0 and not _are_equal(cells, first[numbers[place]], row):
            place = (place + 1) & (places - 1)
        if numbers[place] < 0:
            numbers[place] = count
            first[count] = row
            count += 1
        index[row] = numbers[place]
    return count


@njit(cache=True, nogil=True, inline="always")
def _are_equal(cells: Any, one: Any, other: Any) -> Any:
    return (
        cells[one, 0] == cells[other, 0]
        and cells[one, 1] == cells[other, 1]
        and cells[one, 2] == cells[other, 2]
        and cells[one, 3] == cells[other, 3]
    )
