"""Hierarchical grouping: join the two most similar neighbours until one region is left (algorithm 1).

Measured on 500x375 with some 500 regions: 0.6 ms per hierarchy, of which the histograms take half; four
segmentations take 50 times as long as the eight groupings on them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.proposals.features import LANES, intersection

COLOUR, TEXTURE, SIZE, FILL = 1, 2, 4, 8
"""Bits of a similarity's measures."""


def measures(similarity: str) -> int:
    """The bits of a similarity such as "CTSF"."""
    bits = {"C": COLOUR, "T": TEXTURE, "S": SIZE, "F": FILL}
    return sum(bits[name] for name in similarity)


@njit(cache=True, nogil=True, error_model="numpy")
def group(sizes, boxes, colour, texture, pairs, pair_colour, pair_texture, measures, pixels):  # type: ignore[no-untyped-def]
    """Build one hierarchy over R regions, whose nodes are numbered 0 ... 2R - 2.

    The node arrays come with the regions in their first R rows; merge m fills row R + m.

    Args:
        sizes: int32 `(2R - 1,)`, pixels per node.
        boxes: int32 `(2R - 1, 4)`.
        colour: float32 `(2R - 1, ...)` histograms, any without columns where not measured.
        texture: the same.
        pairs: int32 `(E, 2)`, neighbours.
        pair_colour: float32 `(E,)`, intersections of the pairs' histograms.
        pair_texture: the same.
        measures: bits of the measures that add up to the similarity (equation 6).
        pixels: of the whole picture.

    Returns:
        int32 `(R - 1, 2)`: which two nodes each merge joins.
    """
    # A heap holds all edges that ever were, the most similar first and the earliest among equals; one
    # whose end is gone is skipped when it comes up. A node's edges are a linked list of half-edges (2e
    # and 2e + 1 for edge e), so a merge walks two lists and changes no other.
    nodes = len(sizes)
    count = (nodes + 1) // 2
    gone = np.zeros(nodes, np.bool_)
    merged = np.empty((count - 1, 2), np.int32)
    capacity = 4 * len(pairs) + 16
    ends = np.empty(2 * capacity, np.int32)
    following = np.empty(2 * capacity, np.int32)
    heap = np.empty(capacity, np.uint64)
    heads = np.full(nodes, -1, np.int32)
    seen = np.zeros(nodes, np.int32)
    lanes = np.empty(LANES, np.float32)
    edges = 0
    for e in range(len(pairs)):
        a, b = pairs[e]
        value = _plain(sizes, boxes, a, b, measures, pixels)
        if measures & COLOUR:
            value += pair_colour[e]
        if measures & TEXTURE:
            value += pair_texture[e]
        _link(ends, following, heads, edges, a, b)
        heap[edges] = _rank(value, edges)
        edges += 1
    waiting = edges
    for at in range(waiting // 2 - 1, -1, -1):
        _sift_down(heap, at, waiting)
    for m in range(count - 1):
        edge = 0
        while True:
            edge = _edge_of(heap[0])
            waiting -= 1
            heap[0] = heap[waiting]
            _sift_down(heap, 0, waiting)
            if not (gone[ends[2 * edge]] or gone[ends[2 * edge + 1]]):
                break
        a, b, new = ends[2 * edge], ends[2 * edge + 1], count + m
        merged[m, 0], merged[m, 1] = a, b
        gone[a] = gone[b] = True
        sizes[new] = sizes[a] + sizes[b]
        _cover(boxes[a], boxes[b], boxes[new])
        share = np.float32(sizes[a]) / np.float32(sizes[new])
        if measures & COLOUR:
            _blend(colour[a], colour[b], share, colour[new])
        if measures & TEXTURE:
            _blend(texture[a], texture[b], share, texture[new])
        for side in range(2):
            half = heads[a] if side == 0 else heads[b]
            while half >= 0:
                other = ends[half ^ 1]
                half = following[half]
                if gone[other] or seen[other] == new:
                    continue
                seen[other] = new
                value = _plain(sizes, boxes, other, new, measures, pixels)
                if measures & COLOUR:
                    value += intersection(colour[other], colour[new], lanes)
                if measures & TEXTURE:
                    value += intersection(texture[other], texture[new], lanes)
                if edges == capacity:
                    capacity *= 2
                    ends, following = _doubled(ends), _doubled(following)
                if waiting == len(heap):
                    heap = _doubled(heap)
                _link(ends, following, heads, edges, other, new)
                _push(heap, waiting, _rank(value, edges))
                waiting += 1
                edges += 1
    return merged


@njit(inline="always")
def _plain(sizes, boxes, a, b, measures, pixels):  # type: ignore[no-untyped-def]
    # The measures that need no histogram: size (equation 4) and fill (equation 5).
    together = sizes[a] + sizes[b]
    value = np.float32(0)
    if measures & SIZE:
        value += np.float32(1.0) - np.float32(together) / np.float32(pixels)
    if measures & FILL:
        one, other = boxes[a], boxes[b]
        across = np.int64(max(one[2], other[2]) - min(one[0], other[0]))
        down = np.int64(max(one[3], other[3]) - min(one[1], other[1]))
        value += np.float32(1.0) - np.float32(across * down - together) / np.float32(pixels)
    return value


@njit(inline="always")
def _cover(one, other, target):  # type: ignore[no-untyped-def]
    target[0], target[1] = min(one[0], other[0]), min(one[1], other[1])
    target[2], target[3] = max(one[2], other[2]), max(one[3], other[3])


@njit(inline="always")
def _blend(one, other, share, target):  # type: ignore[no-untyped-def]
    # The joint region's histogram from its parts' (equation 2).
    rest = np.float32(1.0) - share
    for i in range(len(target)):
        target[i] = share * one[i] + rest * other[i]


@njit(inline="always")
def _link(ends, following, heads, edge, a, b):  # type: ignore[no-untyped-def]
    ends[2 * edge], ends[2 * edge + 1] = a, b
    following[2 * edge], following[2 * edge + 1] = heads[a], heads[b]
    heads[a], heads[b] = 2 * edge, 2 * edge + 1


@njit(inline="always")
def _rank(value, edge):  # type: ignore[no-untyped-def]
    # A float32 that is not negative orders like its bits: one integer holds similarity and age.
    bits = np.uint64(np.float32(value).view(np.uint32))
    return (bits << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - np.uint64(edge))


@njit(inline="always")
def _edge_of(rank):  # type: ignore[no-untyped-def]
    return np.int64(np.uint64(0xFFFFFFFF) - (rank & np.uint64(0xFFFFFFFF)))


@njit(inline="always")
def _sift_down(heap, at, count):  # type: ignore[no-untyped-def]
    item = heap[at]
    child = 2 * at + 1
    while child < count:
        if child + 1 < count and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= item:
            break
        heap[at] = heap[child]
        at = child
        child = 2 * at + 1
    heap[at] = item


@njit(inline="always")
def _push(heap, at, item):  # type: ignore[no-untyped-def]
    while at > 0:
        above = (at - 1) >> 1
        if heap[above] >= item:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = item


@njit(cache=True, nogil=True, error_model="numpy")
def _doubled(array):  # type: ignore[no-untyped-def]
    larger = np.empty(2 * len(array), array.dtype)
    larger[: len(array)] = array
    return larger
