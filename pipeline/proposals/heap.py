"""A binary heap of edges in an array: the most similar on top, the earliest among equals."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(inline="always")
def similarity_bits(value):  # type: ignore[no-untyped-def]
    """A similarity's float32 bits, which order like it, as it is not negative."""
    return np.uint64(np.float32(value).view(np.uint32))


@njit(inline="always")
def rank(bits, edge):  # type: ignore[no-untyped-def]
    """One integer that orders by similarity, then by age."""
    return (bits << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - np.uint64(edge))


@njit(inline="always")
def edge_of(ranked):  # type: ignore[no-untyped-def]
    """The edge in a rank."""
    return np.int64(np.uint64(0xFFFFFFFF) - (ranked & np.uint64(0xFFFFFFFF)))


@njit(inline="always")
def order(heap, count):  # type: ignore[no-untyped-def]
    """Make a heap of the first `count` ranks."""
    for at in range(count // 2 - 1, -1, -1):
        sift_down(heap, at, count)


@njit(inline="always")
def sift_down(heap, at, count):  # type: ignore[no-untyped-def]
    """Let the rank at `at` sink to its place among the first `count`."""
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
def push(heap, at, item):  # type: ignore[no-untyped-def]
    """Add a rank to a heap of `at` ranks."""
    while at > 0:
        above = (at - 1) >> 1
        if heap[above] >= item:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = item
