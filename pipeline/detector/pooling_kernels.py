"""RoI max pooling on the CPU, compiled by Numba: channels are contiguous, and the inner loop runs over them.

torchvision's kernel processes one channel at a time, over a map whose channels are far apart in memory.
Here each cell of the feature map is a row of channels, and the compiler vectorises the maximum. It uses
one thread: Ray owns the cores, and a worker's share of pooling is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int64
from numpy.typing import NDArray

from pipeline.kernel_cache import njit

LOWEST = np.float32(np.finfo(np.float32).min)


@njit(cache=True, nogil=True, inline="always")
def _round(value: Any) -> Any:
    """Round to the nearest integer, halves away from zero, as C's `round` does."""
    below = np.floor(value)
    up = value - below > float32(0.5) or (value - below == float32(0.5) and value >= 0)
    return int64(below) + (1 if up else 0)


@njit(cache=True, nogil=True, inline="always")
def _bound_cell(first: Any, extent: Any, index: Any, size: Any, limit: Any) -> Any:
    """Compute first and end of cell `index` of `size` over `extent` from `first`, within [0, limit)."""
    step = float32(float32(extent) / float32(size))
    start = int64(np.floor(float32(float32(index) * step))) + first
    end = int64(np.ceil(float32(float32(index + 1) * step))) + first
    return min(max(start, 0), limit), min(max(end, 0), limit)


@njit(cache=True, nogil=True)
def pool(
    features: NDArray[np.float32],
    rois: NDArray[np.float32],
    scale: Any,
    size: int,
    pooled: NDArray[Any],
) -> None:
    """Fill `pooled` `(R, size, size, C)` from `features` `(B, h, w, C)`.

    `rois` `(R, 5)` include their last pixel. `pooled` is float32, or uint16 for the upper halves of
    float32; that is bfloat16, and exact if the features come from bfloat16.
    """
    _, height, width, channels = features.shape
    largest = np.empty(channels, np.float32)
    bits = largest.view(np.uint32)
    is_bf16 = pooled.itemsize == 2
    for r in range(len(rois)):
        image = int64(rois[r, 0])
        x1, y1 = _round(rois[r, 1] * scale), _round(rois[r, 2] * scale)
        across = max(_round(rois[r, 3] * scale) - x1 + 1, 1)
        down = max(_round(rois[r, 4] * scale) - y1 + 1, 1)
        for row in range(size):
            top, bottom = _bound_cell(y1, down, row, size, height)
            for column in range(size):
                left, right = _bound_cell(x1, across, column, size, width)
                is_empty = bottom <= top or right <= left
                largest[:] = float32(0) if is_empty else LOWEST
                for y in range(top, bottom):
                    for x in range(left, right):
                        values = features[image, y, x]
                        for c in range(channels):
                            value = values[c]
                            largest[c] = value if value > largest[c] else largest[c]
                cell = pooled[r, row, column]
                if is_bf16:
                    for c in range(channels):
                        cell[c] = bits[c] >> np.uint32(16)
                else:
                    for c in range(channels):
                        cell[c] = largest[c]


@njit(cache=True, nogil=True)
def pool_with_argmax(  # noqa: PLR0917  compiled code takes its arrays by position
    features: NDArray[np.float32],
    rois: NDArray[np.float32],
    scale: Any,
    size: int,
    pooled: NDArray[np.float32],
    argmax: NDArray[np.int32],
) -> None:
    """As `pool`; `argmax` `(R, size, size, C)` is the index y w + x of each largest value, or -1."""
    _, height, width, channels = features.shape
    for r in range(len(rois)):
        image = int64(rois[r, 0])
        x1, y1 = _round(rois[r, 1] * scale), _round(rois[r, 2] * scale)
        across = max(_round(rois[r, 3] * scale) - x1 + 1, 1)
        down = max(_round(rois[r, 4] * scale) - y1 + 1, 1)
        for row in range(size):
            top, bottom = _bound_cell(y1, down, row, size, height)
            for column in range(size):
                left, right = _bound_cell(x1, across, column, size, width)
                largest, place = pooled[r, row, column], argmax[r, row, column]
                is_empty = bottom <= top or right <= left
                largest[:] = float32(0) if is_empty else LOWEST
                place[:] = -1
                for y in range(top, bottom):
                    for x in range(left, right):
                        values = features[image, y, x]
                        index = np.int32(y * width + x)
                        for c in range(channels):
                            value = values[c]
                            is_larger = value > largest[c]
                            largest[c] = value if is_larger else largest[c]
                            place[c] = index if is_larger else place[c]


@njit(cache=True, nogil=True)
def scatter(
    gradient: NDArray[np.float32],
    argmax: NDArray[np.int32],
    rois: NDArray[np.float32],
    result: NDArray[np.float32],
) -> None:
    """Add `gradient` `(R, size, size, C)` to `result` `(B, h w, C)` at the index of each largest value."""
    _, size, _, channels = gradient.shape
    for r in range(len(rois)):
        image = int64(rois[r, 0])
        for row in range(size):
            for column in range(size):
                values, places = gradient[r, row, column], argmax[r, row, column]
                for c in range(channels):
                    if places[c] >= 0:
                        result[image, places[c], c] += values[c]
