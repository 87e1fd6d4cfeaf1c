"""How many nodes of the hierarchies have a box like this one: regions on which segmentations agree."""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np

from pipeline.kernel_cache import njit

LOOSE, TIGHT = np.float32(0.7), np.float32(0.85)
"""IoUs from which two boxes agree."""
MOST_COMPARED = 2000
"""A box is compared with this many boxes of the next larger areas at most: it bounds the work."""


@njit(cache=True, nogil=True, error_model="numpy")
def count_agreement(boxes, weights, agreement):  # type: ignore[no-untyped-def]
    """Fill `agreement` float32 `(N, 2)` with the weight of the other boxes that overlap each one.

    Args:
        boxes: int32 `(N, 4)`, the smallest area first.
        weights: int32 `(N,)`.
        agreement: receives the sums for `LOOSE` and for `TIGHT`.
    """
    # An IoU of 0.7 needs areas within 0.7 of each other: in the order of area, that is a short range.
    count = len(boxes)
    x1, y1, x2, y2 = (
        np.empty(count, np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
    )
    areas = np.empty(count, np.float32)
    for i in range(count):
        x1[i], y1[i], x2[i], y2[i] = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        areas[i] = (x2[i] - x1[i]) * (y2[i] - y1[i])
    loose, tight = np.zeros(count, np.int32), np.zeros(count, np.int32)
    end = 0
    for i in range(count):
        end = max(end, i + 1)
        while end < min(count, i + MOST_COMPARED) and areas[end] * LOOSE <= areas[i]:
            end += 1
        own_loose, own_tight = _compare_with_range(
            x1[i], y1[i], x2[i], y2[i], areas[i], weights[i],
            x1[i + 1 : end], y1[i + 1 : end], x2[i + 1 : end], y2[i + 1 : end], areas[i + 1 : end],
            weights[i + 1 : end], loose[i + 1 : end], tight[i + 1 : end],
        )  # fmt: skip
        loose[i] += own_loose
        tight[i] += own_tight
    for i in range(count):
        agreement[i, 0], agreement[i, 1] = loose[i], tight[i]


@njit(inline="always")
def _compare_with_range(  # type: ignore[no-untyped-def]
    left, top, right, bottom, area, weight, x1, y1, x2, y2, areas, weights, loose, tight
):
    # Slices from 0 vectorise; a range of the whole arrays does not, as an index might be negative.
    own_loose = own_tight = np.int32(0)
    zero = np.float32(0)
    for j in range(len(areas)):
        across = max(zero, min(right, x2[j]) - max(left, x1[j]))
        overlap = across * max(zero, min(bottom, y2[j]) - max(top, y1[j]))
        union = area + areas[j] - overlap
        is_loose = np.int32(overlap >= LOOSE * union)
        is_tight = np.int32(overlap >= TIGHT * union)
        own_loose += is_loose * weights[j]
        own_tight += is_tight * weights[j]
        loose[j] += is_loose * weight
        tight[j] += is_tight * weight
    return own_loose, own_tight
