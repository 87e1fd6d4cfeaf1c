"""COCO's average precision, by hotcoco, whose numbers are pycocotools'.

Crowds are COCO's crowds. A difficult object is treated as COCO treats an object outside the range of
sizes that is being scored: it need not be found, and the one detection that fits it best is no false
one. COCO's evaluation reads no `ignore` flag for boxes (it is set anew from `iscrowd`), and as a crowd
a difficult object would also excuse every small box inside it; so it gets an area outside every range.

The manifest holds boxes and no masks, so small (under 32² pixels), medium and large (over 96²) go by
the box's area, where COCO's own files go by the mask's, which is smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hotcoco import StreamingEval
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.analysis.flat import Detections, GroundTruth

_OUTSIDE_EVERY_RANGE = -1.0


@dataclass(frozen=True)
class CocoScores:
    """COCO's summary; NaN where there was no object to find."""

    ap: float
    """Mean over IoU 0.50:0.05:0.95 and classes, at most 100 detections per image and class."""
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    per_class: NDArray[np.float64]
    """`(K,)` AP over IoU 0.50:0.05:0.95."""


class CocoAveragePrecision:
    """Takes the images in any number of steps; each is matched at once and its boxes forgotten."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._evaluation = StreamingEval(
            [{"id": index, "name": name} for index, name in enumerate(classes, start=1)]
        )
        self._objects = 0

    def update(self, images: Sequence[int], truth: GroundTruth, found: Detections) -> None:
        """Add images: their numbers in the dataset (from 0), their objects and detections."""
        numbers = np.asarray(images, np.int64) + 1
        rows = np.column_stack(
            [
                numbers[found.image],
                geometry.to_xywh(found.boxes),
                found.scores,
                found.class_id + 1,
            ]
        )
        self._evaluation.update(
            [{"id": int(number)} for number in numbers],
            self._annotations(numbers, truth),
            rows.astype(np.float64),
        )

    def _annotations(
        self, numbers: NDArray[np.int64], truth: GroundTruth
    ) -> list[dict[str, object]]:
        first = self._objects + 1
        self._objects += len(truth.boxes)
        columns = {
            "id": range(first, first + len(truth.boxes)),
            "image_id": numbers[truth.image].tolist(),
            "category_id": (truth.class_id + 1).tolist(),
            "bbox": geometry.to_xywh(truth.boxes).tolist(),
            "area": np.where(
                truth.difficult, _OUTSIDE_EVERY_RANGE, geometry.area(truth.boxes)
            ).tolist(),
            "iscrowd": truth.crowd.astype(int).tolist(),
        }
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]

    def result(self) -> CocoScores:
        """The scores of all images; nothing can be added afterwards."""
        evaluation = self._evaluation.finalize()
        evaluation.accumulate()
        accumulated = evaluation.eval
        assert accumulated is not None
        # (IoU threshold, recall, class, range of sizes, detections per image); -1 where undefined
        precision = np.asarray(accumulated["precision"])[..., -1]
        everything, small, medium, large = (precision[..., index] for index in range(4))
        return CocoScores(
            ap=_mean(everything),
            ap50=_mean(everything[0]),
            ap75=_mean(everything[5]),
            small=_mean(small),
            medium=_mean(medium),
            large=_mean(large),
            per_class=np.array([_mean(everything[:, :, k]) for k in range(precision.shape[2])]),
        )


def _mean(precision: NDArray[np.float64]) -> float:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else float("nan")
