"""A binary heap in an array, of edges or boxes: the highest value on top, the earliest among equals."""

from __future__ import annotations

import numpy as np

from pipeline.kernel_cache import njit


@njit(inline="always")
def encode_similarity(value):  # type: ignore[no-untyped-def]
    """Return a similarity's float32 bits; they order like it, as it is not negative."""
    return np.uint64(np.float32(value).view(np.uint32))


@njit(inline="always")
def decode_similarity(bits):  # type: ignore[no-untyped-def]
    """Return the similarity that `encode_similarity` encoded."""
    return np.uint32(bits).view(np.float32)


@njit(inline="always")
def pack_rank(bits, edge):  # type: ignore[no-untyped-def]
    """Pack an edge into one integer that orders by similarity, then by age."""
    return (bits << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - np.uint64(edge))


@njit(inline="always")
def unpack_edge(rank):  # type: ignore[no-untyped-def]
    """Return the edge in a rank."""
    return np.int64(np.uint64(0xFFFFFFFF) - (rank & np.uint64(0xFFFFFFFF)))


@njit(inline="always")
def build_heap(heap, count):  # type: ignore[no-untyped-def]
    """Make a heap of the first `count` ranks."""
    for position in range(count // 2 - 1, -1, -1):
        sift_down(heap, position, count)


@njit(inline="always")
def sift_down(heap, position, count):  # type: ignore[no-untyped-def]
    """Move the rank at `position` down to its place among the first `count`."""
    rank = heap[position]
    child = 2 * position + 1
    while child < count:
        if child + 1 < count and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= rank:
            break
        heap[position] = heap[child]
        position = child
        child = 2 * position + 1
    heap[position] = rank


@njit(inline="always")
def push_rank(heap, position, rank):  # type: ignore[no-untyped-def]
    """Add a rank to a heap of `position` ranks."""
    while position > 0:
        parent = (position - 1) >> 1
        if heap[parent] >= rank:
            break
        heap[position] = heap[parent]
        position = parent
    heap[position] = rank
