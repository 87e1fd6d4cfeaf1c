"""MobileNetV2 (Sandler et al., CVPR 2018), cut before block 14 or in the middle of it.

RoI max pooling needs a map after a ReLU, as in the paper's networks, where an absent feature is 0. The
blocks end in linear layers, and the largest of several linear values is far from what the next block was
trained on. So `expanded` ends the trunk with block 14's expansion to 576 channels and its ReLU6, and
applies the following layers to each RoI. On 184 objects of VOC images the pretrained classifier gave a RoI
the class of the cropped object 1 % of the time with the cut before block 14, and 23 % with this cut;
after 600 training steps at short side 384, mAP was 0.28 against 0.34 (one run each, equal time).
"""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import Tensor, nn

from pipeline.detector.backbones.backbone import Backbone, average_cells, build_fully_connected
from pipeline.detector.backbones.frozen_norm import fold_frozen_norms

WHOLE_BLOCKS = 14  # in the trunk, up to stride 16, where the map has 96 channels


class MobileNetV2(Backbone):
    """Stride 16; its last stage, applied to each RoI, contributes most of the accuracy."""

    stride = 16

    def __init__(
        self,
        *,
        roi_size: int,
        padding: str,
        expanded: bool,
        fc_widths: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        blocks = torchvision.models.mobilenet_v2(weights=None).features
        self.expanded = expanded
        self.features: nn.Sequential = blocks
        if fc_widths is not None:
            self.features = blocks[: WHOLE_BLOCKS + expanded]
        previous_names = fold_frozen_norms(self.features, same_padding=padding == "same")
        if expanded and fc_widths is not None:
            self.features[WHOLE_BLOCKS].conv = self._get_split_block()[:1]
        for layer in self.features.modules():
            if isinstance(layer, nn.ReLU6):  # if in place, autograd copies its input
                layer.inplace = False
        self._pretrained_names = {
            f"features.{new}": f"features.{old}" for new, old in previous_names.items()
        }
        self.fc: nn.Module | None = None
        self.channels, self.width = 576 if expanded else 96, 1280
        if fc_widths is not None:
            self.fc = build_fully_connected(self.channels * roi_size**2, fc_widths, dropout=0.5)
            self.width = fc_widths[1]

    def trunk(self, images: Tensor) -> Tensor:
        """Compute `(B, channels, h, w)` at stride 16."""
        for block in self.features[:WHOLE_BLOCKS]:
            images = block(images)
        if self.expanded:
            images = self._get_split_block()[0](images)
        return images

    def head(self, pooled: Tensor) -> Tensor:
        """Compute `(R, 1280)` by the other blocks and the mean over cells, or by fully connected layers."""
        if self.fc is not None:
            vectors: Tensor = self.fc(pooled)
            return vectors
        if self.expanded:
            for layer in self._get_split_block()[1:]:
                pooled = layer(pooled)
        for block in self.features[WHOLE_BLOCKS + self.expanded :]:
            pooled = block(pooled)
        return average_cells(pooled, self.training)

    def _get_split_block(self) -> nn.Sequential:
        """Return block 14, which has no shortcut: expansion, depthwise at stride 2, projection."""
        layers = self.features[WHOLE_BLOCKS].get_submodule("conv")
        assert isinstance(layers, nn.Sequential)
        return layers

    def get_stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return `block0` to `block18`, or the blocks of the trunk and `fc`.

        The trunk of `expanded` ends with the stage `block14-expansion`, or before `fc` with `block14`.
        """
        stages: dict[str, Sequence[nn.Module]] = {}
        for index, block in enumerate(self.features):
            if index == WHOLE_BLOCKS and self.expanded and self.fc is None:
                expansion, *others = self._get_split_block()
                stages |= {"block14-expansion": [expansion], "block14": others}
            else:
                stages[f"block{index}"] = [block]
        return stages if self.fc is None else {**stages, "fc": [self.fc]}

    def get_pretrained_names(self) -> dict[str, str]:
        """Return torchvision's names of the BatchNorm constants."""
        return self._pretrained_names
