"""Initial regions as a graph: their boxes, and which regions touch."""

from __future__ import annotations

import numpy as np

from pipeline.kernel_cache import njit


@njit(cache=True, nogil=True, error_model="numpy")
def fill_bounding_boxes(labels, boxes):  # type: ignore[no-untyped-def]
    """Fill `boxes` int32 `(R, 4)`, x1 y1 x2 y2 half open, from the regions in `labels` `(H, W)`."""
    # A row is a few runs of equal labels: only the end of a run needs a comparison.
    height, width = labels.shape
    for box in boxes:
        box[0], box[1], box[2], box[3] = width, height, 0, 0
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


@njit(cache=True, nogil=True, error_model="numpy")
def find_adjacent_pairs(labels, regions):  # type: ignore[no-untyped-def]
    """Find the pairs int32 `(E, 2)`, the lower label first, of regions that touch 4-connectedly.

    Pairs come in the order of their first contact: row by row, within a row first to the right, then
    below. `regions` is the number of labels.
    """
    # An open-addressing table remembers the pairs. Some 5 % of the pixels are on a boundary, and
    # sorting their pairs took as long as all else in this file.
    height = len(labels)
    capacity = 64
    while capacity < 8 * regions:
        capacity *= 2
    table = np.full(capacity, -1, np.int64)
    pairs = np.empty((capacity // 2, 2), np.int32)
    count = 0
    for y in range(height):
        for direction in range(2):
            if direction == 1 and y == height - 1:
                continue
            here = labels[y]
            there = here[1:] if direction == 0 else labels[y + 1]
            last = np.int64(-1)
            for x in range(len(there)):
                if here[x] == there[x]:
                    continue
                low, high = min(here[x], there[x]), max(here[x], there[x])
                pair = np.int64(low) << 32 | np.int64(high)
                if pair == last or not _insert(table, pair):
                    continue
                last = pair
                pairs[count, 0], pairs[count, 1] = low, high
                count += 1
                if count == capacity // 2:
                    capacity *= 2
                    table, pairs = _grow_table(pairs, capacity)
    return pairs[:count].copy()


@njit(inline="always")
def _insert(table, key):  # type: ignore[no-untyped-def]
    # Return whether `key` is new; Fibonacci hashing, linear probing.
    mask = np.uint64(len(table) - 1)
    at = ((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while table[at] != -1:
        if table[at] == key:
            return False
        at = (at + np.uint64(1)) & mask
    table[at] = key
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _grow_table(pairs, capacity):  # type: ignore[no-untyped-def]
    table = np.full(capacity, -1, np.int64)
    larger = np.empty((capacity // 2, 2), np.int32)
    # A slice would be shorter, but takes Numba 4 s to compile.
    for at in range(len(pairs)):
        larger[at, 0], larger[at, 1] = pairs[at, 0], pairs[at, 1]
        _insert(table, np.int64(pairs[at, 0]) << 32 | np.int64(pairs[at, 1]))
    return table, larger
