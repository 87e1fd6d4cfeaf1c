"""Boxes of all hierarchies in one order, best first, as the authors' code ranks them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def hierarchy_positions(
    boxes: NDArray[np.int32], merged_boxes: tuple[NDArray[np.int32], ...]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Boxes `(N, 4)` of one segmentation's hierarchies and the position `(N,)` of each.

    Per hierarchy the last merge, the whole image, has position 1, the one before it 2, and so on. The
    initial regions, which all of a segmentation's hierarchies share, come once, behind every merge.
    """
    found = [made[::-1] for made in merged_boxes] + [boxes]
    positions = [np.arange(1, len(made) + 1) for made in merged_boxes]
    last = max((len(made) for made in merged_boxes), default=0) + 1
    positions.append(np.full(len(boxes), last))
    return np.concatenate(found), np.concatenate(positions)


def ranked(
    boxes: NDArray[np.int32], positions: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int32]:
    """Boxes `(N, 4)` ordered by position times a random number, later duplicates left out.

    Section 4.3 of the paper: the random number keeps large regions from always coming first.
    """
    order = np.argsort(positions * random.random(len(positions)), kind="stable")
    boxes = boxes[order]
    return boxes[first_occurrences(boxes)]


def first_occurrences(boxes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Sorted indices of the rows of `boxes` `(N, 4)` that no earlier row equals."""
    if len(boxes) == 0:
        return np.empty(0, np.int64)
    wide = boxes.astype(np.uint64)
    across, down = wide[:, 2].max() + np.uint64(1), wide[:, 3].max() + np.uint64(1)
    # Below 2^64 for images of up to 2^32 pixels: one number per box, and one sort.
    keys = ((wide[:, 0] * across + wide[:, 2]) * down + wide[:, 1]) * down + wide[:, 3]
    _, first = np.unique(keys, return_index=True)
    return np.sort(first)
