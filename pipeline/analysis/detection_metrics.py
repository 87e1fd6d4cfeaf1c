"""The numbers of a detector on a dataset, as `evaluate` returns them and metrics.json holds them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ClassMetrics:
    """One class; an AP is None if the class has no object that counts."""

    label: str
    objects: int
    """Annotated objects, without difficult ones and crowds."""
    detections: int
    ap11: float | None
    """VOC2007's 11-point AP at IoU 0.5."""
    ap_area: float | None
    """VOC2010's area AP at IoU 0.5."""
    coco_ap: float | None
    """COCO's AP over IoU 0.50:0.05:0.95."""
    coco_ap50: float | None
    """COCO's AP at IoU 0.5."""
    coco_ar_100: float | None
    """COCO's average recall over IoU 0.50:0.05:0.95 of the best 100 detections of each image."""


@dataclass(frozen=True)
class DetectionMetrics:
    """How well a dataset's objects were detected; means are over the classes that have objects."""

    voc07_map50: float | None
    voc_map50: float | None
    coco_ap: float | None
    coco_ap50: float | None
    coco_ap75: float | None
    coco_ap_small: float | None
    coco_ap_medium: float | None
    coco_ap_large: float | None
    coco_ar_1: float | None
    """COCO's average recall over IoU 0.50:0.05:0.95 of the best detection of each image and class."""
    coco_ar_10: float | None
    coco_ar_100: float | None
    coco_ar_small: float | None
    """Of the best 100, as for the other sizes."""
    coco_ar_medium: float | None
    coco_ar_large: float | None
    images: int
    """Images in the detections; the objects of failed ones count as missed."""
    manifest_images: int
    """Images in the manifest: more than `images` after a run with --limit."""
    unlabelled: int
    """Images without annotations, which are not scored."""
    failed: int
    failed_by_reason: dict[str, int]
    """Failed images by `stage: error_type`."""
    objects: int
    detections: int
    per_class: tuple[ClassMetrics, ...]
    notes: tuple[str, ...]
    """What a reader of the numbers must know, one sentence each."""
    partial: bool = False
    """Whether the detection run was not finished: the numbers cover the shards that it had committed."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)
