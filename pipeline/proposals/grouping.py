"""Hierarchical grouping: join the two most similar neighbours until one region is left (algorithm 1).

Measured on 500x375 with some 500 regions: 0.6 ms per hierarchy, half of it for the histograms; four
segmentations take 50 times as long as the eight groupings on them.
"""


# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np

from pipeline.kernel_cache import njit
from pipeline.proposals.features import UNIT, intersect
from pipeline.proposals.heap import (
    build_heap,
    decode_similarity,
    encode_similarity,
    pack_rank,
    push_rank,
    sift_down,
    unpack_edge,
)

COLOUR, TEXTURE, SIZE, FILL = 1, 2, 4, 8
"""Bits of a similarity's measures."""

_PER_UNIT = np.float32(1.0 / UNIT)


def encode_measures(similarity: str) -> int:
    """Turn a similarity such as "CTSF" into bits."""
    bits = {"C": COLOUR, "T": TEXTURE, "S": SIZE, "F": FILL}
    return sum(bits[name] for name in similarity)


@njit(cache=True, nogil=True, error_model="numpy")
def group_regions(  # type: ignore[no-untyped-def]
    sizes, boxes, colour, texture, pairs, pair_colour, pair_texture, measures, pixels
):
    """Build one hierarchy over R regions, whose nodes are numbered 0 ... 2R - 2.

    The first R rows of the node arrays hold the regions; merge m fills row R + m.

    Args:
        sizes: int32 `(2R - 1,)`, pixels per node.
        boxes: int32 `(2R - 1, 4)`.
        colour: int32 `(2R - 1, ...)` histograms; may have no columns if `measures` leaves it out.
        texture: likewise.
        pairs: int32 `(E, 2)`, neighbours.
        pair_colour: int64 `(E,)`, intersections of the pairs' histograms.
        pair_texture: likewise.
        measures: bits of the measures that add up to the similarity (equation 6).
        pixels: pixels of the whole image.

    Returns:
        int32 `(R - 1, 2)`: the two nodes that each merge joins; float32 `(R - 1,)`: their similarity.
    """
    nodes = len(sizes)
    count = (nodes + 1) // 2
    is_merged = np.zeros(nodes, np.bool_)
    merges, similarities = np.empty((count - 1, 2), np.int32), np.empty(count - 1, np.float32)
    heads, last_seen = np.full(nodes, -1, np.int32), np.zeros(nodes, np.int32)
    neighbours = np.empty(nodes, np.int32)
    ends, following, heap = _link_pairs(
        sizes, boxes, pairs, pair_colour, pair_texture, measures, pixels, heads
    )
    waiting = edges = len(pairs)
    for m in range(count - 1):
        rank, waiting = _pop_live_edge(heap, waiting, ends, is_merged)
        edge = unpack_edge(rank)
        a, b, new = ends[2 * edge], ends[2 * edge + 1], count + m
        merges[m, 0], merges[m, 1] = a, b
        similarities[m] = decode_similarity(rank >> np.uint64(32))
        is_merged[a] = is_merged[b] = True
        _join_nodes(sizes, boxes, colour, texture, measures, a, b, new)
        degree = 0
        for node in (a, b):
            degree = _collect_neighbours(
                ends, following, heads[node], is_merged, last_seen, new, neighbours, degree
            )
        if edges + degree > len(heap):
            ends, following, heap, edges = _compact(
                ends, heap, heads, is_merged, edges, waiting, degree
            )
            waiting = edges
        for neighbour in neighbours[:degree]:
            value = _compare_extents(sizes, boxes, neighbour, new, measures, pixels)
            if measures & COLOUR:
                value += np.float32(intersect(colour[neighbour], colour[new])) * _PER_UNIT
            if measures & TEXTURE:
                value += np.float32(intersect(texture[neighbour], texture[new])) * _PER_UNIT
            _link_edge(ends, following, heads, edges, neighbour, new)
            push_rank(heap, waiting, pack_rank(encode_similarity(value), edges))
            waiting += 1
            edges += 1
    return merges, similarities


@njit(cache=True, nogil=True, error_model="numpy")
def _link_pairs(sizes, boxes, pairs, pair_colour, pair_texture, measures, pixels, heads):  # type: ignore[no-untyped-def]
    # A heap holds the edges, the most similar first and the earliest among equals; an edge with a merged
    # end is skipped when it comes up. A node's edges are a linked list of half-edges (2e and 2e + 1 for
    # edge e), so a merge walks two lists and changes no other. When the arrays are full, edges that lost
    # an end are dropped: a background that touches everything would otherwise leave n² of them.
    capacity = 4 * len(pairs) + 16
    ends, following = np.empty(2 * capacity, np.int32), np.empty(2 * capacity, np.int32)
    heap = np.empty(capacity, np.uint64)
    for e in range(len(pairs)):
        a, b = pairs[e, 0], pairs[e, 1]
        value = _compare_extents(sizes, boxes, a, b, measures, pixels)
        if measures & COLOUR:
            value += np.float32(pair_colour[e]) * _PER_UNIT
        if measures & TEXTURE:
            value += np.float32(pair_texture[e]) * _PER_UNIT
        _link_edge(ends, following, heads, e, a, b)
        heap[e] = pack_rank(encode_similarity(value), e)
    build_heap(heap, len(pairs))
    return ends, following, heap


@njit(inline="always")
def _collect_neighbours(  # type: ignore[no-untyped-def]
    ends, following, half, is_merged, last_seen, new, neighbours, degree
):
    # Add the nodes at the other ends of a list of half-edges to `neighbours`, without duplicates.
    while half >= 0:
        neighbour = ends[half ^ 1]
        if not is_merged[neighbour] and last_seen[neighbour] != new:
            last_seen[neighbour] = new
            neighbours[degree] = neighbour
            degree += 1
        half = following[half]
    return degree


@njit(cache=True, nogil=True, error_model="numpy")
def _compact(ends, heap, heads, is_merged, edges, waiting, room):  # type: ignore[no-untyped-def]
    # Keep only edges with both ends, in their order; at least half of the new arrays is free.
    bits = np.zeros(edges, np.uint64)
    alive = 0
    for position in range(waiting):
        edge = unpack_edge(heap[position])
        if not (is_merged[ends[2 * edge]] or is_merged[ends[2 * edge + 1]]):
            bits[edge] = heap[position] >> np.uint64(32)
            alive += 1
    capacity = max(len(heap), 2 * (alive + room))
    new_ends, following = (
        np.empty(2 * capacity, np.int32),
        np.empty(2 * capacity, np.int32),
    )
    new_heap = np.empty(capacity, np.uint64)
    for node in range(len(heads)):
        heads[node] = -1
    edge_count = 0
    for edge in range(edges):
        a, b = ends[2 * edge], ends[2 * edge + 1]
        if not (is_merged[a] or is_merged[b]):
            _link_edge(new_ends, following, heads, edge_count, a, b)
            new_heap[edge_count] = pack_rank(bits[edge], edge_count)
            edge_count += 1
    build_heap(new_heap, edge_count)
    return new_ends, following, new_heap, edge_count


@njit(inline="always")
def _pop_live_edge(heap, waiting, ends, is_merged):  # type: ignore[no-untyped-def]
    # Return the rank of the most similar edge whose ends both still exist, and the number of edges behind it.
    while True:
        rank = heap[0]
        edge = unpack_edge(rank)
        waiting -= 1
        heap[0] = heap[waiting]
        sift_down(heap, 0, waiting)
        if not (is_merged[ends[2 * edge]] or is_merged[ends[2 * edge + 1]]):
            return rank, waiting


@njit(inline="always")
def _join_nodes(sizes, boxes, colour, texture, measures, a, b, new):  # type: ignore[no-untyped-def]
    # Fill the new node's size, box and histograms (equation 2).
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
        _blend_histograms(colour[a], colour[b], share, colour[new])
    if measures & TEXTURE:
        _blend_histograms(texture[a], texture[b], share, texture[new])


@njit(inline="always")
def _compare_extents(sizes, boxes, a, b, measures, pixels):  # type: ignore[no-untyped-def]
    # The measures that need no histogram: size (equation 4) and fill (equation 5).
    together = sizes[a] + sizes[b]
    value = np.float32(0)
    if measures & SIZE:
        value += np.float32(1.0) - np.float32(together) / np.float32(pixels)
    if measures & FILL:
        first, second = boxes[a], boxes[b]
        across = np.int64(max(first[2], second[2]) - min(first[0], second[0]))
        down = np.int64(max(first[3], second[3]) - min(first[1], second[1]))
        value += np.float32(1.0) - np.float32(across * down - together) / np.float32(pixels)
    return value


@njit(inline="always")
def _blend_histograms(first, second, share, target):  # type: ignore[no-untyped-def]
    rest = np.float32(1.0) - share
    for i in range(len(target)):
        mixed = share * np.float32(first[i]) + rest * np.float32(second[i])
        target[i] = np.int32(mixed + np.float32(0.5))


@njit(inline="always")
def _link_edge(ends, following, heads, edge, a, b):  # type: ignore[no-untyped-def]
    ends[2 * edge], ends[2 * edge + 1] = a, b
    following[2 * edge], following[2 * edge + 1] = heads[a], heads[b]
    heads[a], heads[b] = 2 * edge, 2 * edge + 1
