"""From proposals in original images to the network's RoIs; RoIs that pool the same cells become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.detector.preprocessing import Preprocessing


class RoiBatch(NamedTuple):
    """RoIs of a batch of images that were resized to one shape."""

    unique: NDArray[np.float32]
    """`(U, 5)`: index in the batch, x1, y1, x2, y2 in pixels of the resized images."""
    unique_index: NDArray[np.int64]
    """`(R,)`: the row of `unique` that pools the same cells as each RoI."""
    image_index: NDArray[np.int64]
    """`(R,)`: index in the batch."""


def clip_proposals(proposals: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    """Clip proposals `(N, 4)` to the image and drop those that are empty afterwards."""
    boxes = np.asarray(proposals, dtype=np.float32).reshape(-1, 4)
    clipped: NDArray[np.float32] = geometry.clip(boxes, width, height)
    return clipped[geometry.is_nonempty(clipped)]


def build_roi_batch(
    proposals: Sequence[NDArray[np.float32]],
    sizes: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    spatial_scale: float,
    preprocessing: Preprocessing,
) -> RoiBatch:
    """Build the RoIs of a batch.

    Args:
        proposals: per image `(N, 4)` in original pixels, from `clip_proposals`.
        sizes: per image its original height and width.
        shape: height and width of all images after resizing.
        spatial_scale: cells of the feature map per resized pixel.
        preprocessing: how RoIs are projected.
    """
    rows = [
        np.insert(preprocessing.project_rois(boxes, size, shape), 0, index, axis=1)
        for index, (boxes, size) in enumerate(zip(proposals, sizes, strict=True))
    ]
    rois = np.concatenate(rows)
    first, index = _find_distinct_rows(_compute_cells(rois, spatial_scale))
    return RoiBatch(rois[first], index, rois[:, 0].astype(np.int64))


def _compute_cells(rois: NDArray[np.float32], spatial_scale: float) -> NDArray[np.int64]:
    """Compute the cells `(R, 5)` that RoIs `(R, 5)` pool: image, and corners rounded half away from 0."""
    scaled = (rois[:, 1:] - np.array([0, 0, 1, 1], np.float32)) * np.float32(spatial_scale)
    below = np.floor(scaled)
    return np.concatenate([rois[:, :1], below + (scaled - below >= 0.5)], axis=1).astype(np.int64)


def _find_distinct_rows(rows: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Find the first occurrence of each distinct row, in order, and for each row its distinct row."""
    span = rows.max(axis=0) + 2  # corners are -1 or more
    keys = rows[:, 0]
    for column in range(1, rows.shape[1]):
        keys = keys * span[column] + (rows[:, column] + 1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]
