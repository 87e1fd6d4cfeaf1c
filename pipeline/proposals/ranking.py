"""Ranks the boxes of all hierarchies together, best first, as the authors' code does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign_positions(
    boxes: NDArray[np.int32], merged_boxes: tuple[NDArray[np.int32], ...]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the boxes `(N, 4)` of one segmentation's hierarchies and the position `(N,)` of each.

    In each hierarchy the last merge, the whole image, has position 1, the one before it 2, and so on.
    The initial regions, which all of a segmentation's hierarchies share, come once, after every merge.

    Args:
        boxes: int32 `(R, 4)` of the initial regions.
        merged_boxes: int32 `(R - 1, 4)` for each hierarchy.
    """
    best_first = [hierarchy[::-1] for hierarchy in merged_boxes] + [boxes]
    positions = [np.arange(1, len(hierarchy) + 1) for hierarchy in merged_boxes]
    last = max((len(hierarchy) for hierarchy in merged_boxes), default=0) + 1
    positions.append(np.full(len(boxes), last))
    return np.concatenate(best_first), np.concatenate(positions)


def rank_boxes(
    boxes: NDArray[np.int32], positions: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int32]:
    """Order boxes `(N, 4)` by position times a random number and drop later duplicates.

    Section 4.3 of the paper: the random number keeps large regions from always coming first.
    """
    order = np.argsort(positions * random.random(len(positions)), kind="stable")
    boxes = boxes[order]
    return boxes[find_first_occurrences(boxes)]


def find_first_occurrences(boxes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the sorted indices of the rows of `boxes` `(N, 4)` that no earlier row equals."""
    if len(boxes) == 0:
        return np.empty(0, np.int64)
    corners = boxes.astype(np.uint64)
    x_range, y_range = corners[:, 2].max() + np.uint64(1), corners[:, 3].max() + np.uint64(1)
    # Below 2^64 for images of up to 2^32 pixels: one number per box, and one sort.
    keys = (
        (corners[:, 0] * x_range + corners[:, 2]) * y_range + corners[:, 1]
    ) * y_range + corners[:, 3]
    _, first = np.unique(keys, return_index=True)
    return np.sort(first)
