"""What the hierarchies say of each box: the nodes that have it, their place, merges, size and fill."""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel_cache import njit
from pipeline.proposals.hierarchy import Segmentation

FILL, LEVEL, BIRTH, DEATH, GROWTH = range(5)
"""Columns of `BoxEvidence.values`; see `collect_evidence`."""
_COLUMNS = 5


@dataclass(frozen=True)
class BoxEvidence:
    """The distinct boxes of all hierarchies, and what their nodes have in common."""

    boxes: NDArray[np.int32]
    """`(N, 4)`, in the order of area, then x1, y1 and width: whatever the order of the hierarchies."""
    nodes: NDArray[np.int32]
    """`(N,)`: how many nodes have the box."""
    values: NDArray[np.float32]
    """`(N, 5)`."""


def collect_evidence(
    segmentations: Sequence[Segmentation], least_width: float, least_height: float
) -> BoxEvidence:
    """Collect the boxes of at least the given sides, and the evidence of all nodes that have each box.

    Columns, each the mean over these nodes: fill (region / box area); level (0 for the whole image, 1 for
    initial regions); birth, the similarity of the two nodes that were merged into it (1 for initial
    regions), and death, its own similarity to the node that it was merged with (0 for the whole image),
    as shares of the largest possible; growth (its box area / that of the node it was merged into).

    Args:
        segmentations: of one image, without use of their labels.
        least_width: smallest width in pixels.
        least_height: smallest height in pixels.
    """
    capacity = sum(
        _count_large(boxes, least_width, least_height)
        for segmentation in segmentations
        for hierarchy in segmentation.merged_boxes
        for boxes in (segmentation.boxes, hierarchy)
    )
    slots = 64
    while slots < 2 * capacity:
        slots *= 2
    table = np.full(slots, -1, np.int32)
    boxes = np.empty((capacity, 4), np.int32)
    nodes = np.empty(capacity, np.int32)
    sums = np.empty((capacity, _COLUMNS), np.float32)
    count = 0
    for segmentation in segmentations:
        for hierarchy, measures in enumerate(segmentation.measures):
            count = _add_hierarchy(
                np.concatenate([segmentation.boxes, segmentation.merged_boxes[hierarchy]]),
                np.concatenate([segmentation.sizes, segmentation.merged_sizes[hierarchy]]),
                segmentation.merges[hierarchy],
                segmentation.similarities[hierarchy],
                measures,
                least_width,
                least_height,
                (table, boxes, nodes, sums),
                count,
            )
    boxes, nodes = boxes[:count], nodes[:count]
    widths = boxes[:, 2] - boxes[:, 0]
    areas = widths.astype(np.int64) * (boxes[:, 3] - boxes[:, 1])
    order = np.lexsort((widths, boxes[:, 1], boxes[:, 0], areas))
    means = np.asarray(sums[order] / nodes[order][:, None], np.float32)
    return BoxEvidence(boxes[order], nodes[order], means)


@njit(cache=True, nogil=True, error_model="numpy")
def _count_large(boxes, least_width, least_height):  # type: ignore[no-untyped-def]
    count = 0
    for box in boxes:
        count += (box[2] - box[0] >= least_width) & (box[3] - box[1] >= least_height)
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _add_hierarchy(  # type: ignore[no-untyped-def]
    boxes, sizes, merges, similarities, measures, least_width, least_height, collected, count
):
    # Parents come from the merges: merge m made node R + m.
    table, distinct, counts, sums = collected
    nodes = len(boxes)
    regions = (nodes + 1) // 2
    parents = np.full(nodes, -1, np.int32)
    for m in range(regions - 1):
        parents[merges[m, 0]] = regions + m
        parents[merges[m, 1]] = regions + m
    for node in range(nodes):
        box = boxes[node]
        if box[2] - box[0] < least_width or box[3] - box[1] < least_height:
            continue
        row = _find_row(table, distinct, box, count)
        if row == count:
            for i in range(4):
                distinct[row, i] = box[i]
            counts[row] = 0
            for column in range(_COLUMNS):
                sums[row, column] = 0
            count += 1
        area = _measure(box)
        level, birth, death, growth = 1.0, 1.0, 0.0, 1.0
        if node >= regions:
            m = node - regions
            level = 1.0 - (m + 1) / (regions - 1)
            birth = similarities[m] / measures
        parent = parents[node]
        if parent >= 0:
            death = similarities[parent - regions] / measures
            growth = area / _measure(boxes[parent])
        counts[row] += 1
        values = sums[row]
        values[FILL] += sizes[node] / area
        values[LEVEL] += level
        values[BIRTH] += birth
        values[DEATH] += death
        values[GROWTH] += growth
    return count


@njit(inline="always")
def _measure(box):  # type: ignore[no-untyped-def]
    return np.int64(box[2] - box[0]) * np.int64(box[3] - box[1])


@njit(inline="always")
def _find_row(table, boxes, box, count):  # type: ignore[no-untyped-def]
    # The row of an equal box, or `count`, which is then noted for it. Linear probing.
    mask = np.uint64(len(table) - 1)
    key = np.uint64(box[0]) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(box[1])
    key = key * np.uint64(0x9E3779B97F4A7C15) + np.uint64(box[2])
    key = key * np.uint64(0x9E3779B97F4A7C15) + np.uint64(box[3])
    at = ((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while table[at] >= 0:
        other = boxes[table[at]]
        if other[0] == box[0] and other[1] == box[1] and other[2] == box[2] and other[3] == box[3]:
            return np.int64(table[at])
        at = (at + np.uint64(1)) & mask
    table[at] = count
    return np.int64(count)
