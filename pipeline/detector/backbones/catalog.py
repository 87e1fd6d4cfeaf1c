"""The backbones by name, with what each is used with unless told otherwise. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeGuard

from pipeline.detector import preprocessing
from pipeline.detector.preprocessing import Preprocessing


@dataclass(frozen=True)
class BackboneEntry:
    """A backbone's defaults."""

    preprocessing: Preprocessing
    """Of the pretrained weights that the network is usually started from."""
    roi_size: int
    """Cells per side of a pooled RoI."""
    freeze_until: str
    """The last stage that is not trained, or `none`."""
    paddings: tuple[str, ...] = ("symmetric",)
    """How its strided convolutions can be padded; the first is the default."""


BACKBONES: dict[str, BackboneEntry] = {
    "caffenet": BackboneEntry(preprocessing.CAFFE, 6, "conv1"),
    "vgg_cnn_m_1024": BackboneEntry(preprocessing.CAFFE, 6, "conv1"),
    "vgg16": BackboneEntry(preprocessing.TORCHVISION, 7, "conv2"),
    "alexnet": BackboneEntry(preprocessing.TORCHVISION, 6, "conv1"),
    "resnet18": BackboneEntry(preprocessing.TORCHVISION, 7, "layer1"),
    "resnet50": BackboneEntry(preprocessing.TORCHVISION, 14, "layer1"),
    "mobilenet_v2": BackboneEntry(
        preprocessing.TENSORFLOW, 7, "block6", paddings=("same", "symmetric")
    ),
    "mobilenet_v2_expanded": BackboneEntry(
        preprocessing.TENSORFLOW, 7, "block6", paddings=("same", "symmetric")
    ),
    "squeezenet1_0": BackboneEntry(preprocessing.TORCHVISION, 7, "fire3"),
    "tiny": BackboneEntry(preprocessing.DRAWN, 5, "none"),
}
"""caffenet, vgg_cnn_m_1024 and vgg16 are the paper's S, M and L. `mobilenet_v2_expanded` pools RoIs
from a map after a ReLU, which its pretrained last stage takes far better."""


def is_torchvision_name(weights: str | None) -> TypeGuard[str]:
    """Whether weights are a name that torchvision knows, such as `ResNet18_Weights.DEFAULT`, not a place."""
    return weights is not None and re.fullmatch(r"\w+_Weights\.\w+", weights) is not None
