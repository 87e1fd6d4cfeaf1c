"""From proposals in original images to the network's RoIs; RoIs that pool the same cells become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.detector import roi_kernels
from pipeline.detector.preprocessing import Preprocessing


class RoiBatch(NamedTuple):
    """RoIs of a batch of images that were resized to one shape."""

    unique: NDArray[np.float32]
    """`(U, 5)`: index in the batch, x1, y1, x2, y2 in pixels of the resized images."""
    unique_index: NDArray[np.int64]
    """`(R,)`: the row of `unique` that pools the same cells as each RoI; RoIs are in the order of the
    images."""


def clip_proposals(proposals: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    """Clip proposals `(N, 4)` to the image and drop those that are empty afterwards."""
    boxes = np.ascontiguousarray(proposals, dtype=np.float32).reshape(-1, 4)
    kept = np.empty_like(boxes)
    return kept[: roi_kernels.clip(boxes, np.float32(width), np.float32(height), kept)]


def build_roi_batch(
    proposals: Sequence[NDArray[np.float32]],
    sizes: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    spatial_scale: float,
    preprocessing: Preprocessing,
) -> RoiBatch:
    """Build the RoIs of a batch.

    Args:
        proposals: per image `(N, 4)`, N > 0, in original pixels, from `clip_proposals`.
        sizes: per image its original height and width.
        shape: height and width of all images after resizing.
        spatial_scale: cells of the feature map per resized pixel.
        preprocessing: how RoIs are projected.
    """
    unique, index, before = [], [], 0
    for number, (boxes, size) in enumerate(zip(proposals, sizes, strict=True)):
        rois = preprocessing.project_rois(boxes, size, shape)
        first, of_roi = np.empty(len(rois), np.int64), np.empty(len(rois), np.int64)
        count = roi_kernels.find_distinct(rois, np.float32(spatial_scale), first, of_roi)
        distinct = np.empty((count, 5), np.float32)
        distinct[:, 0], distinct[:, 1:] = number, rois[first[:count]]
        unique.append(distinct)
        index.append(of_roi + before)
        before += count
    return RoiBatch(np.concatenate(unique), np.concatenate(index))
