"""Gaussian smoothing of planes, before segmentation."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray


def gaussian(sigma: float) -> NDArray[np.float32]:
    """Half of a Gaussian, `(ceil(4 sigma) + 1,)` weights from the centre outwards, whole sum 1."""
    if sigma == 0:
        return np.ones(1, np.float32)
    offsets = np.arange(math.ceil(4 * sigma) + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return np.asarray(weights / (2 * weights.sum() - weights[0]), np.float32)


def smooth(
    planes: NDArray[np.uint8], sigma: float, out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Smooth planes `(C, H, W)` into `out` of that shape by a Gaussian of `sigma` pixels.

    Borders repeat the outermost pixel, as in Felzenszwalb and Huttenlocher's code.
    """
    _smooth(planes, gaussian(sigma), out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _smooth(planes, weights, out):  # type: ignore[no-untyped-def]
    # Down the columns into one padded row, then along it: the row stays in the nearest cache, and
    # both inner loops run over neighbouring pixels, which LLVM vectorises without fastmath.
    count, height, width = planes.shape
    radius = len(weights) - 1
    row = np.empty(width + 2 * radius, np.float32)
    for c in range(count):
        for y in range(height):
            centre = planes[c, y]
            for x in range(width):
                row[radius + x] = weights[0] * np.float32(centre[x])
            for i in range(1, radius + 1):
                above, below = planes[c, max(y - i, 0)], planes[c, min(y + i, height - 1)]
                weight = weights[i]
                for x in range(width):
                    row[radius + x] += weight * (np.float32(above[x]) + np.float32(below[x]))
            for i in range(radius):
                row[i] = row[radius]
                row[radius + width + i] = row[radius + width - 1]
            target = out[c, y]
            for x in range(width):
                target[x] = weights[0] * row[radius + x]
            for i in range(1, radius + 1):
                weight = weights[i]
                for x in range(width):
                    target[x] += weight * (row[radius + x - i] + row[radius + x + i])
