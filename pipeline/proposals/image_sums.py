"""Integral images: sums over any box of an image from four lookups (Crow, SIGGRAPH 1984)."""

# ruff: noqa: PLR0917 (a kernel takes its arrays by position: Numba's calls by name cost more)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel_cache import njit
from pipeline.proposals.boundary_votes import BoundaryVotes

RED, GREEN, BLUE, SQUARES, GRADIENT, VOTES = range(6)
"""Planes of `ImageSums.inside`; squares are the sum over the channels, divided by 256."""
_PLANES = 8  # one lookup is 32 bytes, half a cache line


@dataclass(frozen=True)
class ImageSums:
    """Sums over a grid of `(H, W)` samples of an image, `step` pixels apart."""

    step: int
    segmentations: int
    """How many segmentations voted."""
    inside: NDArray[np.int32]
    """`(H + 1, W + 1, 8)`: sums of each plane above and left of a corner."""
    across: NDArray[np.int32]
    """`(H + 1, W)`: votes between a sample and its right neighbour, summed from the top down."""
    down: NDArray[np.int32]
    """`(H, W + 1)`: votes between a sample and the one below it, summed from the left."""


def sum_image(image: NDArray[np.uint8], votes: BoundaryVotes) -> ImageSums:
    """Sum colours, their squares, gradients and boundary votes of an image uint8 `(H, W, 3)`."""
    height, width = votes.across.shape
    inside = np.empty((height + 1, width + 1, _PLANES), np.int32)
    across = np.empty((height + 1, width), np.int32)
    down = np.empty((height, width + 1), np.int32)
    _fill_sums(image, votes.step, votes.across, votes.down, inside, across, down)
    return ImageSums(votes.step, votes.segmentations, inside, across, down)


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_sums(image, step, across_votes, down_votes, inside, across, down):  # type: ignore[no-untyped-def]
    # At most 320 x 320 samples, so that a sum of bytes or of squares / 256 fits into 32 bits.
    height, width = across_votes.shape
    inside[0] = 0
    across[0] = 0
    for y in range(height):
        row, below = image[y * step], image[min(y + 1, height - 1) * step]
        red = green = blue = squares = gradient = votes = np.int32(0)
        inside[y + 1, 0] = 0
        for x in range(width):
            here, right, under = row[x * step], row[min(x + 1, width - 1) * step], below[x * step]
            r, g, b = np.int32(here[0]), np.int32(here[1]), np.int32(here[2])
            red += r
            green += g
            blue += b
            squares += (r * r + g * g + b * b) >> 8
            gradient += abs(np.int32(right[0]) - r) + abs(np.int32(under[0]) - r)
            gradient += abs(np.int32(right[1]) - g) + abs(np.int32(under[1]) - g)
            gradient += abs(np.int32(right[2]) - b) + abs(np.int32(under[2]) - b)
            votes += np.int32(across_votes[y, x]) + np.int32(down_votes[y, x])
            above, sums = inside[y, x + 1], inside[y + 1, x + 1]
            sums[RED] = above[RED] + red
            sums[GREEN] = above[GREEN] + green
            sums[BLUE] = above[BLUE] + blue
            sums[SQUARES] = above[SQUARES] + squares
            sums[GRADIENT] = above[GRADIENT] + gradient
            sums[VOTES] = above[VOTES] + votes
        total = np.int32(0)
        down[y, 0] = 0
        for x in range(width):
            across[y + 1, x] = across[y, x] + np.int32(across_votes[y, x])
            total += np.int32(down_votes[y, x])
            down[y, x + 1] = total
