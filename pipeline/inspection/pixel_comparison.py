"""Compares the small grey copies of two images, one of them through a view: are they the same scene?

The measure is the correlation of the pixels, after each copy's mean is taken away, so that a brighter copy,
or one of more contrast, is still the same. A perceptual hash keeps the signs of 64 frequencies only; the
correlation sees all pixels and how large they are.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.inspection.signature import PIXELS_SIDE, VIEWS, View

SIMILAR = 0.88
"""The lowest correlation of near duplicates."""
_COMPARED_SIDE = 24


def correlate(
    first: NDArray[np.uint8], second: NDArray[np.uint8], views: NDArray[np.integer]
) -> NDArray[np.float64]:
    """The correlation of P pairs of images, from -1 to 1; 0 if one of them is flat.

    Args:
        first: grey pixels `(P, PIXELS_SIDE, PIXELS_SIDE)`.
        second: those of the other images.
        views: `(P,)` positions in `VIEWS`: what of the first is compared with all of the second.
    """
    correlation = np.zeros(len(first))
    for position in np.unique(views):
        is_chosen = views == position
        seen = _look(first[is_chosen], VIEWS[position])
        correlation[is_chosen] = _correlate(seen, _look(second[is_chosen], VIEWS[0]))
    return correlation


def _look(pixels: NDArray[np.uint8], view: View) -> NDArray[np.float64]:
    """What a view shows of N images, `(N, S, S)`."""
    rows = _build_resampling(view.top, view.size)
    columns = _build_resampling(view.left, view.size)
    seen: NDArray[np.float64] = rows @ pixels.astype(np.float64) @ columns.T
    return seen[:, :, ::-1] if view.is_mirrored else seen


@cache
def _build_resampling(start: float, size: float) -> NDArray[np.float64]:
    """Linear interpolation at the centres of S cells in a stretch of pixels, `(S, PIXELS_SIDE)`."""
    centres = start + size * (np.arange(_COMPARED_SIDE) + 0.5) / _COMPARED_SIDE
    places = np.clip(centres * PIXELS_SIDE - 0.5, 0, PIXELS_SIDE - 1)
    left = np.minimum(places.astype(int), PIXELS_SIDE - 2)
    matrix = np.zeros((_COMPARED_SIDE, PIXELS_SIDE))
    cells = np.arange(_COMPARED_SIDE)
    matrix[cells, left] = 1 - (places - left)
    matrix[cells, left + 1] += places - left
    return matrix


def _correlate(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    one, other = (values.reshape(len(values), -1) for values in (first, second))
    one = one - one.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    sizes = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.where(sizes > 0, (one * other).sum(axis=1) / np.maximum(sizes, 1e-12), 0.0)
