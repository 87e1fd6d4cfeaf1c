"""MobileNetV2 (Sandler et al., CVPR 2018): blocks 0-13 over the picture, the rest over each RoI."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import Tensor, nn

from pipeline.detector.backbones.backbone import Backbone, fully_connected, mean_over_cells
from pipeline.detector.backbones.frozen_norm import fold_frozen_norms

TRUNK_BLOCKS = 14  # up to stride 16, where the map has 96 channels


class MobileNetV2(Backbone):
    """Stride 16 with 96 channels; its last stage, applied to each RoI, carries the accuracy."""

    stride = 16
    channels = 96

    def __init__(
        self, *, roi_size: int, padding: str, fc_widths: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        blocks = torchvision.models.mobilenet_v2(weights=None).features
        if fc_widths is not None:
            blocks = blocks[:TRUNK_BLOCKS]
        self.features: nn.Sequential = blocks
        renamed = fold_frozen_norms(self.features, same_padding=padding == "same")
        self._renamed = {f"features.{new}": f"features.{old}" for new, old in renamed.items()}
        self.fc: nn.Module | None = None
        self.width = 1280
        if fc_widths is not None:
            self.fc = fully_connected(self.channels * roi_size**2, fc_widths, dropout=0.5)
            self.width = fc_widths[1]

    def trunk(self, images: Tensor) -> Tensor:
        """`(B, 96, h, w)` at stride 16."""
        for block in self.features[:TRUNK_BLOCKS]:
            images = block(images)
        return images

    def head(self, pooled: Tensor) -> Tensor:
        """`(R, 1280)`: blocks 14-18 and the mean over their cells; or the fully connected layers."""
        if self.fc is not None:
            vectors: Tensor = self.fc(pooled)
            return vectors
        for block in self.features[TRUNK_BLOCKS:]:
            pooled = block(pooled)
        return mean_over_cells(pooled)

    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """`block0` to `block18`, and `fc` where there is one."""
        stages: dict[str, Sequence[nn.Module]] = {
            f"block{index}": [block] for index, block in enumerate(self.features)
        }
        return stages if self.fc is None else {**stages, "fc": [self.fc]}

    def renamed(self) -> dict[str, str]:
        """Torchvision's names of the BatchNorm constants."""
        return self._renamed
