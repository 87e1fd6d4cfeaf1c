"""The pixel graph: 8-connected edges in order of their weight.

An edge's weight is the Euclidean distance of two neighbours' smoothed colours.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

BUCKETS = 4096
_SHIFT = 16  # of 23 mantissa bits 7 stay
_LOWEST = (127 - 14) << 7  # buckets begin at 2^-14: weights under 1/128 are all 0

_bits = (np.arange(BUCKETS, dtype=np.int64) + _LOWEST).astype(np.int32) << _SHIFT
SQUARES: NDArray[np.float32] = np.where(
    np.arange(BUCKETS) > 0, _bits.view(np.float32), np.float32(0)
)
"""The squared weight `(4096,)` that stands for each bucket: its lower edge."""
WEIGHTS: NDArray[np.float32] = np.sqrt(SQUARES)
"""The weight `(4096,)` of each bucket."""


@njit(inline="always")
def bucket(square):  # type: ignore[no-untyped-def]
    """The bucket of a squared weight (float32)."""
    place = (np.float32(square).view(np.int32) >> np.int32(_SHIFT)) - np.int32(_LOWEST)
    return min(max(place, np.int32(0)), np.int32(BUCKETS - 1))


@njit(cache=True, nogil=True, error_model="numpy")
def sorted_edges(smoothed, repeats):  # type: ignore[no-untyped-def]
    """All edges of the pixel grid in order of bucket, then of position."""
    _, height, width = smoothed.shape
    keys = _edge_buckets(smoothed, np.float32(repeats))
    starts = np.zeros(BUCKETS + 1, np.int32)
    first = starts[1:]
    for y in range(height):
        for d in range(4):
            left, right = _extent(y, d, height, width)
            row = keys[y, d]
            for x in range(left, right):
                first[row[x]] += 1
    for b in range(BUCKETS):
        starts[b + 1] += starts[b]
    place = starts[:-1].copy()
    edges = np.empty(starts[BUCKETS], np.int32)
    for y in range(height):
        for d in range(4):
            left, right = _extent(y, d, height, width)
            row = keys[y, d]
            name = 4 * (y * width) + d
            for x in range(left, right):
                at = place[row[x]]
                place[row[x]] = at + 1
                edges[at] = name + 4 * x
    return edges, starts


@njit(inline="always")
def _extent(y, direction, height, width):  # type: ignore[no-untyped-def]
    # Columns whose neighbour in this direction lies in the picture.
    if direction == 0:
        return 0, width - 1
    if y == height - 1:
        return 0, 0
    if direction == 1:
        return 1, width
    if direction == 2:
        return 0, width
    return 0, width - 1


@njit(cache=True, nogil=True, error_model="numpy")
def _edge_buckets(smoothed, repeats):  # type: ignore[no-untyped-def]
    # Row by row: squares are added up over the planes, then the float's top bits are the bucket.
    count, height, width = smoothed.shape
    keys = np.empty((height, 4, width), np.uint16)
    total = np.empty(width, np.float32)
    for y in range(height):
        for d in range(4):
            left, right = _extent(y, d, height, width)
            below = 0 if d == 0 else 1
            step = 1 if d == 0 else d - 2
            total[:] = 0
            for c in range(count):
                here = smoothed[c, y]
                there = smoothed[c, min(y + below, height - 1)]
                for x in range(left, right):
                    difference = here[x] - there[x + step]
                    total[x] += difference * difference
            row = keys[y, d]
            for x in range(left, right):
                row[x] = np.uint16(bucket(total[x] * repeats))
    return keys
