"""RoI max pooling on the CPU, compiled by Numba: channels lie together, and the inner loop is over them.

torchvision's kernel walks one channel at a time over a map whose channels lie apart. Here each cell of
the feature map is a row of channels, which the compiler maximises in vectors. One thread: Ray owns the
cores, and a worker's share of pooling is small.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import float32, int64
from numpy.typing import NDArray

LOWEST = np.float32(np.finfo(np.float32).min)


@numba.njit(cache=True, nogil=True, inline="always")
def _rounded(value: Any) -> Any:
    """To the nearest integer, halves away from zero, as C's `round`."""
    below = np.floor(value)
    up = value - below > float32(0.5) or (value - below == float32(0.5) and value >= 0)
    return int64(below) + (1 if up else 0)


@numba.njit(cache=True, nogil=True, inline="always")
def _cell(first: Any, extent: Any, index: Any, size: Any, limit: Any) -> Any:
    """First and end of cell `index` of `size` over `extent` from `first`, within [0, limit)."""
    step = float32(float32(extent) / float32(size))
    start = int64(np.floor(float32(float32(index) * step))) + first
    end = int64(np.ceil(float32(float32(index + 1) * step))) + first
    return min(max(start, 0), limit), min(max(end, 0), limit)


@numba.njit(cache=True, nogil=True)
def pool(
    features: NDArray[np.float32],
    rois: NDArray[np.float32],
    scale: Any,
    size: int,
    pooled: NDArray[Any],
) -> None:
    """Fill `pooled` `(R, size, size, C)` from `features` `(B, h, w, C)`.

    `rois` `(R, 5)` hold their last pixel. `pooled` is float32, or uint16 for the upper halves of
    float32, which is bfloat16 and exact when the features come from bfloat16.
    """
    _, height, width, channels = features.shape
    largest = np.empty(channels, np.float32)
    bits = largest.view(np.uint32)
    halved = pooled.itemsize == 2
    for r in range(len(rois)):
        image = int64(rois[r, 0])
        x1, y1 = _rounded(rois[r, 1] * scale), _rounded(rois[r, 2] * scale)
        across = max(_rounded(rois[r, 3] * scale) - x1 + 1, 1)
        down = max(_rounded(rois[r, 4] * scale) - y1 + 1, 1)
        for row in range(size):
            top, bottom = _cell(y1, down, row, size, height)
            for column in range(size):
                left, right = _cell(x1, across, column, size, width)
                empty = bottom <= top or right <= left
                largest[:] = float32(0) if empty else LOWEST
                for y in range(top, bottom):
                    for x in range(left, right):
                        values = features[image, y, x]
                        for c in range(channels):
                            value = values[c]
                            largest[c] = value if value > largest[c] else largest[c]
                cell = pooled[r, row, column]
                if halved:
                    for c in range(channels):
                        cell[c] = bits[c] >> np.uint32(16)
                else:
                    for c in range(channels):
                        cell[c] = largest[c]


@numba.njit(cache=True, nogil=True)
def pool_with_argmax(  # noqa: PLR0917  compiled code takes its arrays by position
    features: NDArray[np.float32],
    rois: NDArray[np.float32],
    scale: Any,
    size: int,
    pooled: NDArray[np.float32],
    argmax: NDArray[np.int32],
) -> None:
    """As `pool`; `argmax` `(R, size, size, C)` is the place y w + x of each largest value, or -1."""
    _, height, width, channels = features.shape
    for r in range(len(rois)):
        image = int64(rois[r, 0])
        x1, y1 = _rounded(rois[r, 1] * scale), _rounded(rois[r, 2] * scale)
        across = max(_rounded(rois[r, 3] * scale) - x1 + 1, 1)
        down = max(_rounded(rois[r, 4] * scale) - y1 + 1, 1)
        for row in range(size):
            top, bottom = _cell(y1, down, row, size, height)
            for column in range(size):
                left, right = _cell(x1, across, column, size, width)
                largest, place = pooled[r, row, column], argmax[r, row, column]
                empty = bottom <= top or right <= left
                largest[:] = float32(0) if empty else LOWEST
                place[:] = -1
                for y in range(top, bottom):
                    for x in range(left, right):
                        values = features[image, y, x]
                        here = np.int32(y * width + x)
                        for c in range(channels):
                            value = values[c]
                            better = value > largest[c]
                            largest[c] = value if better else largest[c]
                            place[c] = here if better else place[c]


@numba.njit(cache=True, nogil=True)
def scatter(
    gradient: NDArray[np.float32],
    argmax: NDArray[np.int32],
    rois: NDArray[np.float32],
    result: NDArray[np.float32],
) -> None:
    """Add `gradient` `(R, size, size, C)` to `result` `(B, h w, C)` where each value came from."""
    _, size, _, channels = gradient.shape
    for r in range(len(rois)):
        image = int64(rois[r, 0])
        for row in range(size):
            for column in range(size):
                values, places = gradient[r, row, column], argmax[r, row, column]
                for c in range(channels):
                    if places[c] >= 0:
                        result[image, places[c], c] += values[c]
