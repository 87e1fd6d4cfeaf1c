"""Boundary votes: how many initial segmentations have a boundary between two neighbouring pixels.

The sum over segmentations is a boundary map of several colour spaces and scales at once. A box that fits an
object has votes along its sides and few segments that its sides cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel_cache import njit

LONGEST_GRID = 320
"""Samples along the longer side at most: a larger image is sampled at every second, third, ... pixel."""


def choose_step(height: int, width: int) -> int:
    """Return the distance in pixels of the samples that features of boxes are computed from."""
    return -(-max(height, width) // LONGEST_GRID)


class BoundaryVotes:
    """Votes of the segmentations added so far, between the samples of a grid `(H, W)`."""

    def __init__(self, height: int, width: int) -> None:
        """Start without votes for an image of `height` x `width` pixels."""
        self.step = choose_step(height, width)
        shape = (-(-height // self.step), -(-width // self.step))
        self.across: NDArray[np.uint16] = np.zeros(shape, np.uint16)
        """Votes between a sample and its right neighbour; 0 in the last column."""
        self.down: NDArray[np.uint16] = np.zeros(shape, np.uint16)
        """Votes between a sample and the one below it; 0 in the last row."""
        self.segmentations = 0

    def add(self, labels: NDArray[np.int32]) -> None:
        """Add the votes of a segmentation: its labels int32 `(H, W)` in pixels."""
        _add_votes(labels, self.step, self.across, self.down)
        self.segmentations += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _add_votes(labels, step, across, down):  # type: ignore[no-untyped-def]
    height, width = across.shape
    for y in range(height):
        here = labels[y * step]
        votes = across[y]
        if step == 1:  # neighbours in memory: this loop vectorises
            for x in range(width - 1):
                votes[x] += np.uint16(here[x] != here[x + 1])
        else:
            for x in range(width - 1):
                votes[x] += np.uint16(here[x * step] != here[(x + 1) * step])
        if y == height - 1:
            continue
        below = labels[(y + 1) * step]
        votes = down[y]
        if step == 1:
            for x in range(width):
                votes[x] += np.uint16(here[x] != below[x])
        else:
            for x in range(width):
                votes[x] += np.uint16(here[x * step] != below[x * step])
