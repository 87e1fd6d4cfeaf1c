"""The networks of R-CNN and SPPnet: a trunk, a head, and one linear layer each for scores and boxes.

R-CNN's network is a `FastRCNN` that sees a warped window as an image with a single RoI, the whole window:
pooling its map is what the pretrained network's last pool does. During fine-tuning the output layers are a
classifier; in a checkpoint they hold SVMs and box regressors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.baselines.settings import RegionSettings
from pipeline.baselines.spatial_pyramid import count_cells
from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.backbone import Backbone, build_fully_connected
from pipeline.detector.network import FastRCNN

FC_WIDTHS = (1024, 1024)
"""Widths of SPPnet's fully connected layers if the recipe does not set them (the paper: 4096)."""
DROPOUT = 0.5


class SppNetwork(nn.Module):
    """SPPnet: convolutions over the image, then two fully connected layers on the pooled pyramid.

    The convolutions are fixed (He et al., section 4.1: "we only fine-tune the fully-connected layers").
    """

    def __init__(self, architecture: Architecture, levels: Sequence[int]) -> None:
        super().__init__()
        self.architecture = architecture
        # One cell and width 1: the backbone's own head is not used.
        base = FastRCNN(replace(architecture, roi_size=1, fc_widths=(1, 1), fc_ranks=None))
        self.backbone: Backbone = base.backbone
        self.backbone.requires_grad_(False)
        self.spatial_scale = base.spatial_scale
        self.levels = tuple(levels)
        widths = architecture.fc_widths or FC_WIDTHS
        self.fc = build_fully_connected(
            self.backbone.channels * count_cells(self.levels), widths, DROPOUT
        )
        outputs = len(architecture.classes) + 1
        self.cls_score = nn.Linear(widths[1], outputs)
        self.bbox_pred = nn.Linear(widths[1], 4 * outputs)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.zeros_(self.cls_score.bias)
        for parameter in self.bbox_pred.parameters():
            nn.init.zeros_(parameter)

    def extract_features(self, images: Tensor) -> Tensor:
        """Compute the feature map `(B, C, h, w)` of preprocessed images `(B, 3, H, W)`."""
        return self.backbone.trunk(images)

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute class logits `(R, K + 1)` of pooled pyramids `(R, C * cells)`."""
        logits: Tensor = self.cls_score(self.fc(pooled))
        return logits


BaselineNetwork = FastRCNN | SppNetwork


def build_baseline_network(architecture: Architecture, settings: RegionSettings) -> BaselineNetwork:
    """Build the network of a system, randomly initialised."""
    if settings.system == "sppnet":
        return SppNetwork(architecture, settings.pyramid)
    return FastRCNN(architecture)


def get_width(network: BaselineNetwork) -> int:
    """The length of a window's features."""
    return network.cls_score.in_features


def set_output_layers(
    network: BaselineNetwork,
    score_weight: Tensor,
    score_bias: Tensor,
    delta_weight: Tensor | None = None,
    delta_bias: Tensor | None = None,
) -> None:
    """Put SVMs and box regressors into the output layers, in place; background's are 0.

    Args:
        network: changed.
        score_weight: `(K, D)`, of the K classes.
        score_bias: `(K,)`.
        delta_weight: `(K, 4, D)`, raw deltas; None leaves the network's own box layer.
        delta_bias: `(K, 4)`.
    """
    with torch.no_grad():
        network.cls_score.weight.zero_()
        network.cls_score.bias.zero_()
        network.cls_score.weight[1:] = score_weight
        network.cls_score.bias[1:] = score_bias
        if delta_weight is None or delta_bias is None:
            return
        network.bbox_pred.weight.zero_()
        network.bbox_pred.bias.zero_()
        network.bbox_pred.weight[4:] = delta_weight.reshape(-1, delta_weight.shape[-1])
        network.bbox_pred.bias[4:] = delta_bias.reshape(-1)
