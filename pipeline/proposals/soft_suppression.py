"""Orders boxes greedily by a score that decays with the overlap with boxes already taken.

A box's score is multiplied by 1 - 0.85 clip((IoU - 0.5) / 0.5, 0, 1) for each box taken before it (soft
non-maximum suppression, Bodla et al., ICCV 2017, with a linear decay): the first boxes are diverse, and no
box is lost.
"""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel_cache import njit
from pipeline.proposals.heap import build_heap, encode_similarity, pack_rank, sift_down, unpack_edge

DECAY = np.float32(0.85)
SMALLEST_OVERLAP = np.float32(0.5)
MOST_PICKS = 1000
"""Boxes after this many are in the order of the scores that they have by then: it bounds the work."""


def order_boxes(
    boxes: NDArray[np.int32], scores: NDArray[np.float32], picks: int = MOST_PICKS
) -> NDArray[np.int64]:
    """Return the order `(N,)` of boxes, best first; of equal scores, the earlier row comes first.

    Args:
        boxes: int32 `(N, 4)`, the smallest area first.
        scores: float32 `(N,)`, positive.
        picks: number of boxes whose overlaps count.
    """
    order = np.empty(len(boxes), np.int64)
    current = scores.astype(np.float32, copy=True)
    taken = _take_best(boxes, current, min(picks, len(boxes)), order)
    is_left = np.ones(len(boxes), np.bool_)
    is_left[order[:taken]] = False
    rest = np.flatnonzero(is_left)
    order[taken:] = rest[np.argsort(-current[rest], kind="stable")]
    return order


@njit(inline="always")
def _find_first(areas, least):  # type: ignore[no-untyped-def]
    # The first of rising areas that is at least `least`.
    low, high = 0, len(areas)
    while low < high:
        middle = (low + high) // 2
        if areas[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy")
def _take_best(boxes, scores, picks, order):  # type: ignore[no-untyped-def]
    # A pick changes only scores of boxes of half to twice its area, a range in the order of area; the loop
    # over it vectorises. Scores only fall, so the heap may hold old ones: what comes up with one goes back
    # with its present score.
    count = len(boxes)
    x1, y1, x2, y2 = (
        np.empty(count, np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
        np.empty(count, np.float32),
    )
    areas = np.empty(count, np.float32)
    heap = np.empty(count, np.uint64)
    for i in range(count):
        x1[i], y1[i], x2[i], y2[i] = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        areas[i] = (x2[i] - x1[i]) * (y2[i] - y1[i])
        heap[i] = pack_rank(encode_similarity(scores[i]), i)
    build_heap(heap, count)
    waiting = count
    for taken in range(picks):
        while True:
            best = unpack_edge(heap[0])
            present = pack_rank(encode_similarity(scores[best]), best)
            if heap[0] == present:
                break
            heap[0] = present
            sift_down(heap, 0, waiting)
        waiting -= 1
        heap[0] = heap[waiting]
        sift_down(heap, 0, waiting)
        order[taken] = best
        area = areas[best]
        # Boxes of other areas cannot overlap by more; those of exactly these areas lose nothing.
        begin = _find_first(areas, area * SMALLEST_OVERLAP)
        end = _find_first(areas, area / SMALLEST_OVERLAP)
        _decay_scores(
            x1[best], y1[best], x2[best], y2[best], area,
            x1[begin:end], y1[begin:end], x2[begin:end], y2[begin:end], areas[begin:end],
            scores[begin:end],
        )  # fmt: skip
    return picks


@njit(inline="always")
def _decay_scores(left, top, right, bottom, area, x1, y1, x2, y2, areas, scores):  # type: ignore[no-untyped-def]
    # Slices from 0 vectorise; a range of the whole arrays does not, as an index might be negative.
    zero, one, slope = np.float32(0), np.float32(1), DECAY / (np.float32(1) - SMALLEST_OVERLAP)
    for j in range(len(scores)):
        across = max(zero, min(right, x2[j]) - max(left, x1[j]))
        overlap = across * max(zero, min(bottom, y2[j]) - max(top, y1[j]))
        share = overlap / (area + areas[j] - overlap)
        scores[j] *= one - slope * max(zero, share - SMALLEST_OVERLAP)
