"""Average precision by PASCAL VOC's rules: 11-point (VOC2007) and area (VOC2010 on).

The detections of a class are ranked by falling score over the whole dataset. Each belongs to the object
of its class and image that it overlaps most. If their IoU reaches the threshold, the detection is true,
or a false duplicate if a better scored detection has that object; if the object is difficult, the
detection is ignored. Source: Everingham et al., IJCV 2010, section 4.2, and the evaluation code of the
VOC development kit. The kit measures inclusive boxes with + 1, which gives the areas of half-open ones.

VOC has no crowds. For COCO's, COCO's own rule applies: an otherwise false detection is ignored if the
share of its area inside a crowd of its class reaches the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.analysis.matching import match_rows
from pipeline.analysis.matching_kernel import DETECTION

TRUE, FALSE, IGNORED = 1, 0, -1


@dataclass(frozen=True)
class VocScores:
    """Scores of K classes, each array `(K,)`; the AP of a class without objects is NaN."""

    eleven_point: NDArray[np.float64]
    area: NDArray[np.float64]
    objects: NDArray[np.int64]
    """Number of objects that are neither difficult nor crowds."""
    detections: NDArray[np.int64]
    """Number of all detections of the class, including ignored ones."""


class VocAveragePrecision:
    """Accepts the images in any number of steps and keeps nine bytes per detection.

    Args:
        classes: number of classes.
        threshold: the lowest IoU of a true detection.
    """

    def __init__(self, classes: int, threshold: float = 0.5) -> None:
        self.classes = classes
        self.threshold = threshold
        self._objects = np.zeros(classes, np.int64)
        self._detections = np.zeros(classes, np.int64)
        self._class_ids: list[NDArray[np.int32]] = []
        self._scores: list[NDArray[np.float32]] = []
        self._hits: list[NDArray[np.bool_]] = []

    def update(self, ground_truth: GroundTruthArrays, detections: DetectionArrays) -> None:
        """Match some images' detections with their objects; `image` means the same in both."""
        object_classes = ground_truth.class_id[~(ground_truth.difficult | ground_truth.crowd)]
        self._objects += np.bincount(object_classes, minlength=self.classes)
        self._detections += np.bincount(detections.class_id, minlength=self.classes)
        outcomes = match_detections(ground_truth, detections, self.threshold)
        is_counted = outcomes != IGNORED
        self._class_ids.append(detections.class_id[is_counted].astype(np.int32))
        self._scores.append(detections.scores[is_counted])
        self._hits.append(outcomes[is_counted] == TRUE)

    def compute(self) -> VocScores:
        """Compute the scores of all images so far."""
        class_ids = np.concatenate([*self._class_ids, np.empty(0, np.int32)])
        scores = np.concatenate([*self._scores, np.empty(0, np.float32)])
        # A stable sort: equal scores stay in the order of the manifest, however it is cut into steps.
        order = np.lexsort((-scores, class_ids))
        hits = np.concatenate([*self._hits, np.empty(0, np.bool_)])[order]
        ends = np.cumsum(np.bincount(class_ids, minlength=self.classes))
        hits_by_class = np.split(hits, ends[:-1]) if self.classes else []
        scores_by_class = [
            average_precision(class_hits, int(objects))
            for class_hits, objects in zip(hits_by_class, self._objects, strict=True)
        ]
        eleven_point, area = np.array(scores_by_class, np.float64).reshape(-1, 2).T
        return VocScores(eleven_point, area, self._objects.copy(), self._detections.copy())


def average_precision(hits: NDArray[np.bool_], objects: int) -> tuple[float, float]:
    """Compute the 11-point and the area AP of one class.

    Args:
        hits: bool `(D,)`, whether each detection is true, best scored first, without ignored ones.
        objects: number of objects to find; with none both APs are NaN.
    """
    if objects == 0:
        return float("nan"), float("nan")
    true_positives = np.cumsum(hits)
    precision = true_positives / np.arange(1, len(hits) + 1)
    # The highest precision at this recall or any greater one.
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # Recall >= k / 10 is tested in whole objects: 3 of 10 do reach 0.3, whatever 3 * 0.1 rounds to.
    required = -(-np.arange(11) * objects // 10)
    eleven_point = float(envelope[np.searchsorted(true_positives, required)].mean())
    return eleven_point, float(envelope[:-1][hits].sum() / objects)


def match_detections(
    ground_truth: GroundTruthArrays, detections: DetectionArrays, threshold: float
) -> NDArray[np.int8]:
    """Return for each detection `(D,)` whether it counts as TRUE, FALSE or IGNORED."""
    images = 1 + int(max(ground_truth.image.max(initial=-1), detections.image.max(initial=-1)))
    is_annotated = np.ones(images, np.bool_)
    rows = match_rows(ground_truth, detections, images, is_annotated, voc_threshold=threshold)
    rows = rows[rows["kind"] == DETECTION]
    outcomes = np.empty(len(rows), np.int8)
    outcomes[rows["detection"]] = rows["voc"]
    return outcomes
