"""Graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004): the initial regions.

In order of weight, an edge joins two components if its weight is at most both components' largest inner
weight + k / size; then components under `min_size` join their neighbours in the same order.

Measured on 500x375: joining 6.2 ms, small components 1.5 ms, labels 0.3 ms. A union-find that takes one
edge after the other needs 14 ms, most of it in mispredicted branches and waiting for the cache.
"""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel_cache import njit
from pipeline.proposals.prefetch import prefetch
from pipeline.proposals.workspace import Workspace

_BLOCK = 256
_AHEAD = 32
_SIZE, _THRESHOLD = 0, 1


def segment_image(
    edges: NDArray[np.int64],
    height: int,
    width: int,
    k: float,
    min_size: int,
    workspace: Workspace,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Segment an image.

    Args:
        edges: int64 `(M,)` from `sort_edges`.
        height: pixels.
        width: pixels.
        k: scale of observation; larger gives larger regions.
        min_size: smallest region, in pixels; a smaller image is one region.
        workspace: holds the labels until the next segmentation.

    Returns:
        `labels` int32 `(H, W)`, numbered from 0 in the order of their first pixel;
        `sizes` int32 `(R,)`, pixels per region.
    """
    pixels = height * width
    parents = workspace.take_array("parents", pixels, np.uint32)
    roots = workspace.take_array("roots", (pixels, 2), np.int32)
    rejected = workspace.take_array("edges halfway", len(edges) + 1, np.int32)
    labels = workspace.take_array("labels", (height, width), np.int32)
    count = _join_similar(edges, width, np.float32(k), parents, roots, rejected)
    _join_small(rejected[:count], width, min_size, parents, roots)
    sizes = workspace.take_array("region sizes", pixels, np.int32)
    regions = _number_regions(parents, roots, labels.reshape(-1), sizes)
    return labels, sizes[:regions].copy()


@njit(inline="always")
def _get_neighbour_offsets(width):  # type: ignore[no-untyped-def]
    offsets = np.empty(4, np.uint32)
    offsets[0] = 1
    offsets[1] = width - 1
    offsets[2] = width
    offsets[3] = width + 1
    return offsets


@njit(inline="always")
def _find_root(parents, node):  # type: ignore[no-untyped-def]
    # A root is its own parent; climb two steps at a time.

    above = parents[node]
    while above != node:
        node = parents[above]
        above = parents[node]
    return node


@njit(cache=True, nogil=True, error_model="numpy")
def _join_similar(edges, width, k, parents, roots, rejected):  # type: ignore[no-untyped-def]
    # Blocks of 256 edges in two steps. The first has no branch and no order: it climbs two parents from
    # both ends, which is the root almost always, and keeps the edges whose ends differ, so that the
    # loads overlap and the half of all edges that are inside a component cost nothing more. The second
    # visits the kept edges in order. Weights and thresholds compare as integers: they are bits of floats
    # that are not negative. An edge rejected once never joins anything later, as one of its components
    # is complete; only rejected edges matter for small components. The parents of the pixels 32 edges
    # ahead, and the roots that the second step reads, are prefetched: this saves nothing at 500x375, a
    # seventh of the time at 640x480 and a third at 2000x2000, where the arrays outgrow the caches.
    offsets = _get_neighbour_offsets(width)
    for pixel in range(len(parents)):
        parents[pixel] = pixel
        roots[pixel, _SIZE] = 1
        roots[pixel, _THRESHOLD] = np.float32(k).view(np.int32)
    first_roots, second_roots = np.empty(_BLOCK + 1, np.uint32), np.empty(_BLOCK + 1, np.uint32)
    open_edges = np.empty(_BLOCK + 1, np.int64)
    count, last = 0, len(edges) - 1
    for begin in range(0, len(edges), _BLOCK):
        open_count = 0
        for at in range(begin, min(begin + _BLOCK, len(edges))):
            code = np.uint32(edges[min(at + _AHEAD, last)])
            first = code >> np.uint32(2)
            prefetch(parents, first)
            prefetch(parents, first + offsets[code & np.uint32(3)])
            edge = edges[at]
            code = np.uint32(edge)
            first = code >> np.uint32(2)
            second = first + offsets[code & np.uint32(3)]
            first_root, second_root = parents[parents[first]], parents[parents[second]]
            parents[first] = first_root
            parents[second] = second_root
            first_roots[open_count], second_roots[open_count] = first_root, second_root
            open_edges[open_count] = edge
            open_count += first_root != second_root
        for at in range(open_count):
            prefetch(roots, first_roots[at])
            prefetch(roots, second_roots[at])
        for at in range(open_count):
            first = _find_root(parents, first_roots[at])
            second = _find_root(parents, second_roots[at])
            if first == second:
                continue
            weight = np.int32(open_edges[at] >> 32)
            if weight > roots[first, _THRESHOLD] or weight > roots[second, _THRESHOLD]:
                rejected[count] = np.int32(open_edges[at])
                count += 1
                continue
            first_size, second_size = roots[first, _SIZE], roots[second, _SIZE]
            if first_size < second_size:
                first, second = second, first
            size = first_size + second_size
            threshold = weight.view(np.float32) + k / np.float32(size)
            parents[second] = first
            roots[first, _SIZE] = size
            roots[first, _THRESHOLD] = np.float32(threshold).view(np.int32)
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _join_small(rejected, width, min_size, parents, roots):  # type: ignore[no-untyped-def]
    # The same two steps. Sizes only grow: two components that are large when a block begins stay large.
    offsets = _get_neighbour_offsets(width)
    first_roots, second_roots = np.empty(_BLOCK + 1, np.uint32), np.empty(_BLOCK + 1, np.uint32)
    for begin in range(0, len(rejected), _BLOCK):
        open_count = 0
        for at in range(begin, min(begin + _BLOCK, len(rejected))):
            code = np.uint32(rejected[at])
            first = code >> np.uint32(2)
            second = first + offsets[code & np.uint32(3)]
            first_root, second_root = _find_root(parents, first), _find_root(parents, second)
            parents[first] = first_root
            parents[second] = second_root
            first_roots[open_count], second_roots[open_count] = first_root, second_root
            small = min(roots[first_root, _SIZE], roots[second_root, _SIZE]) < min_size
            open_count += (first_root != second_root) & small
        for at in range(open_count):
            first = _find_root(parents, first_roots[at])
            second = _find_root(parents, second_roots[at])
            if first == second:
                continue
            first_size, second_size = roots[first, _SIZE], roots[second, _SIZE]
            if first_size < min_size or second_size < min_size:
                if first_size < second_size:
                    first, second = second, first
                parents[second] = first
                roots[first, _SIZE] = first_size + second_size


@njit(cache=True, nogil=True, error_model="numpy")
def _number_regions(parents, roots, labels, sizes):  # type: ignore[no-untyped-def]
    # A root's label, stored as -1 - label, replaces its threshold, which is never negative.
    count = 0
    for pixel in range(len(parents)):
        root = _find_root(parents, parents[pixel])
        parents[pixel] = root
        if roots[root, _THRESHOLD] >= 0:
            roots[root, _THRESHOLD] = -1 - count
            sizes[count] = roots[root, _SIZE]
            count += 1
        labels[pixel] = -1 - roots[root, _THRESHOLD]
    return count
