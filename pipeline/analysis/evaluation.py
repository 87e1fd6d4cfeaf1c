"""Scores detections against annotations: `evaluate(detections, manifest) -> DetectionMetrics`.

A new metric has a module of its own, like `coco`; the scorer here feeds it, and `console_tables` prints it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import schema, shards
from pipeline.analysis.average_precision import VocAveragePrecision, VocScores
from pipeline.analysis.class_names import compare_classes
from pipeline.analysis.coco import CocoAveragePrecision, CocoScores
from pipeline.analysis.detection_arrays import flatten_detections, flatten_ground_truth
from pipeline.analysis.image_coverage import (
    describe_coverage,
    describe_mismatches,
    list_failure_reasons,
)
from pipeline.analysis.manifest_join import (
    JoinedBatch,
    find_labelled,
    join_manifest,
    require_column,
)
from pipeline.annotated_classes import list_annotated_classes
from pipeline.manifests import Manifest, open_manifest


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

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def evaluate(detections: shards.Parts | str, manifest: Manifest | str) -> DetectionMetrics:
    """Score the detections of a whole dataset against its annotations.

    Parts are read one at a time, and a few bytes per detection are kept. Detections made with --limit
    cover the manifest's first images; only those are scored.

    Args:
        detections: an output of `detect`, opened or its URI.
        manifest: the manifest from which it was made, opened or its URI.

    Raises:
        UnreadableDataset: the manifest has no annotations, its images are not those of the
            detections, the two have no class in common, or either cannot be read.
        StorageError: a store cannot be reached.
    """
    if isinstance(manifest, str):
        manifest = open_manifest(manifest)
    if isinstance(detections, str):
        detections = shards.open_parts(detections)
    detected_classes = schema.read_metadata(
        require_column(detections, "detections", "detect"), "classes"
    )
    classes = list_annotated_classes(manifest, min(manifest.rows, detections.rows))
    notes = [] if detected_classes is None else compare_classes(detected_classes, classes)
    scorer = _DetectionScorer(classes, manifest)
    columns = ["status", "stage", "error_type", "detections"]
    for batch in join_manifest(detections, manifest, columns):
        scorer.add(batch)
    return scorer.compute(notes)


class _DetectionScorer:
    """Accumulates the scores of one evaluation."""

    def __init__(self, classes: tuple[str, ...], manifest: Manifest) -> None:
        self.classes = classes
        self.manifest = manifest
        self.voc = VocAveragePrecision(len(classes))
        self.coco = CocoAveragePrecision(classes)
        self.images = self.unlabelled = self.detections = 0
        self.reasons: Counter[str] = Counter()

    def add(self, batch: JoinedBatch) -> None:
        self.images += len(batch.results)
        self.reasons.update(list_failure_reasons(batch.results))
        detections = flatten_detections(batch.results.column("detections"), self.classes)
        self.detections += len(detections.scores)
        ground_truth = flatten_ground_truth(batch.manifest.column("objects"), self.classes)
        is_labelled = find_labelled(batch)
        self.unlabelled += int((~is_labelled).sum())
        detections = detections[(detections.class_id >= 0) & is_labelled[detections.image]]
        numbers = range(batch.first_row, batch.first_row + len(batch.results))
        self.voc.update(ground_truth, detections)
        self.coco.update(numbers, ground_truth, detections)

    def compute(self, notes: list[str]) -> DetectionMetrics:
        voc, coco = self.voc.compute(), self.coco.compute()
        return DetectionMetrics(
            voc07_map50=_nan_to_none(_average_without_nan(voc.eleven_point)),
            voc_map50=_nan_to_none(_average_without_nan(voc.area)),
            coco_ap=_nan_to_none(coco.ap),
            coco_ap50=_nan_to_none(coco.ap50),
            coco_ap75=_nan_to_none(coco.ap75),
            coco_ap_small=_nan_to_none(coco.small),
            coco_ap_medium=_nan_to_none(coco.medium),
            coco_ap_large=_nan_to_none(coco.large),
            images=self.images,
            manifest_images=self.manifest.rows,
            unlabelled=self.unlabelled,
            failed=self.reasons.total(),
            failed_by_reason=dict(sorted(self.reasons.items())),
            objects=int(voc.objects.sum()),
            detections=self.detections,
            per_class=self._score_classes(voc, coco),
            notes=(
                *notes,
                *describe_coverage(self.images, self.manifest.rows, self.unlabelled),
                *describe_mismatches(self.reasons),
            ),
        )

    def _score_classes(self, voc: VocScores, coco: CocoScores) -> tuple[ClassMetrics, ...]:
        return tuple(
            ClassMetrics(
                label,
                int(voc.objects[k]),
                int(voc.detections[k]),
                _nan_to_none(voc.eleven_point[k]),
                _nan_to_none(voc.area[k]),
                _nan_to_none(coco.per_class[k]),
            )
            for k, label in enumerate(self.classes)
        )


def _average_without_nan(values: NDArray[np.float64]) -> float:
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if numbers.size else float("nan")


def _nan_to_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
