"""Proposals against annotations: `proposal_recall(proposals, manifest) -> ProposalRecall`.

Difficult objects and crowds are left out, as the selective search paper does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import geometry, schema, shards
from pipeline.analysis import flat
from pipeline.analysis.classes import annotated_classes
from pipeline.analysis.coverage import coverage_notes, failure_reasons
from pipeline.analysis.joined import Step, check_holds, joined
from pipeline.analysis.overlap import (
    SIZES,
    GroupRecall,
    OverlapTally,
    RecallPoint,
    best_overlaps,
    size_groups,
)
from pipeline.manifests import Manifest, open_manifest


@dataclass(frozen=True)
class ProposalRecall:
    """What `analyze proposals` writes."""

    images: int
    manifest_images: int
    unlabelled: int
    failed: int
    failed_by_reason: dict[str, int]
    objects: int
    boxes: int
    boxes_mean: float | None
    """Boxes per image over images that did not fail."""
    boxes_median: float | None
    recall50: float | None
    """Over all boxes, as the three below."""
    recall70: float | None
    average_recall: float | None
    mabo: float | None
    curve: tuple[RecallPoint, ...]
    """Over all objects, one point for each of BUDGETS."""
    mabo_curve: tuple[float | None, ...]
    """MABO for each of BUDGETS."""
    per_class: tuple[GroupRecall, ...]
    per_size: tuple[GroupRecall, ...]
    """Three absolute sizes, then three relative to the image."""
    provenance: Any
    """What the parts say about the algorithm that made them."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def proposal_recall(proposals: shards.Parts | str, manifest: Manifest | str) -> ProposalRecall:
    """Score the proposals of a whole dataset against its annotations, one part at a time.

    Args:
        proposals: an output of `propose`, opened or its URI.
        manifest: the manifest it was made from, opened or its URI.

    Raises:
        UnreadableDataset: the manifest has no annotations, its images are not those of the
            proposals, or either cannot be read.
        StorageError: a store cannot be reached.
    """
    if isinstance(manifest, str):
        manifest = open_manifest(manifest)
    if isinstance(proposals, str):
        proposals = shards.open_parts(proposals)
    provenance = schema.metadata_value(check_holds(proposals, "boxes", "propose"), "provenance")
    classes = annotated_classes(manifest, min(manifest.rows, proposals.rows))
    scoring = _Scoring(classes)
    for step in joined(proposals, manifest, ["width", "height", "boxes", "status", "error_type"]):
        scoring.add(step)
    return scoring.result(manifest.rows, provenance)


class _Scoring:
    """The sums of one evaluation."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.by_class = OverlapTally(classes)
        self.by_size = OverlapTally(SIZES)
        self.counts: list[NDArray[np.int32]] = []
        self.reasons: Counter[str] = Counter()
        self.images = self.unlabelled = 0

    def add(self, step: Step) -> None:
        self.images += len(step.results)
        self.reasons.update(failure_reasons(step.results))
        self.unlabelled += step.manifest.column("objects").null_count
        proposals = schema.box_arrays(step.results.column("boxes"))
        done = np.array([status == "ok" for status in step.results.column("status").to_pylist()])
        counts = np.array([len(found) for found in proposals], np.int32)
        self.counts.append(counts[done])
        truth = flat.ground_truth(step.manifest.column("objects"), self.classes)
        counted = ~(truth.difficult | truth.crowd)
        areas = _image_areas(step)
        for image in np.unique(truth.image[counted]):
            of_image = counted & (truth.image == image)
            objects = truth.boxes[of_image]
            best = best_overlaps(objects, proposals[image])
            self.by_class.add(truth.class_id[of_image], best)
            absolute, relative = size_groups(geometry.area(objects), areas[image])
            self.by_size.add(absolute, best)
            self.by_size.add(relative, best)

    def result(self, manifest_images: int, provenance: Any) -> ProposalRecall:
        counts = np.concatenate([*self.counts, np.empty(0, np.int32)])
        curve = self.by_class.whole()
        mabo = self.by_class.mean_of_groups()
        return ProposalRecall(
            images=self.images,
            manifest_images=manifest_images,
            unlabelled=self.unlabelled,
            failed=self.reasons.total(),
            failed_by_reason=dict(sorted(self.reasons.items())),
            objects=int(self.by_class.objects.sum()),
            boxes=int(counts.sum()),
            boxes_mean=float(counts.mean()) if counts.size else None,
            boxes_median=float(np.median(counts)) if counts.size else None,
            recall50=curve[-1].recall50,
            recall70=curve[-1].recall70,
            average_recall=curve[-1].average_recall,
            mabo=mabo[-1],
            curve=curve,
            mabo_curve=mabo,
            per_class=self.by_class.groups(),
            per_size=self.by_size.groups(),
            provenance=provenance,
            notes=tuple(coverage_notes(self.images, manifest_images, self.unlabelled)),
        )


def _image_areas(step: Step) -> NDArray[np.float64]:
    """Pixels of each image, from the part or else the manifest; NaN where neither knows."""
    sides = []
    for name in ("width", "height"):
        known = pc.coalesce(step.results.column(name), step.manifest.column(name))
        sides.append(known.combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False))
    areas: NDArray[np.float64] = sides[0] * sides[1]
    return areas
