"""COCO's small, medium and large: classes of size by the area of a box, in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIZES = ("small", "medium", "large")
"""Under 32² pixels, from 32² to under 96², and from 96²."""

_LIMITS = np.square([32.0, 96.0])


def classify_sizes(areas: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the position in SIZES of each area, in square pixels."""
    return np.searchsorted(_LIMITS, areas, side="right")
