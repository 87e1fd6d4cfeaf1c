"""Fast R-CNN (Girshick, ICCV 2015): a trunk over the image, RoI pooling, a head with two siblings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.backbones.construction import build_backbone
from pipeline.detector.pooling import roi_max_pool


class FastRCNN(nn.Module):
    """The network of an architecture, with K classes and K + 1 outputs, background at index 0."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = build_backbone(architecture)
        self.spatial_scale = 1 / self.backbone.stride
        self.roi_size = architecture.roi_size or BACKBONES[architecture.backbone].roi_size
        outputs = len(architecture.classes) + 1
        self.cls_score = nn.Linear(self.backbone.width, outputs)
        self.bbox_pred = nn.Linear(self.backbone.width, 4 * outputs)
        for layer, deviation in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)  # section 2.3, "Initializing"
            nn.init.zeros_(layer.bias)

    def extract_features(self, images: Tensor) -> Tensor:
        """Compute the feature map `(B, C, h, w)` of preprocessed images `(B, 3, H, W)`."""
        return self.backbone.trunk(images)

    def head(self, features: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Compute class logits `(R, K + 1)` and box deltas `(R, 4 (K + 1))` of RoIs `(R, 5)`.

        The four deltas of class c start at column 4 c.
        """
        pooled = roi_max_pool(features, rois, self.roi_size, self.spatial_scale)
        vectors = self.backbone.head(pooled).to(self.cls_score.weight.dtype)
        return self.cls_score(vectors), self.bbox_pred(vectors)

    def forward(self, images: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Compute class logits `(R, K + 1)` and box deltas `(R, 4 (K + 1))`.

        Args:
            images: preprocessed images `(B, 3, H, W)`.
            rois: `(R, 5)`: index in the batch, then x1, y1, x2, y2, half-open, in pixels of `images`.
        """
        return self.head(self.extract_features(images), rois)


def build_network(architecture: Architecture, seed: int = 0) -> FastRCNN:
    """Build a randomly initialised network; equal seeds give equal weights, torch's own state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FastRCNN(architecture)
