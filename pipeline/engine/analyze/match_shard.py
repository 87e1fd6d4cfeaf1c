"""One shard of an analysis run: read detections and annotations, match them, commit the part."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from pipeline import schema, shards, uris
from pipeline.analysis.image_counts import count_images
from pipeline.analysis.manifest_join import JoinedBatch, check_images, list_federated_columns
from pipeline.analysis.match_table import build_matches, list_labels
from pipeline.engine.analyze.plan import AnalysisPlan, ShardSource
from pipeline.engine.analyze.source_parts import SOURCE
from pipeline.errors import UnreadableDataset
from pipeline.image_members import read_members
from pipeline.runs.report import Report
from pipeline.shards import Parts, Shard, compute_shard_key, digest_images

IMAGES = "images"
"""Key of the metadata that counts the shard's images, unlabelled ones and failures."""
RESULT_COLUMNS = ("image_id", "status", "stage", "error_type", "detections")
MANIFEST_COLUMNS = ("image_id", "uri", "width", "height", "objects")


def match_shard(plan: AnalysisPlan, shard: Shard, source: ShardSource) -> Report:
    """Match the detections of a shard and put the part.

    Raises:
        UnreadableDataset: detections or annotations cannot be read, or are of different images.
        StorageError: a store fails.
    """
    report = Report(images=shard.rows)
    with report.time_stage("read"):
        batch = _read_batch(plan, shard, source)
        proposals = None
        if source.proposals is not None:
            proposals = schema.split_box_column(source.proposals.read_table().column("boxes"))
    with report.time_stage("match"):
        table = build_matches(batch, plan.classes, shard.ordinal, proposals)
    metadata = {
        "fingerprint": plan.fingerprint,
        SOURCE: source.digest,
        IMAGES: count_images(batch).to_json(),
    }
    table = table.cast(schema.add_metadata(table.schema, metadata))
    with report.time_stage("commit"):
        size = shards.put_part(plan.output, shard, table, one_row_per_image=False)
    report.counts = Counter(bytes=size, rows=len(table))
    return report


def _read_batch(plan: AnalysisPlan, shard: Shard, source: ShardSource) -> JoinedBatch:
    parts = source.detections
    results = parts.read(parts.shards[0], RESULT_COLUMNS)
    federated = list_federated_columns(plan.manifest)
    columns = dict.fromkeys((*MANIFEST_COLUMNS, *federated, *plan.manifest.image_columns))
    annotated = plan.manifest.read(shard.first_row, shard.rows, list(columns))
    _check_key(plan, shard, annotated)
    check_images(parts, plan.manifest, shard.first_row, results, annotated)
    _check_labels(plan, parts, results)
    return JoinedBatch(shard.first_row, results, annotated)


def _check_labels(plan: AnalysisPlan, parts: Parts, results: pa.Table) -> None:
    """Reject a part with a detection of a class that the run does not have."""
    if not plan.has_all_classes:
        return
    foreign = set(list_labels(results.column("detections"))).difference(plan.classes)
    if foreign:
        part = uris.redact_uri(uris.join(parts.uri, parts.shards[0].part_name))
        raise UnreadableDataset(
            f"{part} has a detection of class {min(foreign)!r:.100}, which is not among the run's classes "
            f"({', '.join(plan.classes):.200}): the part was changed; remove it and run detect again"
        )


def _check_key(plan: AnalysisPlan, shard: Shard, annotated: pa.Table) -> None:
    image_ids, image_uris = (annotated.column(name).to_pylist() for name in ("image_id", "uri"))
    members = read_members(annotated, plan.manifest.uri, shard.first_row)
    digest = digest_images(image_ids, image_uris, members)
    if compute_shard_key(plan.fingerprint, digest) != shard.key:
        raise UnreadableDataset(
            f"{uris.redact_uri(plan.manifest.uri)}: rows from {shard.first_row} changed "
            "while the run was working"
        )
