"""From proposals in original images to the network's RoIs; RoIs that pool the same cells become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.detector.preprocessing import Preprocessing


class ImageRois(NamedTuple):
    """RoIs of one image."""

    unique: NDArray[np.float32]
    """`(U, 4)`: x1, y1, x2, y2 in pixels of the resized image."""
    unique_index: NDArray[np.int64]
    """`(R,)`: the row of `unique` that pools the same cells as each RoI."""


class RoiBatch(NamedTuple):
    """RoIs of a batch of images that were resized to one shape."""

    unique: NDArray[np.float32]
    """`(U, 5)`: index in the batch, x1, y1, x2, y2 in pixels of the resized images."""
    unique_index: NDArray[np.int64]
    """`(R,)`: the row of `unique` that pools the same cells as each RoI; RoIs are in the order of the
    images."""


def clip_proposals(proposals: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    """Clip proposals `(N, 4)` to the image and drop those that are empty afterwards."""
    boxes = np.asarray(proposals, dtype=np.float32).reshape(-1, 4)
    clipped: NDArray[np.float32] = geometry.clip(boxes, width, height)
    return clipped[geometry.is_nonempty(clipped)]


def find_image_rois(
    boxes: NDArray[np.float32],
    size: tuple[int, int],
    shape: tuple[int, int],
    spatial_scale: float,
    preprocessing: Preprocessing,
) -> ImageRois:
    """Find the distinct RoIs of an image.

    Args:
        boxes: `(R, 4)`, R > 0, in original pixels, from `clip_proposals`.
        size: original height and width.
        shape: height and width after resizing.
        spatial_scale: cells of the feature map per resized pixel.
        preprocessing: how RoIs are projected.
    """
    rois = preprocessing.project_rois(boxes, size, shape)
    first, index = _find_distinct_rows(_compute_cells(rois, spatial_scale))
    return ImageRois(rois[first], index)


def build_roi_batch(
    proposals: Sequence[NDArray[np.float32]],
    sizes: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    spatial_scale: float,
    preprocessing: Preprocessing,
) -> RoiBatch:
    """Build the RoIs of a batch; `proposals` and `sizes` are per image, the rest as in `find_image_rois`."""
    return join_image_rois(
        [
            find_image_rois(boxes, size, shape, spatial_scale, preprocessing)
            for boxes, size in zip(proposals, sizes, strict=True)
        ]
    )


def join_image_rois(per_image: Sequence[ImageRois]) -> RoiBatch:
    """Join the RoIs of images that form a batch."""
    counts = [len(image.unique) for image in per_image]
    unique = np.empty((sum(counts), 5), np.float32)
    unique[:, 0] = np.repeat(np.arange(len(counts)), counts)
    np.concatenate([image.unique for image in per_image], out=unique[:, 1:])
    first_rows = np.cumsum([0, *counts[:-1]])
    index = [image.unique_index + first for image, first in zip(per_image, first_rows, strict=True)]
    return RoiBatch(unique, np.concatenate(index))


def _compute_cells(rois: NDArray[np.float32], spatial_scale: float) -> NDArray[np.int64]:
    """Compute the cells `(R, 4)` that RoIs `(R, 4)` pool: corners rounded half away from 0."""
    scaled = (rois - np.array([0, 0, 1, 1], np.float32)) * np.float32(spatial_scale)
    below = np.floor(scaled)
    cells: NDArray[np.int64] = (below + (scaled - below >= 0.5)).astype(np.int64)
    return cells


def _find_distinct_rows(rows: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Find the first occurrence of each distinct row, in order, and for each row its distinct row."""
    span = rows.max(axis=0) + 2  # corners are -1 or more
    keys = np.zeros(len(rows), np.int64)
    for column in range(rows.shape[1]):
        keys = keys * span[column] + (rows[:, column] + 1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]
