"""A run's detections matched with the objects, by class and image: the input of the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.average_precision import IGNORED, TRUE, match_detections
from pipeline.analysis.detection_arrays import flatten_detections, flatten_ground_truth
from pipeline.analysis.manifest_join import (
    JoinedBatch,
    find_labelled,
    join_manifest,
)
from pipeline.manifests import Manifest
from pipeline.shards import Parts


@dataclass(frozen=True)
class ClassMatches:
    """One class; image numbers count the annotated images only."""

    images: NDArray[np.int32]
    """`(D,)` the image of each detection, best scored first, without ignored detections."""
    hits: NDArray[np.bool_]
    """`(D,)` whether the detection is true."""
    objects: NDArray[np.int32]
    """`(G,)` the image of each object to find."""


@dataclass(frozen=True)
class RunMatches:
    """A run's detections, matched once with the annotated objects."""

    images: int
    """Annotated images, including failed ones and those without detections."""
    per_class: tuple[ClassMatches, ...]


def match_run(
    detections: Parts, manifest: Manifest, classes: tuple[str, ...], threshold: float = 0.5
) -> RunMatches:
    """Stream a run's parts and keep nine bytes and an image number per detection.

    Args:
        detections: an output of `detect`.
        manifest: the manifest from which it was made.
        classes: the manifest's classes; detections of other classes are ignored.
        threshold: the lowest IoU of a true detection.

    Raises:
        UnreadableDataset: the images differ, or a score or box is not finite.
    """
    matcher = _RunMatcher(classes, threshold)
    for batch in join_manifest(detections, manifest, ["detections"]):
        matcher.add(batch)
    return matcher.sort_by_class()


class _RunMatcher:
    """Collects the matches of one run, batch by batch."""

    def __init__(self, classes: tuple[str, ...], threshold: float) -> None:
        self.classes = classes
        self.threshold = threshold
        self.images = 0
        self.detection_images: list[NDArray[np.int32]] = []
        self.detection_classes: list[NDArray[np.int32]] = []
        self.scores: list[NDArray[np.float32]] = []
        self.hits: list[NDArray[np.bool_]] = []
        self.object_images: list[NDArray[np.int32]] = []
        self.object_classes: list[NDArray[np.int32]] = []

    def add(self, batch: JoinedBatch) -> None:
        is_labelled = find_labelled(batch)
        number = self.images + np.cumsum(is_labelled) - 1
        self.images += int(is_labelled.sum())
        detections = flatten_detections(batch.results.column("detections"), self.classes)
        detections = detections[(detections.class_id >= 0) & is_labelled[detections.image]]
        ground_truth = flatten_ground_truth(batch.manifest.column("objects"), self.classes)
        outcomes = match_detections(ground_truth, detections, self.threshold)
        is_counted = outcomes != IGNORED
        self.detection_images.append(number[detections.image[is_counted]].astype(np.int32))
        self.detection_classes.append(detections.class_id[is_counted].astype(np.int32))
        self.scores.append(detections.scores[is_counted])
        self.hits.append(outcomes[is_counted] == TRUE)
        is_object = ~(ground_truth.difficult | ground_truth.crowd)
        self.object_images.append(number[ground_truth.image[is_object]].astype(np.int32))
        self.object_classes.append(ground_truth.class_id[is_object].astype(np.int32))

    def sort_by_class(self) -> RunMatches:
        detection_classes = np.concatenate(self.detection_classes)
        object_classes = np.concatenate(self.object_classes)
        object_images = np.concatenate(self.object_images)
        # As in VocAveragePrecision: a stable sort, equal scores in the order of the manifest.
        order = np.lexsort((-np.concatenate(self.scores), detection_classes))
        ends = np.cumsum(np.bincount(detection_classes, minlength=len(self.classes)))[:-1]
        images = np.split(np.concatenate(self.detection_images)[order], ends)
        hits = np.split(np.concatenate(self.hits)[order], ends)
        return RunMatches(
            self.images,
            tuple(
                ClassMatches(class_images, class_hits, object_images[object_classes == k])
                for k, (class_images, class_hits) in enumerate(zip(images, hits, strict=True))
            ),
        )
