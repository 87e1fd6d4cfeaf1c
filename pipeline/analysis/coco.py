"""COCO's average precision, by hotcoco, whose numbers are pycocotools'.

Crowds are COCO's crowds. A difficult object is treated like an object outside the scored range of sizes:
it need not be found, and the detection that fits it best is not false. COCO's evaluation ignores the
`ignore` flag of boxes (it derives the flag from `iscrowd`), and as a crowd a difficult object would also
excuse every small box inside it; therefore it gets an area outside every range.

The manifest holds boxes and no masks, so small (under 32² pixels), medium and large (over 96²) are
measured by the box's area. COCO's own files use the mask's area, which is smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hotcoco import StreamingEval
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays

_OUTSIDE_EVERY_RANGE = -1.0


@dataclass(frozen=True)
class CocoScores:
    """COCO's summary; NaN if there is no object to find."""

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
    """Accepts the images in any number of steps; matches them at once and keeps no boxes."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._evaluation = StreamingEval(
            [{"id": index, "name": name} for index, name in enumerate(classes, start=1)]
        )
        self._objects = 0

    def update(
        self, images: Sequence[int], ground_truth: GroundTruthArrays, detections: DetectionArrays
    ) -> None:
        """Add images: their numbers in the dataset (from 0), their objects and their detections."""
        numbers = np.asarray(images, np.int64) + 1
        rows = np.column_stack(
            [
                numbers[detections.image],
                geometry.to_xywh(detections.boxes),
                detections.scores,
                detections.class_id + 1,
            ]
        )
        self._evaluation.update(
            [{"id": int(number)} for number in numbers],
            self._annotations(numbers, ground_truth),
            rows.astype(np.float64),
        )

    def _annotations(
        self, numbers: NDArray[np.int64], ground_truth: GroundTruthArrays
    ) -> list[dict[str, object]]:
        first = self._objects + 1
        self._objects += len(ground_truth.boxes)
        columns = {
            "id": range(first, first + len(ground_truth.boxes)),
            "image_id": numbers[ground_truth.image].tolist(),
            "category_id": (ground_truth.class_id + 1).tolist(),
            "bbox": geometry.to_xywh(ground_truth.boxes).tolist(),
            "area": np.where(
                ground_truth.difficult, _OUTSIDE_EVERY_RANGE, geometry.area(ground_truth.boxes)
            ).tolist(),
            "iscrowd": ground_truth.crowd.astype(int).tolist(),
        }
        return [
            dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)
        ]

    def compute(self) -> CocoScores:
        """Compute the scores of all images; no images can be added afterwards."""
        evaluation = self._evaluation.finalize()
        evaluation.accumulate()
        results = evaluation.eval
        assert results is not None
        # (IoU threshold, recall, class, range of sizes, detections per image); -1 means undefined

        precision = np.asarray(results["precision"])[..., -1]
        all_sizes, small, medium, large = (precision[..., index] for index in range(4))
        return CocoScores(
            ap=_average_defined(all_sizes),
            ap50=_average_defined(all_sizes[0]),
            ap75=_average_defined(all_sizes[5]),
            small=_average_defined(small),
            medium=_average_defined(medium),
            large=_average_defined(large),
            per_class=np.array(
                [_average_defined(all_sizes[:, :, k]) for k in range(precision.shape[2])]
            ),
        )


def _average_defined(precision: NDArray[np.float64]) -> float:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else float("nan")
