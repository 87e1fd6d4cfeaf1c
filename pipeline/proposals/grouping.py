"""Hierarchical grouping: join the two most similar neighbours until one region is left (algorithm 1).

Measured on 500x375 with some 500 regions: 0.6 ms per hierarchy, of which the histograms take half; four
segmentations take 50 times as long as the eight groupings on them.
"""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.proposals.features import UNIT, intersection
from pipeline.proposals.heap import edge_of, order, push, rank, sift_down, similarity_bits

COLOUR, TEXTURE, SIZE, FILL = 1, 2, 4, 8
"""Bits of a similarity's measures."""

_OF_UNIT = np.float32(1.0 / UNIT)


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
        colour: int32 `(2R - 1, ...)` histograms, any without columns where not measured.
        texture: the same.
        pairs: int32 `(E, 2)`, neighbours.
        pair_colour: int64 `(E,)`, intersections of the pairs' histograms.
        pair_texture: the same.
        measures: bits of the measures that add up to the similarity (equation 6).
        pixels: of the whole image.

    Returns:
        int32 `(R - 1, 2)`: which two nodes each merge joins.
    """
    # A heap holds the edges, the most similar first and the earliest among equals; one whose end is gone
    # is skipped when it comes up. A node's edges are a linked list of half-edges (2e and 2e + 1 for edge
    # e), so a merge walks two lists and changes no other. When the arrays are full, edges that lost an
    # end are thrown out: a background that touches everything would otherwise leave n² of them.
    nodes = len(sizes)
    count = (nodes + 1) // 2
    gone = np.zeros(nodes, np.bool_)
    merged = np.empty((count - 1, 2), np.int32)
    capacity = 4 * len(pairs) + 16
    ends, following = np.empty(2 * capacity, np.int32), np.empty(2 * capacity, np.int32)
    heap = np.empty(capacity, np.uint64)
    heads = np.full(nodes, -1, np.int32)
    seen, others = np.zeros(nodes, np.int32), np.empty(nodes, np.int32)
    edges = len(pairs)
    for e in range(edges):
        a, b = pairs[e, 0], pairs[e, 1]
        value = _plain(sizes, boxes, a, b, measures, pixels)
        if measures & COLOUR:
            value += np.float32(pair_colour[e]) * _OF_UNIT
        if measures & TEXTURE:
            value += np.float32(pair_texture[e]) * _OF_UNIT
        _link(ends, following, heads, e, a, b)
        heap[e] = rank(similarity_bits(value), e)
    waiting = edges
    order(heap, waiting)
    for m in range(count - 1):
        edge, waiting = _pop_live(heap, waiting, ends, gone)
        a, b, new = ends[2 * edge], ends[2 * edge + 1], count + m
        merged[m, 0], merged[m, 1] = a, b
        gone[a] = gone[b] = True
        _join(sizes, boxes, colour, texture, measures, a, b, new)
        found = _neighbours(ends, following, heads[a], gone, seen, new, others, 0)
        found = _neighbours(ends, following, heads[b], gone, seen, new, others, found)
        if edges + found > len(heap):
            ends, following, heap, edges = _compacted(
                ends, heap, heads, gone, edges, waiting, found
            )
            waiting = edges
        for at in range(found):
            other = others[at]
            value = _plain(sizes, boxes, other, new, measures, pixels)
            if measures & COLOUR:
                value += np.float32(intersection(colour[other], colour[new])) * _OF_UNIT
            if measures & TEXTURE:
                value += np.float32(intersection(texture[other], texture[new])) * _OF_UNIT
            _link(ends, following, heads, edges, other, new)
            push(heap, waiting, rank(similarity_bits(value), edges))
            waiting += 1
            edges += 1
    return merged


@njit(inline="always")
def _neighbours(ends, following, half, gone, seen, new, others, found):  # type: ignore[no-untyped-def]
    # Add the nodes at the other ends of a list of half-edges to `others`, each once.
    while half >= 0:
        other = ends[half ^ 1]
        if not gone[other] and seen[other] != new:
            seen[other] = new
            others[found] = other
            found += 1
        half = following[half]
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _compacted(ends, heap, heads, gone, edges, waiting, wanted):  # type: ignore[no-untyped-def]
    # Only edges with both ends are kept, in their order; at least half of the new arrays is free.
    bits = np.zeros(edges, np.uint64)
    alive = 0
    for at in range(waiting):
        edge = edge_of(heap[at])
        if not (gone[ends[2 * edge]] or gone[ends[2 * edge + 1]]):
            bits[edge] = heap[at] >> np.uint64(32)
            alive += 1
    capacity = max(len(heap), 2 * (alive + wanted))
    new_ends, following = (
        np.empty(2 * capacity, np.int32),
        np.empty(2 * capacity, np.int32),
    )
    new_heap = np.empty(capacity, np.uint64)
    for node in range(len(heads)):
        heads[node] = -1
    kept = 0
    for edge in range(edges):
        a, b = ends[2 * edge], ends[2 * edge + 1]
        if not (gone[a] or gone[b]):
            _link(new_ends, following, heads, kept, a, b)
            new_heap[kept] = rank(bits[edge], kept)
            kept += 1
    order(new_heap, kept)
    return new_ends, following, new_heap, kept


@njit(inline="always")
def _pop_live(heap, waiting, ends, gone):  # type: ignore[no-untyped-def]
    # The most similar edge whose ends both still are; how many edges wait behind it.
    while True:
        edge = edge_of(heap[0])
        waiting -= 1
        heap[0] = heap[waiting]
        sift_down(heap, 0, waiting)
        if not (gone[ends[2 * edge]] or gone[ends[2 * edge + 1]]):
            return edge, waiting


@njit(inline="always")
def _join(sizes, boxes, colour, texture, measures, a, b, new):  # type: ignore[no-untyped-def]
    # The joint node's size, box and histograms (equation 2).
    sizes[new] = sizes[a] + sizes[b]
    boxes[new, 0], boxes[new, 1] = (
        min(boxes[a, 0], boxes[b, 0]),
        min(boxes[a, 1], boxes[b, 1]),
    )
    boxes[new, 2], boxes[new, 3] = (
        max(boxes[a, 2], boxes[b, 2]),
        max(boxes[a, 3], boxes[b, 3]),
    )
    share = np.float32(sizes[a]) / np.float32(sizes[new])
    if measures & COLOUR:
        _blend(colour[a], colour[b], share, colour[new])
    if measures & TEXTURE:
        _blend(texture[a], texture[b], share, texture[new])


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
def _blend(one, other, share, target):  # type: ignore[no-untyped-def]
    rest = np.float32(1.0) - share
    for i in range(len(target)):
        mixed = share * np.float32(one[i]) + rest * np.float32(other[i])
        target[i] = np.int32(mixed + np.float32(0.5))


@njit(inline="always")
def _link(ends, following, heads, edge, a, b):  # type: ignore[no-untyped-def]
    ends[2 * edge], ends[2 * edge + 1] = a, b
    following[2 * edge], following[2 * edge + 1] = heads[a], heads[b]
    heads[a], heads[b] = 2 * edge, 2 * edge + 1
