"""One rule for boxes of other programs: clip them to their image, and name those that have nothing left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry

CLIPPED_FROM = 1e-3
"""Pixels outside the image from which a box counts as clipped; less is rounding."""


@dataclass(frozen=True)
class RepairedBoxes:
    """Boxes after clipping. All three have one entry per box of the input."""

    boxes: NDArray[np.float32]
    """float32 `(N, 4)`, clipped; a box with a fault has no meaning."""
    faults: tuple[str | None, ...]
    """Why a box must be dropped: `not finite`, `inverted`, `no area`, `outside the image`. None: it stays."""
    clipped: NDArray[np.bool_]
    """`(N,)`: boxes that stay and reached out of the image."""

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Mask `(N,)` of the boxes without a fault."""
        return np.array([fault is None for fault in self.faults], np.bool_)


def repair_boxes(boxes: NDArray[np.floating], width: float, height: float) -> RepairedBoxes:
    """Clip boxes `(N, 4)` to an image of `width` x `height` pixels and name the faults of each."""
    exact = np.asarray(boxes, np.float64).reshape(-1, 4)
    as_stored = exact.astype(np.float32)
    if _are_inside(
        as_stored, width, height
    ):  # nearly all images: the rest costs five times as much
        return RepairedBoxes(as_stored, (None,) * len(exact), np.zeros(len(exact), np.bool_))
    finite = np.asarray(np.isfinite(exact).all(axis=1), np.bool_)
    x1, y1, x2, y2 = np.where(finite[:, None], exact, 0.0).T
    inverted = (x2 < x1) | (y2 < y1)
    flat = (x2 == x1) | (y2 == y1)
    outside = (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height)
    clipped = geometry.clip(np.stack([x1, y1, x2, y2], axis=1), width, height)
    as_stored = clipped.astype(np.float32)
    flat |= ~outside & ~geometry.is_nonempty(as_stored)
    reasons = ("not finite", "inverted", "no area", "outside the image")
    masks = np.stack([~finite, inverted, flat, outside], axis=1)
    faults = tuple(
        next((reason for reason, holds in zip(reasons, row, strict=True) if holds), None)
        for row in masks.tolist()
    )
    moved = np.abs(clipped - np.where(finite[:, None], exact, 0.0)).max(axis=1, initial=0.0)
    return RepairedBoxes(as_stored, faults, (moved > CLIPPED_FROM) & ~masks.any(axis=1))


def _are_inside(boxes: NDArray[np.float32], width: float, height: float) -> bool:
    """Whether all boxes are finite, have an area and are in the image."""
    x1, y1, x2, y2 = boxes.T
    is_inside = (x1 >= 0) & (y1 >= 0) & (x2 > x1) & (y2 > y1) & (x2 <= width) & (y2 <= height)
    return bool(is_inside.all())
