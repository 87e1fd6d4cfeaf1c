"""From the proposals of original images to the rows that the network takes, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry


class Rois(NamedTuple):
    """RoIs of a batch of images that were resized to one shape."""

    unique: NDArray[np.float32]
    """`(U, 5)`: index in the batch, x1, y1, x2, y2 in pixels of the resized images."""
    unique_index: NDArray[np.int64]
    """`(R,)`: the row of `unique` that pools the same cells as each RoI."""
    image: NDArray[np.int64]
    """`(R,)`: index in the batch."""


def usable(proposals: NDArray[np.floating], height: int, width: int) -> NDArray[np.float32]:
    """Proposals `(N, 4)` clipped to the image, without those that are empty then."""
    boxes = np.asarray(proposals, dtype=np.float32).reshape(-1, 4)
    clipped: NDArray[np.float32] = geometry.clip(boxes, width, height)
    return clipped[geometry.nonempty(clipped)]


def gather(
    proposals: Sequence[NDArray[np.float32]],
    sizes: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    spatial_scale: float,
) -> Rois:
    """The RoIs of a batch.

    Args:
        proposals: per image `(N, 4)` in original pixels, `usable`.
        sizes: per image its original height and width.
        shape: height and width of all images after resizing.
        spatial_scale: cells of the feature map per resized pixel.
    """
    rows = [
        np.insert(
            geometry.scale(boxes, shape[1] / width, shape[0] / height).astype(np.float32),
            0,
            index,
            axis=1,
        )
        for index, (boxes, (height, width)) in enumerate(zip(proposals, sizes, strict=True))
    ]
    rois = np.concatenate(rows)
    first, index = _first_of_equal(_cells(rois, spatial_scale))
    return Rois(rois[first], index, rois[:, 0].astype(np.int64))


def _cells(rois: NDArray[np.float32], spatial_scale: float) -> NDArray[np.int64]:
    """What RoI pooling sees of RoIs `(R, 5)`: image and rounded corners `(R, 5)`, halves away from 0."""
    scaled = (rois[:, 1:] - np.array([0, 0, 1, 1], np.float32)) * np.float32(spatial_scale)
    below = np.floor(scaled)
    return np.concatenate([rois[:, :1], below + (scaled - below >= 0.5)], axis=1).astype(np.int64)


def _first_of_equal(rows: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Index of the first of each distinct row, in order, and which of these each row equals."""
    span = rows.max(axis=0) + 2  # corners start at -1 at the least
    keys = rows[:, 0]
    for column in range(1, rows.shape[1]):
        keys = keys * span[column] + (rows[:, column] + 1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return first[order], rank[inverse]
