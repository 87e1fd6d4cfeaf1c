"""Detections against annotations: `evaluate(detections, manifest) -> Metrics`."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import schema, shards
from pipeline.analysis import flat
from pipeline.analysis.average_precision import VocAveragePrecision, VocScores
from pipeline.analysis.classes import annotated_classes, compare_classes
from pipeline.analysis.coco import CocoAveragePrecision, CocoScores
from pipeline.analysis.coverage import coverage_notes, failure_reasons
from pipeline.analysis.joined import Step, check_finite, check_holds, joined, labelled
from pipeline.manifests import Manifest, open_manifest


@dataclass(frozen=True)
class ClassMetrics:
    """One class; an AP is None where the class has no object that counts."""

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
class Metrics:
    """How well a dataset's objects were detected; means go over the classes that have objects."""

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
    """Images without annotations; they are not scored."""
    failed: int
    failed_by_reason: dict[str, int]
    """Failed images by `stage: error_type`."""
    objects: int
    detections: int
    per_class: tuple[ClassMetrics, ...]
    notes: tuple[str, ...]
    """What a reader of the numbers must know, one sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def evaluate(detections: shards.Parts | str, manifest: Manifest | str) -> Metrics:
    """Score the detections of a whole dataset against its annotations.

    Parts are read one at a time; what is kept is a few bytes per detection. Detections made with
    --limit cover the manifest's first images, and those are scored.

    Args:
        detections: an output of `detect`, opened or its URI.
        manifest: the manifest it was made from, opened or its URI.

    Raises:
        UnreadableDataset: the manifest has no annotations, its images are not those of the
            detections, no class is known to both, or either cannot be read.
        StorageError: a store cannot be reached.
    """
    if isinstance(manifest, str):
        manifest = open_manifest(manifest)
    if isinstance(detections, str):
        detections = shards.open_parts(detections)
    detected_classes = schema.metadata_value(
        check_holds(detections, "detections", "detect"), "classes"
    )
    classes = annotated_classes(manifest, min(manifest.rows, detections.rows))
    notes = [] if detected_classes is None else compare_classes(detected_classes, classes)
    scoring = _Scoring(classes, manifest)
    for step in joined(detections, manifest, ["status", "stage", "error_type", "detections"]):
        scoring.add(step)
    return scoring.metrics(notes)


class _Scoring:
    """The sums of one evaluation."""

    def __init__(self, classes: tuple[str, ...], manifest: Manifest) -> None:
        self.classes = classes
        self.manifest = manifest
        self.voc = VocAveragePrecision(len(classes))
        self.coco = CocoAveragePrecision(classes)
        self.images = self.unlabelled = self.detections = 0
        self.reasons: Counter[str] = Counter()

    def add(self, step: Step) -> None:
        self.images += len(step.results)
        self.reasons.update(failure_reasons(step.results))
        found = flat.detections(step.results.column("detections"), self.classes)
        self.detections += len(found.scores)
        check_finite(found, step)
        truth = flat.ground_truth(step.manifest.column("objects"), self.classes)
        known = labelled(step)
        self.unlabelled += int((~known).sum())
        scored = found[(found.class_id >= 0) & known[found.image]]
        self.voc.update(truth, scored)
        self.coco.update(range(step.first_row, step.first_row + len(step.results)), truth, scored)

    def metrics(self, notes: list[str]) -> Metrics:
        voc, coco = self.voc.result(), self.coco.result()
        return Metrics(
            voc07_map50=_defined(_mean(voc.eleven_point)),
            voc_map50=_defined(_mean(voc.area)),
            coco_ap=_defined(coco.ap),
            coco_ap50=_defined(coco.ap50),
            coco_ap75=_defined(coco.ap75),
            coco_ap_small=_defined(coco.small),
            coco_ap_medium=_defined(coco.medium),
            coco_ap_large=_defined(coco.large),
            images=self.images,
            manifest_images=self.manifest.rows,
            unlabelled=self.unlabelled,
            failed=self.reasons.total(),
            failed_by_reason=dict(sorted(self.reasons.items())),
            objects=int(voc.objects.sum()),
            detections=self.detections,
            per_class=self._per_class(voc, coco),
            notes=(*notes, *coverage_notes(self.images, self.manifest.rows, self.unlabelled)),
        )

    def _per_class(self, voc: VocScores, coco: CocoScores) -> tuple[ClassMetrics, ...]:
        return tuple(
            ClassMetrics(
                label,
                int(voc.objects[k]),
                int(voc.detections[k]),
                _defined(voc.eleven_point[k]),
                _defined(voc.area[k]),
                _defined(coco.per_class[k]),
            )
            for k, label in enumerate(self.classes)
        )


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
