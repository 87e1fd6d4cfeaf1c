"""The same images scored by pycocotools and tidecv, which tests compare with our numbers."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays

SUMMARY = (
    *("coco_ap", "coco_ap50", "coco_ap75", "coco_ap_small", "coco_ap_medium", "coco_ap_large"),
    *("coco_ar_1", "coco_ar_10", "coco_ar_100", "coco_ar_small", "coco_ar_medium", "coco_ar_large"),
)
"""Our names of pycocotools' twelve numbers, in its order."""


def evaluate_with_pycocotools(
    ground_truth: GroundTruthArrays, detections: DetectionArrays, images: int, classes: int
) -> Any:
    """pycocotools' COCOeval after `summarize`; a difficult object has an area outside every range."""
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    coco = pytest.importorskip("pycocotools.coco")
    truth = coco.COCO()
    boxes = _to_xywh(ground_truth.boxes)
    areas = np.where(ground_truth.difficult, -1.0, boxes[:, 2] * boxes[:, 3])
    truth.dataset = {
        "images": [{"id": image + 1} for image in range(images)],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
        "annotations": [
            {
                "id": index + 1,
                "image_id": int(ground_truth.image[index]) + 1,
                "category_id": int(ground_truth.class_id[index]) + 1,
                "bbox": boxes[index].tolist(),
                "area": float(areas[index]),
                "iscrowd": int(ground_truth.crowd[index]),
            }
            for index in range(len(boxes))
        ],
    }
    boxes = _to_xywh(detections.boxes)
    results = [
        {
            "image_id": int(detections.image[index]) + 1,
            "category_id": int(detections.class_id[index]) + 1,
            "bbox": boxes[index].tolist(),
            "score": float(detections.scores[index]),
        }
        for index in range(len(boxes))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def average_defined(values: Any) -> float | None:
    """The mean of what pycocotools defines: it writes -1 elsewhere."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def find_errors_with_tidecv(
    ground_truth: GroundTruthArrays, detections: DetectionArrays, images: int, classes: int
) -> tuple[list[str | None], set[int]]:
    """TIDE's type of error of each detection, and the objects that it counts as missed."""
    for name in ("plotting", "datasets"):  # they need more packages
        sys.modules.setdefault(f"tidecv.{name}", MagicMock())
    tidecv = pytest.importorskip("tidecv")
    truth, found = (tidecv.Data(name, max_dets=10**6) for name in ("truth", "found"))
    for data in (truth, found):
        for image in range(images):
            data.add_image(image, str(image))
        for k in range(classes):
            data.add_class(k, str(k))
    for image, k, box in _zip(ground_truth.image, ground_truth.class_id, ground_truth.boxes):
        truth.add_ground_truth(int(image), int(k), _to_xywh(box[None])[0].tolist())
    for image, k, box, score in _zip(
        detections.image, detections.class_id, detections.boxes, detections.scores
    ):
        found.add_detection(int(image), int(k), float(score), _to_xywh(box[None])[0].tolist())
    run = tidecv.TIDE().evaluate(truth, found, mode=tidecv.TIDE.BOX)
    errors: list[str | None] = [None] * len(detections.scores)
    missed = set()
    for error in run.errors:
        if error.short_name == "Miss":
            missed.add(error.gt["_id"])
        else:
            errors[error.pred["_id"]] = error.short_name.lower()
    return errors, missed


def _zip(*columns: Sequence[Any]) -> Any:
    return zip(*columns, strict=True)


def _to_xywh(boxes: Any) -> Any:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
