"""How windows overlap the objects of each class: what makes them negatives, and pairs for regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.detector.sampling import is_in_crowd
from pipeline.training.annotated_dataset import Annotations


def measure_overlaps(
    boxes: NDArray[np.float32], annotations: Annotations, classes: int
) -> NDArray[np.float32]:
    """The largest IoU `(N, K)` of each box `(N, 4)` with an object of each class, 0 without one.

    A box inside a crowd has 1 with all classes: it is no negative of any.
    """
    overlaps = np.zeros((len(boxes), classes), np.float32)
    if not len(boxes):
        return overlaps
    for label in range(classes):
        objects = annotations.boxes[annotations.labels == label + 1]
        if len(objects):
            overlaps[:, label] = geometry.iou(boxes, objects).max(axis=1)
    overlaps[is_in_crowd(boxes, annotations.boxes[annotations.crowd])] = 1.0
    return overlaps


def pair_with_objects(
    boxes: NDArray[np.float32], annotations: Annotations, iou: float
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]:
    """The boxes `(N, 4)` whose IoU with their best object is above `iou`, for box regression.

    Returns:
        Their rows `(M,)`, the classes of their objects `(M,)`, from 0, and the raw deltas `(M, 4)`.
    """
    objects = annotations.boxes[~annotations.crowd]
    if not len(objects) or not len(boxes):
        return np.zeros(0, np.intp), np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
    best, match = geometry.find_best_overlaps(boxes, objects)
    rows = np.flatnonzero(best > iou)
    labels = annotations.labels[~annotations.crowd][match[rows]] - 1
    return rows, labels, geometry.encode_deltas(objects[match[rows]], boxes[rows])
