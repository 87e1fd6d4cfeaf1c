"""Spatial pyramid pooling of windows on a feature map (He et al., ECCV 2014, sections 2.2 and 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.detector.pooling import roi_max_pool


def pool_pyramid(
    features: Tensor, rois: Tensor, levels: Sequence[int], spatial_scale: float
) -> Tensor:
    """Pool each RoI to grids of several sizes, and join them.

    RoI pooling is the case of one level (Fast R-CNN, section 2.1), so it computes the levels here: bins
    and corners are rounded as in Fast R-CNN.

    Args:
        features: `(B, C, h, w)`.
        rois: `(R, 5)`: index in the batch, then x1, y1, x2, y2, half open, in pixels of the scaled image.
        levels: cells per side of each grid, such as 6, 3, 2, 1.
        spatial_scale: cells of the feature map per pixel.

    Returns:
        `(R, C * sum(levels²))`: level by level, each by channel, row and column.
    """
    grids = [roi_max_pool(features, rois, cells, spatial_scale).flatten(1) for cells in levels]
    return torch.cat(grids, dim=1)


def count_cells(levels: Sequence[int]) -> int:
    """Cells of all levels together: 50 for 6, 3, 2, 1."""
    return sum(cells * cells for cells in levels)
