"""VGG16 and AlexNet: torchvision's chains of convolutions, cut before the last pool.

RoI pooling takes the place of that pool (Fast R-CNN, section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torchvision
from torch import Tensor, nn

from pipeline.detector.backbones.backbone import Backbone, build_fully_connected


class Chain(Backbone):
    """A trunk `features`, and a head: `classifier` without its last layer, or `fc`."""

    features: nn.Sequential
    stage_layers: dict[str, tuple[int, ...]]
    """Indices in `features` of the layers with parameters, by stage."""

    def __init__(
        self,
        network: nn.Module,
        layers: int,
        head_layers: int,
        roi_size: int,
        fc_widths: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        features, classifier = (
            network.get_submodule("features"),
            network.get_submodule("classifier"),
        )
        assert isinstance(features, nn.Sequential)
        assert isinstance(classifier, nn.Sequential)
        self.features = features[:layers]
        self.width = 4096
        if fc_widths is not None:
            self.fc = build_fully_connected(self.channels * roi_size**2, fc_widths, dropout=0.5)
            self.width = fc_widths[1]
        else:
            self.classifier = classifier[:head_layers]
            first = next(m for m in self.classifier if isinstance(m, nn.Linear))
            if first.in_features != self.channels * roi_size**2:
                name = next(n for n, m in self.classifier.named_children() if m is first)
                fitting = nn.Linear(self.channels * roi_size**2, first.out_features)
                setattr(self.classifier, name, fitting)

    def trunk(self, images: Tensor) -> Tensor:
        """Compute `(B, channels, h, w)` at stride 16."""
        features: Tensor = self.features(images)
        return features

    def head(self, pooled: Tensor) -> Tensor:
        """Compute `(R, width)`."""
        layers = self.fc if hasattr(self, "fc") else self.classifier
        vectors: Tensor = layers(pooled.flatten(1))
        return vectors

    def get_stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return `conv1` to `conv5`, then `fc6` and `fc7`, or `fc`."""
        stages: dict[str, Sequence[nn.Module]] = {
            name: [self.features[index] for index in indices]
            for name, indices in self.stage_layers.items()
        }
        if hasattr(self, "fc"):
            return {**stages, "fc": [self.fc]}
        linear = [m for m in self.classifier if not isinstance(m, (nn.ReLU, nn.Dropout))]
        return {**stages, **{f"fc{6 + i}": [layer] for i, layer in enumerate(linear)}}


class VGG16(Chain):
    """The paper's L (Simonyan and Zisserman, ICLR 2015)."""

    stride = 16
    channels = 512
    stage_layers = {  # noqa: RUF012
        "conv1": (0, 2),
        "conv2": (5, 7),
        "conv3": (10, 12, 14),
        "conv4": (17, 19, 21),
        "conv5": (24, 26, 28),
    }

    def __init__(self, *, roi_size: int, fc_widths: tuple[int, int] | None = None) -> None:
        super().__init__(torchvision.models.vgg16(), 30, 6, roi_size, fc_widths)
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True  # as in Caffe: the last pixels of odd sides count too


class AlexNet(Chain):
    """torchvision's AlexNet (Krizhevsky, 2014): 64-192-384-256-256 channels, no groups, no LRN."""

    stride = 16
    channels = 256
    stage_layers = {  # noqa: RUF012
        "conv1": (0,),
        "conv2": (3,),
        "conv3": (6,),
        "conv4": (8,),
        "conv5": (10,),
    }

    def __init__(self, *, roi_size: int, fc_widths: tuple[int, int] | None = None) -> None:
        super().__init__(torchvision.models.alexnet(), 12, 6, roi_size, fc_widths)
