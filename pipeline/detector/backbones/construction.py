"""From a name of the catalog to the module."""

from __future__ import annotations

from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.backbone import Backbone
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.backbones.mobilenet_v2 import MobileNetV2
from pipeline.detector.backbones.tiny import Tiny


def backbone(architecture: Architecture) -> Backbone:
    """The backbone of an architecture, randomly initialised and frozen as far as it says."""
    entry = BACKBONES[architecture.backbone]
    roi_size = architecture.roi_size or entry.roi_size
    fc_widths = architecture.fc_widths
    module: Backbone
    match architecture.backbone:
        case "mobilenet_v2":
            padding = architecture.padding or entry.paddings[0]
            module = MobileNetV2(roi_size=roi_size, padding=padding, fc_widths=fc_widths)
        case "tiny":
            module = Tiny(roi_size=roi_size, fc_widths=fc_widths)
        case name:
            raise AssertionError(f"{name} is in the catalog but cannot be constructed")
    module.freeze(architecture.freeze_until or entry.freeze_until)
    return module
