"""Initial regions seen as a graph: their boxes and which of them touch."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def bounding_boxes(labels, count):  # type: ignore[no-untyped-def]
    """Boxes int32 `(count, 4)`, x1 y1 x2 y2 half open, of the regions in `labels` `(H, W)`."""
    # A row is a few runs of equal labels: only where a run ends has anything to be compared.
    height, width = labels.shape
    boxes = np.empty((count, 4), np.int32)
    boxes[:, 0] = width
    boxes[:, 1] = height
    boxes[:, 2:] = 0
    for y in range(height):
        row = labels[y]
        begin = 0
        for x in range(1, width + 1):
            if x == width or row[x] != row[begin]:
                box = boxes[row[begin]]
                box[0] = min(box[0], begin)
                box[1] = min(box[1], y)
                box[2] = max(box[2], x)
                box[3] = y + 1
                begin = x
    return boxes


@njit(cache=True, nogil=True, error_model="numpy")
def adjacent_pairs(labels, count):  # type: ignore[no-untyped-def]
    """Pairs int32 `(E, 2)`, the lower label first, of regions with 4-connected pixels.

    In the order in which they are first met, row by row.
    """
    # An open-addressing table remembers the pairs met: some 5 % of pixels lie on a boundary, and a
    # sort of their pairs took as long as all else in this file.
    height, width = labels.shape
    capacity = 64
    while capacity < 8 * count:
        capacity *= 2
    table = np.full(capacity, -1, np.int64)
    found = np.empty((capacity // 2, 2), np.int32)
    met = 0
    for y in range(height):
        row, below = labels[y], labels[min(y + 1, height - 1)]
        for x in range(width):
            here = row[x]
            for direction in range(2):
                there = row[min(x + 1, width - 1)] if direction == 0 else below[x]
                if here == there:
                    continue
                low, high = min(here, there), max(here, there)
                if _insert(table, np.int64(low) << 32 | np.int64(high)):
                    found[met, 0], found[met, 1] = low, high
                    met += 1
                    if met == capacity // 2:
                        capacity *= 2
                        table, found = _grown(found, capacity)
    return found[:met].copy()


@njit(inline="always")
def _insert(table, key):  # type: ignore[no-untyped-def]
    # Whether `key` is new; Fibonacci hashing, linear probing.
    mask = np.uint64(len(table) - 1)
    at = ((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while table[at] != -1:
        if table[at] == key:
            return False
        at = (at + np.uint64(1)) & mask
    table[at] = key
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _grown(found, capacity):  # type: ignore[no-untyped-def]
    table = np.full(capacity, -1, np.int64)
    larger = np.empty((capacity // 2, 2), np.int32)
    larger[: len(found)] = found
    for pair in found:
        _insert(table, np.int64(pair[0]) << 32 | np.int64(pair[1]))
    return table, larger
