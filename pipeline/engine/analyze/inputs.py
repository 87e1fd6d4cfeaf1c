"""What an analysis reads, opened and checked against each other before any work starts."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import run_record, schema, shards, uris
from pipeline.analysis.annotation_digest import digest_annotations
from pipeline.analysis.class_names import compare_classes, describe_federation
from pipeline.analysis.manifest_join import check_images, require_column
from pipeline.annotated_classes import NotAnnotated, list_annotated_classes
from pipeline.engine.analyze.plan import ShardSource
from pipeline.engine.analyze.source_parts import SourcePart, inspect_source_parts
from pipeline.errors import PipelineError, UnreadableDataset
from pipeline.manifests import Manifest, open_manifest
from pipeline.proposals.stored_proposals import StoredProposals, open_stored_proposals
from pipeline.run_record import RunRecord
from pipeline.shards import Cut, Parts, Shard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnalysisInputs:
    """The opened inputs of an analysis."""

    manifest: Manifest
    detections: Parts
    """The shards that are committed: all of them, unless the analysis is partial."""
    shards: tuple[Shard, ...]
    """All shards of the detection run."""
    sources: Mapping[int, SourcePart]
    """The parts of `detections`, by ordinal."""
    cut: Cut
    proposals: StoredProposals | None
    classes: tuple[str, ...]
    """The classes of the annotations, which are scored; without annotations, the checkpoint's."""
    other_classes: tuple[str, ...]
    """Those that only the checkpoint has."""
    states_classes: bool
    """Whether the detections state the checkpoint's classes: then no other label is right."""
    notes: tuple[str, ...]

    @property
    def left_out(self) -> frozenset[int]:
        """Ordinals of the shards that the detection run has not committed."""
        return frozenset(shard.ordinal for shard in self.shards) - self.sources.keys()

    def locate_sources(self) -> dict[int, ShardSource]:
        """Locate what each shard is matched from, by ordinal."""
        return {
            shard.ordinal: ShardSource(
                Parts(
                    self.detections.uri,
                    (shard,),
                    self.detections.fingerprint,
                    self.detections.thresholds,
                ),
                self.sources[shard.ordinal].digest,
                None
                if self.proposals is None
                else self.proposals.locate(shard.first_row, shard.rows),
            )
            for shard in self.detections.shards
        }

    def build_record(self) -> RunRecord:
        """Build the record of the run: all that decides its parts."""
        thresholds = self.detections.thresholds
        scored = (self.manifest, self.cut.images, self.classes)
        return RunRecord(
            "analyze",
            {
                "dataset": self.cut.dataset,
                "images": self.cut.images,
                "annotations": digest_annotations(*scored),
                "shards": _digest([shard.rows for shard in self.shards]),
                "detections": self.detections.fingerprint,
                "thresholds": thresholds and _digest(dict(thresholds.thresholds)),
                "proposals": self.proposals and self.proposals.provenance,
            },
            {
                "manifest": uris.redact_uri(self.manifest.uri),
                "detections": uris.redact_uri(self.detections.uri),
                "proposals": self.proposals and uris.redact_uri(self.proposals.parts.uri),
            },
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def open_inputs(
    detections_uri: str, manifest_uri: str, proposals_uri: str | None, *, partial: bool
) -> AnalysisInputs:
    """Open and check the inputs.

    Args:
        detections_uri: an output of `detect`.
        manifest_uri: the annotated manifest from which it was made.
        proposals_uri: stored proposals of the same images; None takes those that the detections were made
            from, if there are any and they can be read.
        partial: accept a detection run that is not finished.

    Raises:
        UnreadableDataset: detections or manifest cannot be read, are of different images, or have no class
            in common.
        MismatchedProposals: the proposals are of other images.
    """
    manifest = open_manifest(manifest_uri)
    parts = shards.open_parts(detections_uri, may_lack_shards=partial)
    detected = schema.read_classes(require_column(parts, "detections", "detect"), parts.uri)
    all_shards = tuple(shards.read_shard_table(parts.uri) or ())
    images = sum(shard.rows for shard in all_shards)
    if images > manifest.rows:
        raise UnreadableDataset(
            f"{uris.redact_uri(parts.uri)} has {images} images, the manifest "
            f"{uris.redact_uri(manifest.uri)} only {manifest.rows}: it was made from another manifest"
        )
    sources = inspect_source_parts(parts)
    classes, notes = _find_classes(manifest, images, detected)
    cut = shards.cut_manifest(manifest, [shard.rows for shard in all_shards], images)
    detection_record = run_record.read_record(parts.uri)
    _check_same_images(parts, manifest, cut, detection_record)
    if proposals_uri is None:
        proposals = _open_own_proposals(detection_record, manifest, images)
    else:
        proposals = open_stored_proposals(proposals_uri, manifest, images)
    return AnalysisInputs(
        manifest,
        parts,
        all_shards,
        sources,
        cut,
        proposals,
        classes,
        tuple(name for name in detected or () if name not in classes),
        detected is not None,
        notes,
    )


def _find_classes(
    manifest: Manifest, images: int, detected: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes that are scored, and notes about those of the other side."""
    try:
        classes = list_annotated_classes(manifest, images)
    except NotAnnotated:
        note = "the manifest has no annotated objects: the detections are counted, not scored"
        return tuple(detected or ()), (note,)
    notes = [] if detected is None else compare_classes(detected, classes)
    return classes, (*notes, *describe_federation(manifest))


def _check_same_images(
    parts: Parts, manifest: Manifest, cut: Cut, record: RunRecord | None
) -> None:
    """Compare the dataset's digest with that of the detection run; if it differs, compare all image_ids.

    The ids may be equal although the digests are not: images may have moved since.
    """
    if record is not None and record.settings.get("dataset") == cut.dataset:
        return
    for shard in parts.shards:
        results = parts.read(shard, ["image_id"])
        annotated = manifest.read(shard.first_row, shard.rows, ["image_id"])
        check_images(parts, manifest, shard.first_row, results, annotated)


def _open_own_proposals(
    record: RunRecord | None, manifest: Manifest, images: int
) -> StoredProposals | None:
    """Open the stored proposals that the detections were made from."""
    uri = None if record is None else record.inputs.get("proposals")
    if record is None or not isinstance(uri, str):
        return None
    stored = record.settings.get("proposals")
    try:
        proposals = open_stored_proposals(uri, manifest, images)
    except PipelineError as error:
        log.info("the proposals of the detections cannot be read: %s", error)
        return None
    if not isinstance(stored, Mapping) or stored != proposals.provenance:
        log.info("%s no longer holds the proposals of the detections", uris.redact_uri(uri))
        return None
    log.info("with the proposals of the detections, %s", uris.redact_uri(uri))
    return proposals
