"""SqueezeNet 1.0 (Iandola et al., 2016): RoI pooling replaces the last pool, fire9 runs on each RoI."""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import Tensor, nn

from pipeline.detector.backbones.backbone import Backbone, average_cells, build_fully_connected

TRUNK_LAYERS = 11
FIRE9 = 12
STAGE_LAYERS = {"conv1": 0} | dict(
    zip((f"fire{number}" for number in range(2, 9)), (3, 4, 5, 7, 8, 9, 10), strict=True)
)


class SqueezeNet(Backbone):
    """Stride 8 with 512 channels."""

    stride = 8
    channels = 512

    def __init__(self, *, roi_size: int, fc_widths: tuple[int, int] | None = None) -> None:
        super().__init__()
        layers = torchvision.models.squeezenet1_0().features
        for layer in layers:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True
        self.features: nn.Sequential = layers if fc_widths is None else layers[:TRUNK_LAYERS]
        self.fc: nn.Module | None = None
        self.width = 512
        if fc_widths is not None:
            self.fc = build_fully_connected(self.channels * roi_size**2, fc_widths, dropout=0.5)
            self.width = fc_widths[1]

    def trunk(self, images: Tensor) -> Tensor:
        """Compute `(B, 512, h, w)` at stride 8."""
        for layer in self.features[:TRUNK_LAYERS]:
            images = layer(images)
        return images

    def head(self, pooled: Tensor) -> Tensor:
        """Compute `(R, 512)` by fire9 and the mean over its cells, or by fully connected layers."""
        if self.fc is not None:
            vectors: Tensor = self.fc(pooled)
            return vectors
        cells: Tensor = self.features[FIRE9](pooled)
        return average_cells(cells, self.training)

    def get_stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return `conv1`, `fire2` to `fire8`, then `fire9` or `fc`."""
        stages: dict[str, Sequence[nn.Module]] = {
            name: [self.features[index]] for name, index in STAGE_LAYERS.items()
        }
        last = {"fire9": [self.features[FIRE9]]} if self.fc is None else {"fc": [self.fc]}
        return {**stages, **last}
