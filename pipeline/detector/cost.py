"""What a network costs: its parameters and its multiply-adds.

PyTorch's own counter counts the multiply-adds of convolutions and fully connected layers, on tensors
without data; norms, activations and pooling are excluded, as is usual.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.detector.network import FastRCNN


@dataclass(frozen=True)
class Cost:
    """Counts that depend on the architecture alone."""

    parameters: int
    """Learned parameters, frozen ones included."""
    trunk: int
    """Multiply-adds of the layers over the image."""
    per_roi: int
    """Multiply-adds of the layers over each RoI, including the two output layers."""

    def count_multiply_adds(self, rois: int) -> int:
        """Count the multiply-adds of an image with this number of RoIs."""
        return self.trunk + rois * self.per_roi


def count_cost(network: FastRCNN, shape: tuple[int, int]) -> Cost:
    """Count a network's cost for an image of this height and width after resizing."""
    with torch.device("meta"):
        bare = FastRCNN(network.architecture).eval()
        image = torch.empty(1, 3, *shape)
        pooled = torch.empty(1, bare.backbone.channels, bare.roi_size, bare.roi_size)
    with torch.no_grad():
        with FlopCounterMode(display=False) as over_image:
            bare.extract_features(image)
        with FlopCounterMode(display=False) as over_roi:
            vectors = bare.backbone.head(pooled)
            bare.cls_score(vectors)
            bare.bbox_pred(vectors)
    return Cost(
        sum(parameter.numel() for parameter in network.parameters()),
        over_image.get_total_flops() // 2,  # the counter counts a multiply-add as two operations
        over_roi.get_total_flops() // 2,
    )
