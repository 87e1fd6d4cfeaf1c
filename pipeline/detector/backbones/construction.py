"""From a name in the catalog to the module."""

from __future__ import annotations

from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.backbone import Backbone
from pipeline.detector.backbones.caffe import CaffeNet, VggCnnM
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.backbones.chain import VGG16, AlexNet
from pipeline.detector.backbones.factorisation import split_linear_layers
from pipeline.detector.backbones.mobilenet_v2 import MobileNetV2
from pipeline.detector.backbones.resnet import ResNet
from pipeline.detector.backbones.squeezenet import SqueezeNet
from pipeline.detector.backbones.tiny import Tiny


def build_backbone(architecture: Architecture) -> Backbone:
    """Build the backbone of an architecture, randomly initialised, with its first stages frozen."""
    defaults = BACKBONES[architecture.backbone]
    module = _create_module(architecture, architecture.roi_size or defaults.roi_size)
    if architecture.fc_ranks is not None:
        split_linear_layers(module, architecture.fc_ranks)
    module.freeze(architecture.freeze_until or defaults.freeze_until)
    return module


def _create_module(architecture: Architecture, roi_size: int) -> Backbone:  # noqa: PLR0911
    widths = architecture.fc_widths
    match architecture.backbone:
        case "caffenet":
            return CaffeNet(roi_size=roi_size, fc_widths=widths)
        case "vgg_cnn_m_1024":
            return VggCnnM(roi_size=roi_size, fc_widths=widths)
        case "vgg16":
            return VGG16(roi_size=roi_size, fc_widths=widths)
        case "alexnet":
            return AlexNet(roi_size=roi_size, fc_widths=widths)
        case "resnet18":
            return ResNet(18, roi_size=roi_size, fc_widths=widths)
        case "resnet50":
            return ResNet(50, roi_size=roi_size, fc_widths=widths)
        case "mobilenet_v2" | "mobilenet_v2_expanded" as name:
            return MobileNetV2(
                roi_size=roi_size,
                padding=architecture.padding or BACKBONES[name].paddings[0],
                expanded=name == "mobilenet_v2_expanded",
                fc_widths=widths,
            )
        case "squeezenet1_0":
            return SqueezeNet(roi_size=roi_size, fc_widths=widths)
        case "tiny":
            return Tiny(roi_size=roi_size, fc_widths=widths)
        case name:
            raise AssertionError(f"{name} is in the catalog but cannot be constructed")
