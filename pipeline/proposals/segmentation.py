"""Graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004): the initial regions.

Edges in order of weight join two components when the weight is at most both components' largest inner
weight + k / size; then components under `min_size` join their neighbours in the same order.

Measured on 500x375: joining 6.2 ms, small components 1.5 ms, labels 0.3 ms. A union-find that takes one
edge after the other needs 14 ms, most of it in mispredicted branches and waiting for the cache.
"""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.proposals.prefetch import prefetch
from pipeline.proposals.workspace import Workspace

_BLOCK = 256
_AHEAD = 32
_SIZE, _THRESHOLD = 0, 1


def segment(
    edges: NDArray[np.int64],
    height: int,
    width: int,
    k: float,
    min_size: int,
    workspace: Workspace,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Segment an image.

    Args:
        edges: from `sorted_edges`.
        height: of the image.
        width: of the image.
        k: scale of observation; larger gives larger regions.
        min_size: pixels that each region has at least, where the image has so many.
        workspace: holds the labels until the next segmentation.

    Returns:
        `labels` int32 `(H, W)`, numbered from 0 in the order of their first pixel;
        `sizes` int32 `(R,)`, pixels per region.
    """
    pixels = height * width
    parents = workspace.array("parents", pixels, np.uint32)
    roots = workspace.array("roots", (pixels, 2), np.int32)
    refused = workspace.array("edges halfway", len(edges) + 1, np.int32)
    labels = workspace.array("labels", (height, width), np.int32)
    count = _join_similar(edges, width, np.float32(k), parents, roots, refused)
    _join_small(refused[:count], width, min_size, parents, roots)
    sizes = workspace.array("region sizes", pixels, np.int32)
    regions = _number(parents, roots, labels.reshape(-1), sizes)
    return labels, sizes[:regions].copy()


@njit(inline="always")
def _neighbour_offsets(width):  # type: ignore[no-untyped-def]
    offsets = np.empty(4, np.uint32)
    offsets[0] = 1
    offsets[1] = width - 1
    offsets[2] = width
    offsets[3] = width + 1
    return offsets


@njit(inline="always")
def _root(parents, node):  # type: ignore[no-untyped-def]
    # A root is its own parent; two steps at a time.
    above = parents[node]
    while above != node:
        node = parents[above]
        above = parents[node]
    return node


@njit(cache=True, nogil=True, error_model="numpy")
def _join_similar(edges, width, k, parents, roots, refused):  # type: ignore[no-untyped-def]
    # Blocks of 256 edges in two steps. The first has no branch and no order: it climbs two parents from
    # both ends, which is the root almost always, and keeps the edges whose ends differ, so that the
    # loads overlap and the half of all edges that lie inside a component cost nothing more. The
    # second goes through what was kept, in order. Weights and thresholds compare as integers: bits of
    # floats that are not negative. An edge refused once joins nothing later either, as one of its
    # components is complete; only those edges matter for small components. The parents of the pixels 32
    # edges on, and the roots that the second step will look at, are asked for ahead: nothing at 500x375,
    # a seventh of the time at 640x480, a third at 2000x2000, where the arrays outgrow the caches.
    offsets = _neighbour_offsets(width)
    for pixel in range(len(parents)):
        parents[pixel] = pixel
        roots[pixel, _SIZE] = 1
        roots[pixel, _THRESHOLD] = np.float32(k).view(np.int32)
    ones, others = np.empty(_BLOCK + 1, np.uint32), np.empty(_BLOCK + 1, np.uint32)
    open_edges = np.empty(_BLOCK + 1, np.int64)
    count, last = 0, len(edges) - 1
    for begin in range(0, len(edges), _BLOCK):
        kept = 0
        for at in range(begin, min(begin + _BLOCK, len(edges))):
            name = np.uint32(edges[min(at + _AHEAD, last)])
            one = name >> np.uint32(2)
            prefetch(parents, one)
            prefetch(parents, one + offsets[name & np.uint32(3)])
            edge = edges[at]
            name = np.uint32(edge)
            one = name >> np.uint32(2)
            other = one + offsets[name & np.uint32(3)]
            one_above, other_above = parents[parents[one]], parents[parents[other]]
            parents[one] = one_above
            parents[other] = other_above
            ones[kept], others[kept], open_edges[kept] = one_above, other_above, edge
            kept += one_above != other_above
        for at in range(kept):
            prefetch(roots, ones[at])
            prefetch(roots, others[at])
        for at in range(kept):
            one, other = _root(parents, ones[at]), _root(parents, others[at])
            if one == other:
                continue
            weight = np.int32(open_edges[at] >> 32)
            if weight > roots[one, _THRESHOLD] or weight > roots[other, _THRESHOLD]:
                refused[count] = np.int32(open_edges[at])
                count += 1
                continue
            size, other_size = roots[one, _SIZE], roots[other, _SIZE]
            if size < other_size:
                one, other = other, one
            size += other_size
            threshold = weight.view(np.float32) + k / np.float32(size)
            parents[other] = one
            roots[one, _SIZE] = size
            roots[one, _THRESHOLD] = np.float32(threshold).view(np.int32)
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _join_small(refused, width, min_size, parents, roots):  # type: ignore[no-untyped-def]
    # In the same two steps. Sizes only grow, so two components that are large at a block's begin stay so.
    offsets = _neighbour_offsets(width)
    ones, others = np.empty(_BLOCK + 1, np.uint32), np.empty(_BLOCK + 1, np.uint32)
    for begin in range(0, len(refused), _BLOCK):
        kept = 0
        for at in range(begin, min(begin + _BLOCK, len(refused))):
            name = np.uint32(refused[at])
            one = name >> np.uint32(2)
            other = one + offsets[name & np.uint32(3)]
            one_above, other_above = _root(parents, one), _root(parents, other)
            parents[one] = one_above
            parents[other] = other_above
            ones[kept], others[kept] = one_above, other_above
            small = min(roots[one_above, _SIZE], roots[other_above, _SIZE]) < min_size
            kept += (one_above != other_above) & small
        for at in range(kept):
            one, other = _root(parents, ones[at]), _root(parents, others[at])
            if one == other:
                continue
            size, other_size = roots[one, _SIZE], roots[other, _SIZE]
            if size < min_size or other_size < min_size:
                if size < other_size:
                    one, other = other, one
                parents[other] = one
                roots[one, _SIZE] = size + other_size


@njit(cache=True, nogil=True, error_model="numpy")
def _number(parents, roots, labels, sizes):  # type: ignore[no-untyped-def]
    # A root's label stands where its threshold was, which is never negative.
    count = 0
    for pixel in range(len(parents)):
        root = _root(parents, parents[pixel])
        parents[pixel] = root
        if roots[root, _THRESHOLD] >= 0:
            roots[root, _THRESHOLD] = -1 - count
            sizes[count] = roots[root, _SIZE]
            count += 1
        labels[pixel] = -1 - roots[root, _THRESHOLD]
    return count
