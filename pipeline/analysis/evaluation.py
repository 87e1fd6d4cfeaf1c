"""Scores detections against annotations: `evaluate(detections, manifest) -> DetectionMetrics`.

All numbers come from the matches of `matching` and from the ranking of each class in `ranked_classes`. The
job `analyze detections` computes the same numbers from stored matches, on a cluster if need be.
"""

from __future__ import annotations

from dataclasses import replace

import pyarrow.compute as pc

from pipeline import schema, shards
from pipeline.analysis.class_names import compare_classes, describe_federation
from pipeline.analysis.detection_metrics import DetectionMetrics
from pipeline.analysis.image_counts import ImageCounts, add_image_counts, count_images
from pipeline.analysis.manifest_join import JoinedBatch, join_manifest, require_column
from pipeline.analysis.match_sums import MatchSums, add_sums, select_ranking_rows, sum_matches
from pipeline.analysis.match_table import match_batch
from pipeline.analysis.metric_summary import summarize_detections
from pipeline.analysis.ranked_classes import rank_classes
from pipeline.analysis.ranking import RankingRows, concatenate_rows
from pipeline.annotated_classes import list_annotated_classes
from pipeline.manifests import Manifest, open_manifest

IMAGES_PER_BATCH = 1024
"""Images that are matched together; their matches take about 150 bytes per detection."""


def evaluate(detections: shards.Parts | str, manifest: Manifest | str) -> DetectionMetrics:
    """Score the detections of a whole dataset against its annotations.

    Parts are read one at a time, and 24 bytes per detection are kept. Detections made with --limit
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
    detected_classes = schema.read_classes(
        require_column(detections, "detections", "detect"), detections.uri
    )
    classes = list_annotated_classes(manifest, min(manifest.rows, detections.rows))
    notes = [] if detected_classes is None else compare_classes(detected_classes, classes)
    notes += describe_federation(manifest)
    scorer = _DetectionScorer(classes)
    columns = ["status", "stage", "error_type", "detections"]
    for batch in join_manifest(detections, manifest, columns, images=IMAGES_PER_BATCH):
        scorer.add(batch)
    return scorer.compute(manifest.rows, notes)


class _DetectionScorer:
    """Accumulates the matches of one evaluation."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.detections = 0
        self.images: list[ImageCounts] = []
        self.sums: list[MatchSums] = []
        self.rows: list[RankingRows] = []

    def add(self, batch: JoinedBatch) -> None:
        matches = match_batch(batch, self.classes)
        rows = select_ranking_rows(matches, len(self.classes))
        lengths = pc.list_value_length(batch.results.column("detections"))
        self.detections += pc.sum(lengths, min_count=0).as_py()
        self.images.append(count_images(batch))
        self.sums.append(sum_matches(matches, rows, len(self.classes)))
        self.rows.append(rows)

    def compute(self, manifest_images: int, notes: list[str]) -> DetectionMetrics:
        sums = add_sums(self.sums, len(self.classes))
        precision = rank_classes(concatenate_rows(self.rows), sums.objects)
        return summarize_detections(
            self.classes,
            add_image_counts(self.images),
            manifest_images,
            replace(sums, detections=self.detections),  # with those of other classes
            precision,
            notes=notes,
        )
