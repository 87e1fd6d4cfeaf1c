"""Average precision by PASCAL VOC's rules: 11-point (VOC2007) and area (VOC2010 on).

Detections of a class go by falling score over the whole dataset. Each belongs to the object of its class
and image that it overlaps most. With an IoU of at least the threshold it is true if no better scored
one has that object, a false duplicate otherwise; if the object is difficult the detection is ignored.
Everingham et al., IJCV 2010, section 4.2, and the evaluation code of the VOC development kit. The kit
measures inclusive boxes with + 1, which gives the areas of our half-open ones.

VOC has no crowds; with COCO's, a detection that is otherwise false and lies at least by the threshold
inside a crowd of its class is ignored, which is COCO's own rule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.flat import Detections, GroundTruth

TRUE, FALSE, IGNORED = 1, 0, -1


@dataclass(frozen=True)
class VocScores:
    """Scores of K classes, each array `(K,)`; a class without objects has no AP: NaN."""

    eleven_point: NDArray[np.float64]
    area: NDArray[np.float64]
    objects: NDArray[np.int64]
    """Objects that count, which are neither difficult nor crowds."""
    detections: NDArray[np.int64]
    """All detections of the class, ignored ones included."""


class VocAveragePrecision:
    """Takes the images in any number of steps and keeps nine bytes per detection of them.

    Args:
        classes: how many there are.
        threshold: the least IoU of a true detection.
    """

    def __init__(self, classes: int, threshold: float = 0.5) -> None:
        self.classes = classes
        self.threshold = threshold
        self._objects = np.zeros(classes, np.int64)
        self._detections = np.zeros(classes, np.int64)
        self._class_ids: list[NDArray[np.int32]] = []
        self._scores: list[NDArray[np.float32]] = []
        self._hits: list[NDArray[np.bool_]] = []

    def update(self, truth: GroundTruth, found: Detections) -> None:
        """Match some images' detections with their objects; both number these images alike."""
        counted = truth.class_id[~(truth.difficult | truth.crowd)]
        self._objects += np.bincount(counted, minlength=self.classes)
        self._detections += np.bincount(found.class_id, minlength=self.classes)
        outcome = match(truth, found, self.threshold)
        kept = outcome != IGNORED
        self._class_ids.append(found.class_id[kept].astype(np.int32))
        self._scores.append(found.scores[kept])
        self._hits.append(outcome[kept] == TRUE)

    def result(self) -> VocScores:
        """The scores of all images so far."""
        class_ids = np.concatenate([*self._class_ids, np.empty(0, np.int32)])
        scores = np.concatenate([*self._scores, np.empty(0, np.float32)])
        # A stable sort: equal scores stay in the order of the manifest, and so of any cut of it.
        order = np.lexsort((-scores, class_ids))
        hits = np.concatenate([*self._hits, np.empty(0, np.bool_)])[order]
        ends = np.cumsum(np.bincount(class_ids, minlength=self.classes))
        per_class = np.split(hits, ends[:-1]) if self.classes else []
        both = [
            average_precision(of_class, int(objects))
            for of_class, objects in zip(per_class, self._objects, strict=True)
        ]
        pairs = np.array(both, np.float64).reshape(-1, 2)
        return VocScores(pairs[:, 0], pairs[:, 1], self._objects.copy(), self._detections.copy())


def average_precision(hits: NDArray[np.bool_], objects: int) -> tuple[float, float]:
    """11-point and area AP of one class.

    Args:
        hits: `(D,)` whether each detection is true, best scored first; ignored ones are left out.
        objects: how many there were to find; with none both are NaN.
    """
    if objects == 0:
        return float("nan"), float("nan")
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    # The highest precision at this recall or any greater one.
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # Recall >= k / 10 is asked in whole objects: 3 of 10 do reach 0.3, whatever 3 * 0.1 rounds to.
    needed = -(-np.arange(11) * objects // 10)
    eleven_point = float(envelope[np.searchsorted(found, needed)].mean())
    return eleven_point, float(envelope[:-1][hits].sum() / objects)


def match(truth: GroundTruth, found: Detections, threshold: float) -> NDArray[np.int8]:
    """What each detection `(D,)` counts as: TRUE, FALSE or IGNORED."""
    outcome = np.full(len(found.scores), FALSE, np.int8)
    if len(truth.boxes) == 0:
        return outcome
    best, overlap = _best_object(truth, found)
    matched = overlap >= threshold
    order = np.argsort(-found.scores, kind="stable")
    order = order[matched[order]]
    _, first = np.unique(best[order], return_index=True)
    outcome[order[first]] = TRUE
    outcome[matched & truth.difficult[best]] = IGNORED
    outcome[(outcome == FALSE) & (_inside_crowd(truth, found) >= threshold)] = IGNORED
    return outcome


def _best_object(
    truth: GroundTruth, found: Detections
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Per detection the index of the object it overlaps most, the first of equals, and their IoU."""
    detection, object_ = _pairs(truth, found, ~truth.crowd)
    inner, own, other = _areas(found.boxes[detection], truth.boxes[object_])
    union = own + other - inner
    iou = np.divide(inner, union, out=np.zeros_like(inner), where=union > 0)
    overlap = np.zeros(len(found.scores))
    np.maximum.at(overlap, detection, iou)
    best = np.zeros(len(found.scores), np.int64)
    winning = np.flatnonzero((iou == overlap[detection]) & (iou > 0))[::-1]
    best[detection[winning]] = object_[winning]  # the last one written is the first of equals
    return best, np.where(overlap > 0, overlap, -1.0)


def _inside_crowd(truth: GroundTruth, found: Detections) -> NDArray[np.float64]:
    """Per detection the largest part of its area that lies in one crowd of its class."""
    detection, crowd = _pairs(truth, found, truth.crowd)
    inner, own, _ = _areas(found.boxes[detection], truth.boxes[crowd])
    part = np.full(len(found.scores), -1.0)
    np.maximum.at(part, detection, np.divide(inner, own, out=np.zeros_like(inner), where=own > 0))
    return part


def _pairs(
    truth: GroundTruth, found: Detections, allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of all (detection, allowed object) of equal image and class, by detection."""
    candidates = np.flatnonzero(allowed)
    classes = 1 + max(truth.class_id.max(initial=0), found.class_id.max(initial=0))
    object_key = truth.image[candidates] * classes + truth.class_id[candidates]
    order = np.argsort(object_key, kind="stable")
    detection_key = found.image * classes + found.class_id
    first = np.searchsorted(object_key[order], detection_key, side="left")
    count = np.searchsorted(object_key[order], detection_key, side="right") - first
    detection = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    return detection, candidates[order[np.repeat(first, count) + within]]


def _areas(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Areas `(P,)` of the overlap of row i of `a` with row i of `b`, of `a` and of `b`."""
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    return (
        sides.prod(axis=1),
        (a[:, 2:] - a[:, :2]).prod(axis=1),
        (b[:, 2:] - b[:, :2]).prod(axis=1),
    )
