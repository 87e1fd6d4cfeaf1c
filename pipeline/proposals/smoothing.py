"""Gaussian smoothing of planes, before segmentation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.kernel_cache import njit

_TAPS = 4


def build_gaussian(sigma: float) -> NDArray[np.float32]:
    """Return half of a Gaussian: `(ceil(4 sigma) + 1,)` weights from the centre out, of whole sum 1."""
    if sigma == 0:
        return np.ones(1, np.float32)
    offsets = np.arange(math.ceil(4 * sigma) + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return np.asarray(weights / (2 * weights.sum() - weights[0]), np.float32)


def _pad_weights(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    # Pad with zeros to 4 n + 1 weights: the kernel takes four at a time.
    return np.pad(weights, (0, -(len(weights) - 1) % _TAPS))


def smooth_planes(
    planes: NDArray[np.uint8], sigma: float, out: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Smooth planes `(C, H, W)` by a Gaussian of `sigma` pixels, into `out` of the same shape.

    Borders repeat the outermost pixel, as in Felzenszwalb and Huttenlocher's code.
    """
    _smooth_rows(planes, _pad_weights(build_gaussian(sigma)), out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _smooth_rows(planes, weights, out):  # type: ignore[no-untyped-def]
    # Down the columns into one padded row, then along it: the row stays in the nearest cache, and
    # both inner loops run over neighbouring pixels, which LLVM vectorises without fastmath. Four taps
    # per loop: one tap per loop, which loads and stores the row each time, took twice as long.
    count, height, width = planes.shape
    radius = len(weights) - 1
    row = np.empty(width + 2 * radius, np.float32)
    middle = row[radius : radius + width]
    for c in range(count):
        plane = planes[c]
        for y in range(height):
            for x in range(width):
                middle[x] = weights[0] * np.float32(plane[y, x])
            for i in range(1, radius + 1, _TAPS):
                _add_columns(plane, y, weights, i, middle)
            for i in range(radius):
                row[i] = middle[0]
                row[radius + width + i] = middle[width - 1]
            target = out[c, y]
            for x in range(width):
                target[x] = weights[0] * middle[x]
            for i in range(1, radius + 1, _TAPS):
                _add_along(row, radius, weights, i, target)


@njit(inline="always")
def _add_columns(plane, y, weights, i, target):  # type: ignore[no-untyped-def]
    bottom = len(plane) - 1
    a, b = plane[max(y - i, 0)], plane[min(y + i, bottom)]
    c, d = plane[max(y - i - 1, 0)], plane[min(y + i + 1, bottom)]
    e, f = plane[max(y - i - 2, 0)], plane[min(y + i + 2, bottom)]
    g, h = plane[max(y - i - 3, 0)], plane[min(y + i + 3, bottom)]
    for x in range(len(target)):
        total = target[x] + weights[i] * np.float32(np.int32(a[x]) + np.int32(b[x]))
        total += weights[i + 1] * np.float32(np.int32(c[x]) + np.int32(d[x]))
        total += weights[i + 2] * np.float32(np.int32(e[x]) + np.int32(f[x]))
        target[x] = total + weights[i + 3] * np.float32(np.int32(g[x]) + np.int32(h[x]))


@njit(inline="always")
def _add_along(row, radius, weights, i, target):  # type: ignore[no-untyped-def]
    near, far = row[radius - i :], row[radius + i :]
    near2, far2 = row[radius - i - 1 :], row[radius + i + 1 :]
    near3, far3 = row[radius - i - 2 :], row[radius + i + 2 :]
    near4, far4 = row[radius - i - 3 :], row[radius + i + 3 :]
    for x in range(len(target)):
        total = target[x] + weights[i] * (near[x] + far[x])
        total += weights[i + 1] * (near2[x] + far2[x])
        total += weights[i + 2] * (near3[x] + far3[x])
        target[x] = total + weights[i + 3] * (near4[x] + far4[x])
