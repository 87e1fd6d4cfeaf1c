"""Graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004): the initial regions.

Edges in order of weight join two components when the weight is at most both components' largest inner
weight + k / size; then components under `min_size` join their neighbours in the same order.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.proposals.edges import BUCKETS, WEIGHTS, bucket

_LOW = np.int64(0xFFFFFFFF)


@njit(cache=True, nogil=True, error_model="numpy")
def segment(edges, starts, height, width, k, min_size):  # type: ignore[no-untyped-def]
    """Segment a picture.

    Args:
        edges: int32 `(M,)` and
        starts: int32 `(4097,)`, from `sorted_edges`.
        height: of the picture.
        width: of the picture.
        k: scale of observation; larger gives larger regions.
        min_size: pixels that each region has at least, where the picture has so many.

    Returns:
        `labels` int32 `(H, W)`, numbered from 0 in the order of their first pixel;
        `sizes` int32 `(R,)`, pixels per region.
    """
    nodes = _components(edges, starts, height * width, width, np.float32(k))
    _join_small(nodes, edges, width, min_size)
    return _labels(nodes, height, width)


@njit(inline="always")
def _find(nodes, index):  # type: ignore[no-untyped-def]
    # Root of `index` and its value; every node on the way is hung one higher (path splitting).
    value = nodes[index]
    while value >= 0:
        above = np.uint32(value)
        value = nodes[above]
        if value >= 0:
            nodes[index] = value
        index = above
    return index, value


@njit(inline="always")
def _neighbour_offsets(width):  # type: ignore[no-untyped-def]
    offsets = np.empty(4, np.uint32)
    offsets[0] = 1
    offsets[1] = width - 1
    offsets[2] = width
    offsets[3] = width + 1
    return offsets


@njit(cache=True, nogil=True, error_model="numpy")
def _components(edges, starts, pixels, width, k):  # type: ignore[no-untyped-def]
    # One int64 per pixel: a parent (>= 0), or of a root -size in the high and its threshold in the
    # low half, so that a find ends with all it needs. The threshold is kept as a bucket: comparing
    # an edge with it is comparing two integers.
    offsets = _neighbour_offsets(width)
    nodes = np.empty(pixels, np.int64)
    nodes[:] = (np.int64(-1) << 32) | np.int64(bucket(k * k))
    for b in range(BUCKETS):
        weight = WEIGHTS[b]
        for at in range(starts[b], starts[b + 1]):
            edge = np.uint32(edges[at])
            pixel = edge >> np.uint32(2)
            one, value = _find(nodes, pixel)
            other, other_value = _find(nodes, pixel + offsets[edge & np.uint32(3)])
            if one == other or b > (value & _LOW) or b > (other_value & _LOW):
                continue
            size = (value >> 32) + (other_value >> 32)  # both negative
            threshold = weight + k / np.float32(-size)
            if value > other_value:  # the smaller one goes under the larger
                one, other = other, one
            nodes[other] = one
            nodes[one] = (size << 32) | np.int64(bucket(threshold * threshold))
    return nodes


@njit(cache=True, nogil=True, error_model="numpy")
def _join_small(nodes, edges, width, min_size):  # type: ignore[no-untyped-def]
    offsets = _neighbour_offsets(width)
    for at in range(len(edges)):
        edge = np.uint32(edges[at])
        pixel = edge >> np.uint32(2)
        one, value = _find(nodes, pixel)
        other, other_value = _find(nodes, pixel + offsets[edge & np.uint32(3)])
        if one == other:
            continue
        size, other_size = -(value >> 32), -(other_value >> 32)
        if size < min_size or other_size < min_size:
            if size < other_size:
                one, other = other, one
            nodes[other] = one
            nodes[one] = -(size + other_size) << 32


@njit(cache=True, nogil=True, error_model="numpy")
def _labels(nodes, height, width):  # type: ignore[no-untyped-def]
    labels = np.empty((height, width), np.int32)
    flat = labels.reshape(-1)
    of_root = np.full(len(nodes), -1, np.int32)
    sizes = np.empty(len(nodes), np.int32)
    count = np.int32(0)
    for pixel in range(len(nodes)):
        root, value = _find(nodes, np.uint32(pixel))
        label = of_root[root]
        if label < 0:
            label = count
            of_root[root] = label
            sizes[label] = -(value >> 32)
            count += np.int32(1)
        flat[pixel] = label
    return labels, sizes[:count].copy()
