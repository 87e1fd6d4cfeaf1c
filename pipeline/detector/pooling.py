"""RoI max pooling (Fast R-CNN, section 2.1) for half-open boxes."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_pool


def roi_max_pool(features: Tensor, rois: Tensor, size: int, spatial_scale: float) -> Tensor:
    """The largest value in each cell of a `size` x `size` grid over each RoI.

    Args:
        features: `(B, C, h, w)`.
        rois: `(R, 5)`: index in the batch, then x1, y1, x2, y2, half open, in pixels of the picture.
        size: cells per side.
        spatial_scale: cells of the feature map per pixel.

    Returns:
        `(R, C, size, size)` of the features' dtype.

    Scaled corners are rounded and the last cell is inside, as in the released layer; its boxes hold
    their last pixel, so it gets x2 - 1, y2 - 1. A RoI covers one cell at least.
    """
    corners = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0], device=rois.device)
    inclusive = rois.float() - corners
    # The op takes RoIs of the features' dtype; in the mantissa of bf16 they would be off by pixels.
    halved = features.dtype in (torch.bfloat16, torch.float16)
    wide = features.float() if halved else features
    pooled: Tensor = roi_pool(wide, inclusive.to(wide.dtype), size, spatial_scale)
    return pooled.to(features.dtype)
