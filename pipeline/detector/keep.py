"""The rule by which scored boxes become detections; free of torch, since drivers and jobs name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import InvalidConfiguration


@dataclass(frozen=True)
class Keep:
    """The rule by which scored boxes become detections."""

    score_threshold: float = 0.05
    """`default` keeps scores from here on; `paper` looks at no threshold."""
    nms_iou: float = 0.3
    """A box that overlaps a better one of its class by more than this IoU is dropped."""
    max_per_image: int = 100
    """`default` keeps at most so many of an image, over all classes; `paper` takes the best so many of
    each class into NMS."""
    rule: Literal["default", "paper"] = "default"
    """`default`: threshold, NMS, then a cap per image. `paper`: the best of each class and image
    before NMS, nothing dropped afterwards (the released code's candidates for average precision)."""

    def __post_init__(self) -> None:
        if self.rule not in ("default", "paper"):
            raise InvalidConfiguration(f"rule {self.rule!r} for detections is not default or paper")
        if not 0 <= self.score_threshold <= 1 or not 0 <= self.nms_iou <= 1:
            raise InvalidConfiguration("score threshold and NMS IoU lie between 0 and 1")
        if self.max_per_image < 1:
            raise InvalidConfiguration(f"at most {self.max_per_image} detections per image")
