"""The settings of postprocessing; free of torch, since drivers and jobs use them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

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
    mean_per_image: int | None = 40
    """`paper`: number of boxes of each class, per image on average over the whole run, whose worst score is
    the class's threshold. A run applies it after its last image; a call on single images does not. None: no
    such threshold."""
    rule: Literal["default", "paper"] = "default"
    """`default`: threshold, NMS, then a cap per image. `paper`: cap per class and image, NMS, then a
    threshold for each class that depends on all images (`mean_per_image`)."""
    refine_boxes: bool = True
    """Apply the network's box regression. False keeps the proposals' own boxes (the released TEST.BBOX_REG;
    "testing without regression" in table 6)."""

    def __post_init__(self) -> None:
        if self.rule not in ("default", "paper"):
            raise InvalidConfiguration(f"--rule is {self.rule!r}, expected default or paper")
        check_fields(self, "score_threshold", "nms_iou", at_least=0, at_most=1)
        check_fields(self, "max_per_image", "mean_per_image", at_least=1)

    @property
    def has_run_thresholds(self) -> bool:
        """Whether a run drops detections by thresholds that depend on all of its images."""
        return self.rule == "paper" and self.mean_per_image is not None

    @property
    def most_detections(self) -> int | None:
        """Maximum number of detections of an image; the rule `paper` has none."""
        return self.max_per_image if self.rule == "default" else None

    def to_record(self) -> dict[str, Any]:
        """Return the settings as run.json stores them, without `mean_per_image` if it has no effect.

        `refine_boxes` is left out if true, so that earlier runs keep their fingerprint.
        """
        record = asdict(self)
        if not self.has_run_thresholds:
            del record["mean_per_image"]
        if self.refine_boxes:
            del record["refine_boxes"]
        return record
