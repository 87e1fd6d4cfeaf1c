"""The backbones by name, with their defaults. Importing this loads no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeGuard

from pipeline.detector import preprocessing
from pipeline.detector.preprocessing import Preprocessing


@dataclass(frozen=True)
class BackboneDefaults:
    """The defaults of a backbone."""

    preprocessing: Preprocessing
    """Of the pretrained weights that training usually starts from."""
    roi_size: int
    """Cells per side of a pooled RoI."""
    freeze_until: str
    """The last stage that is not trained, or `none`."""
    paddings: tuple[str, ...] = ("symmetric",)
    """Ways to pad its strided convolutions; the first is the default."""
    shift_rois_first: bool = False
    """Whether new trainings project RoIs in the released code's order, see `Preprocessing`."""


BACKBONES: dict[str, BackboneDefaults] = {
    "caffenet": BackboneDefaults(preprocessing.CAFFE, 6, "conv1", shift_rois_first=True),
    "vgg_cnn_m_1024": BackboneDefaults(preprocessing.CAFFE, 6, "conv1", shift_rois_first=True),
    "vgg16": BackboneDefaults(preprocessing.TORCHVISION, 7, "conv2", shift_rois_first=True),
    "alexnet": BackboneDefaults(preprocessing.TORCHVISION, 6, "conv1"),
    "resnet18": BackboneDefaults(preprocessing.TORCHVISION, 7, "layer1"),
    "resnet50": BackboneDefaults(preprocessing.TORCHVISION, 14, "layer1"),
    "mobilenet_v2": BackboneDefaults(
        preprocessing.TENSORFLOW, 7, "block6", paddings=("same", "symmetric")
    ),
    "mobilenet_v2_expanded": BackboneDefaults(
        preprocessing.TENSORFLOW, 7, "block6", paddings=("same", "symmetric")
    ),
    "squeezenet1_0": BackboneDefaults(preprocessing.TORCHVISION, 7, "fire3"),
    "tiny": BackboneDefaults(preprocessing.FROM_SCRATCH, 5, "none"),
}
"""caffenet, vgg_cnn_m_1024 and vgg16 are the paper's S, M and L. `mobilenet_v2_expanded` pools RoIs
from a map after a ReLU, which suits its pretrained last stage far better."""


def is_torchvision_name(weights: str | None) -> TypeGuard[str]:
    """Whether `weights` is a name in torchvision, such as `ResNet18_Weights.DEFAULT`, and not a URI."""
    return weights is not None and re.fullmatch(r"\w+_Weights\.\w+", weights) is not None
