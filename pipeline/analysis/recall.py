"""Scores proposals against annotations: `evaluate_proposals(proposals, manifest) -> ProposalRecall`.

Difficult objects and crowds are left out, as in the selective search paper.
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
from pipeline.analysis.detection_arrays import flatten_ground_truth
from pipeline.analysis.image_coverage import (
    describe_coverage,
    describe_mismatches,
    list_failure_reasons,
)
from pipeline.analysis.manifest_join import JoinedBatch, join_manifest, require_column
from pipeline.analysis.overlap import (
    SIZES,
    GroupRecall,
    OverlapSums,
    RecallPoint,
    assign_size_groups,
    compute_best_overlaps,
)
from pipeline.annotated_classes import list_annotated_classes
from pipeline.manifests import Manifest, open_manifest


@dataclass(frozen=True)
class ProposalRecall:
    """The scores that `analyze proposals` writes."""

    images: int
    manifest_images: int
    unlabelled: int
    failed: int
    failed_by_reason: dict[str, int]
    objects: int
    boxes: int
    boxes_mean: float | None
    """Boxes per image, over the images that did not fail."""
    boxes_median: float | None
    recall50: float | None
    """Over all boxes, like the three below."""
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
    """How the proposals were made, from the parts' metadata."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def evaluate_proposals(proposals: shards.Parts | str, manifest: Manifest | str) -> ProposalRecall:
    """Score the proposals of a whole dataset against its annotations, one part at a time.

    Args:
        proposals: an output of `propose`, opened or its URI.
        manifest: the manifest from which it was made, opened or its URI.

    Raises:
        UnreadableDataset: the manifest has no annotations, its images are not those of the
            proposals, or either cannot be read.
        StorageError: a store cannot be reached.
    """
    if isinstance(manifest, str):
        manifest = open_manifest(manifest)
    if isinstance(proposals, str):
        proposals = shards.open_parts(proposals)
    provenance = schema.read_metadata(require_column(proposals, "boxes", "propose"), "provenance")
    classes = list_annotated_classes(manifest, min(manifest.rows, proposals.rows))
    scorer = _ProposalScorer(classes)
    columns = ["width", "height", "boxes", "status", "error_type"]
    for batch in join_manifest(proposals, manifest, columns):
        scorer.add(batch)
    return scorer.compute(manifest.rows, provenance)


class _ProposalScorer:
    """Accumulates the scores of one evaluation."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.by_class = OverlapSums(classes)
        self.by_size = OverlapSums(SIZES)
        self.box_counts: list[NDArray[np.int32]] = []
        self.reasons: Counter[str] = Counter()
        self.images = self.unlabelled = 0

    def add(self, batch: JoinedBatch) -> None:
        self.images += len(batch.results)
        self.reasons.update(list_failure_reasons(batch.results))
        self.unlabelled += batch.manifest.column("objects").null_count
        proposals = schema.split_box_column(batch.results.column("boxes"))
        is_ok = np.array([status == "ok" for status in batch.results.column("status").to_pylist()])
        box_counts = np.array([len(boxes) for boxes in proposals], np.int32)
        self.box_counts.append(box_counts[is_ok])
        ground_truth = flatten_ground_truth(batch.manifest.column("objects"), self.classes)
        is_object = ~(ground_truth.difficult | ground_truth.crowd)
        areas = _measure_images(batch)
        for image in np.unique(ground_truth.image[is_object]):
            is_in_image = is_object & (ground_truth.image == image)
            objects = ground_truth.boxes[is_in_image]
            overlaps = compute_best_overlaps(objects, proposals[image])
            self.by_class.add(ground_truth.class_id[is_in_image], overlaps)
            absolute, relative = assign_size_groups(geometry.area(objects), areas[image])
            self.by_size.add(absolute, overlaps)
            self.by_size.add(relative, overlaps)

    def compute(self, manifest_images: int, provenance: Any) -> ProposalRecall:
        box_counts = np.concatenate([*self.box_counts, np.empty(0, np.int32)])
        curve = self.by_class.summarize_all()
        mabo = self.by_class.average_groups()
        return ProposalRecall(
            images=self.images,
            manifest_images=manifest_images,
            unlabelled=self.unlabelled,
            failed=self.reasons.total(),
            failed_by_reason=dict(sorted(self.reasons.items())),
            objects=int(self.by_class.objects.sum()),
            boxes=int(box_counts.sum()),
            boxes_mean=float(box_counts.mean()) if box_counts.size else None,
            boxes_median=float(np.median(box_counts)) if box_counts.size else None,
            recall50=curve[-1].recall50,
            recall70=curve[-1].recall70,
            average_recall=curve[-1].average_recall,
            mabo=mabo[-1],
            curve=curve,
            mabo_curve=mabo,
            per_class=self.by_class.summarize_groups(),
            per_size=self.by_size.summarize_groups(),
            provenance=provenance,
            notes=(
                *describe_coverage(self.images, manifest_images, self.unlabelled),
                *describe_mismatches(self.reasons),
            ),
        )


def _measure_images(batch: JoinedBatch) -> NDArray[np.float64]:
    """Return the pixels of each image from the part, else from the manifest, else NaN."""
    image_sides = []
    for name in ("width", "height"):
        sides = pc.coalesce(batch.results.column(name), batch.manifest.column(name))
        image_sides.append(sides.combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False))
    areas: NDArray[np.float64] = image_sides[0] * image_sides[1]
    return areas
