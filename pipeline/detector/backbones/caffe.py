"""The paper's networks S and M (Fast R-CNN, section 4), with the layers of the released models.

Parameters are named after Caffe's layers, `conv1.weight` to `fc7.bias`. Like Caffe, these networks round
the size of a pooled map up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.detector.backbones.backbone import Backbone, build_fully_connected


class CaffeBackbone(Backbone):
    """Five convolutions, with normalisation after the first and second, and fc6 and fc7 as the head."""

    stride = 16
    conv1: nn.Conv2d
    conv2: nn.Conv2d
    conv3: nn.Conv2d
    conv4: nn.Conv2d
    conv5: nn.Conv2d

    def __init__(
        self, roi_size: int, own_widths: tuple[int, int], fc_widths: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.fc: nn.Module | None = None
        if fc_widths is not None:
            self.fc = build_fully_connected(self.channels * roi_size**2, fc_widths, dropout=0.5)
        else:
            self.fc6 = nn.Linear(self.channels * roi_size**2, own_widths[0])
            self.fc7 = nn.Linear(own_widths[0], own_widths[1])
        self.width = (fc_widths or own_widths)[1]
        self.drop = nn.Dropout(0.5)

    def apply_last_convolutions(self, features: Tensor) -> Tensor:
        """Apply conv3 to conv5, each with its ReLU."""
        for convolution in (self.conv3, self.conv4, self.conv5):
            features = functional.relu(convolution(features), inplace=True)
        return features

    def head(self, pooled: Tensor) -> Tensor:
        """Compute `(R, width)` by fc6 and fc7, or by the layers in their place."""
        if self.fc is not None:
            vectors: Tensor = self.fc(pooled)
        else:
            hidden = self.drop(functional.relu(self.fc6(pooled.flatten(1)), inplace=True))
            vectors = self.drop(functional.relu(self.fc7(hidden), inplace=True))
        return vectors

    def get_stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return `conv1` to `conv5`, then `fc6` and `fc7`, or `fc`."""
        heads = ("fc6", "fc7") if self.fc is None else ("fc",)
        names = (*(f"conv{number}" for number in range(1, 6)), *heads)
        return {name: [self.get_submodule(name)] for name in names}


class CaffeNet(CaffeBackbone):
    """S: Caffe's version of AlexNet, with 96-256-384-384-256 channels and two groups."""

    channels = 256

    def __init__(self, *, roi_size: int, fc_widths: tuple[int, int] | None = None) -> None:
        super().__init__(roi_size, (4096, 4096), fc_widths)
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4, padding=5)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)

    def trunk(self, images: Tensor) -> Tensor:
        """Compute `(B, 256, h, w)` at stride 16."""
        features = images
        for convolution in (self.conv1, self.conv2):
            features = functional.relu(convolution(features), inplace=True)
            features = functional.max_pool2d(features, 3, 2, padding=1, ceil_mode=True)
            features = _normalise_responses(features, alpha=1e-4, offset=1.0)
        return self.apply_last_convolutions(features)


class VggCnnM(CaffeBackbone):
    """M: VGG_CNN_M_1024 (Chatfield et al., BMVC 2014), as deep as S but wider."""

    channels = 512

    def __init__(self, *, roi_size: int, fc_widths: tuple[int, int] | None = None) -> None:
        super().__init__(roi_size, (4096, 1024), fc_widths)
        self.conv1 = nn.Conv2d(3, 96, 7, stride=2)
        self.conv2 = nn.Conv2d(96, 256, 5, stride=2, padding=1)
        self.conv3 = nn.Conv2d(256, 512, 3, padding=1)
        self.conv4 = nn.Conv2d(512, 512, 3, padding=1)
        self.conv5 = nn.Conv2d(512, 512, 3, padding=1)

    def trunk(self, images: Tensor) -> Tensor:
        """Compute `(B, 512, h, w)` at stride 16."""
        features = images
        for convolution in (self.conv1, self.conv2):
            features = functional.relu(convolution(features), inplace=True)
            features = _normalise_responses(features, alpha=5e-4, offset=2.0)
            features = functional.max_pool2d(features, 3, 2, ceil_mode=True)
        return self.apply_last_convolutions(features)


def _normalise_responses(features: Tensor, alpha: float, offset: float) -> Tensor:
    """Normalise responses over 5 channels, with beta 0.75 (Krizhevsky et al., 2012, section 3.3).

    This is a moving sum over shifted channels: torch's own function uses a pooling in three dimensions,
    which copies the map to another layout. Squares have single precision: features of these networks are
    in the hundreds, and half precision cannot hold their squares.
    """
    channels = features.shape[1]
    squares = functional.pad(features.float().square(), (0, 0, 0, 0, 2, 2))
    sums = squares[:, :channels]
    for shift in range(1, 5):
        sums = sums + squares[:, shift : shift + channels]
    return features * torch.pow(offset + (alpha / 5) * sums, -0.75).to(features.dtype)
