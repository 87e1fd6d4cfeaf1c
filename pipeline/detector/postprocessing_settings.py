"""The settings of postprocessing; free of torch, since drivers and jobs use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields


@dataclass(frozen=True)
class PostprocessingSettings:
    """How scored boxes become detections."""

    score_threshold: float = 0.05
    """Lowest score of a detection under the rule `default`; `paper` has no threshold."""
    nms_iou: float = 0.3
    """Drop a box that overlaps a better box of its class by more than this IoU; the rule `paper` drops it at
    this IoU too, as the released code does."""
    max_per_image: int = 100
    """`default`: maximum number of detections of an image, over all classes. `paper`: number of boxes of
    each class that enter NMS, best first."""
    rule: Literal["default", "paper"] = "default"
    """`default`: threshold, NMS, then a cap per image. `paper`: cap per class and image, then NMS, and
    nothing is dropped afterwards. The released code also drops, over the whole test set, what scores below
    the best 40 candidates per image and class on average; `paper` keeps these detections."""

    def __post_init__(self) -> None:
        if self.rule not in ("default", "paper"):
            raise InvalidConfiguration(f"--rule is {self.rule!r}, expected default or paper")
        check_fields(self, "score_threshold", "nms_iou", at_least=0, at_most=1)
        check_fields(self, "max_per_image", at_least=1)
