"""ResNet-18 and ResNet-50 (He et al., CVPR 2016), cut as C4: layer4 runs on each RoI."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import Tensor, nn

from pipeline.detector.backbones.backbone import Backbone, average_cells, build_fully_connected
from pipeline.detector.backbones.frozen_norm import fold_frozen_norms

STAGE_NAMES = ("conv1", "layer1", "layer2", "layer3", "layer4")


class ResNet(Backbone):
    """Stride 16, with frozen BatchNorm, as is usual with two images per step."""

    stride = 16

    def __init__(
        self, depth: int, *, roi_size: int, fc_widths: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        network = {18: torchvision.models.resnet18, 50: torchvision.models.resnet50}[depth]()
        self.channels, self.width = {18: (256, 512), 50: (1024, 2048)}[depth]
        for name in ("conv1", "bn1", "relu", "maxpool", *STAGE_NAMES[1:]):
            setattr(self, name, network.get_submodule(name))
        self._pretrained_names = fold_frozen_norms(self)
        self.fc: nn.Module | None = None
        if fc_widths is not None:
            del self.layer4
            self.fc = build_fully_connected(self.channels * roi_size**2, fc_widths, dropout=0.5)
            self.width = fc_widths[1]

    def trunk(self, images: Tensor) -> Tensor:
        """Compute `(B, channels, h, w)` at stride 16."""
        for name in ("conv1", "relu", "maxpool", *STAGE_NAMES[1:4]):
            images = self.get_submodule(name)(images)
        return images

    def head(self, pooled: Tensor) -> Tensor:
        """Compute `(R, width)` by layer4 and the mean over its cells, or by fully connected layers."""
        if self.fc is not None:
            vectors: Tensor = self.fc(pooled)
            return vectors
        cells: Tensor = self.get_submodule("layer4")(pooled)
        return average_cells(cells, self.training)

    def get_stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return `conv1`, `layer1` to `layer3`, then `layer4` or `fc`."""
        names = STAGE_NAMES if self.fc is None else (*STAGE_NAMES[:4], "fc")
        return {name: [self.get_submodule(name)] for name in names}

    def get_pretrained_names(self) -> dict[str, str]:
        """Return torchvision's names of the BatchNorm constants."""
        return self._pretrained_names
