"""Exports detections or annotations: the run, from its options to the files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import storage, uris
from pipeline.analysis.score_thresholds import ScoreThresholds
from pipeline.engine import cluster
from pipeline.engine.export.dataset import (
    check_label_names,
    cut_export,
    digest_manifest,
    digest_parts,
    measure_parts,
    number_manifest,
    read_facts,
)
from pipeline.engine.export.output import ExportOutput, list_written, open_export
from pipeline.engine.export.work import ExportPlan, make_export_work
from pipeline.engine.shards.runner import run_shards
from pipeline.errors import InvalidConfiguration
from pipeline.exports.assembly import ExportCounts, assemble_files
from pipeline.exports.box_selection import BoxSelection
from pipeline.exports.coco_ids import slice_numbers
from pipeline.exports.construction import DatasetFacts, FormatName, build_format
from pipeline.exports.export_format import ExportFormat
from pipeline.exports.shard_export import ShardExport
from pipeline.manifests import Manifest, open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.input_places import check_apart, resolve_place
from pipeline.runs.options import RunOptions
from pipeline.runs.output import open_run
from pipeline.runs.placement import ANYWHERE, Placement
from pipeline.runs.summary import WorkDone, complete_run
from pipeline.shards import Cut, Parts, open_parts

VERSION = 1
"""Version of the files' content: raised when the same input gives other files."""
MOST_IMAGES_HERE = 20_000
MOST_BYTES_HERE = 16 << 20
"""Of the parts. Up to both limits an export is done in this process: that takes seconds, as Ray's start does,
and a few hundred megabytes."""


@dataclass(frozen=True)
class ExportSettings:
    """What decides the content of an export, beside its inputs."""

    format: FormatName
    min_score: float = 0.0
    labels: tuple[str, ...] = ()
    thresholds: ScoreThresholds | None = None
    as_annotations: bool = False
    image_prefix: str | None = None


@dataclass(frozen=True)
class ExportResult:
    """A complete export."""

    counts: ExportCounts
    facts: DatasetFacts
    was_complete: bool
    """An earlier run had completed it; nothing was written."""


@dataclass(frozen=True)
class _Inputs:
    """What an export reads, and how it selects and writes it; opened and checked."""

    manifest: Manifest
    parts: Parts | None
    facts: DatasetFacts
    cut: Cut
    selection: BoxSelection
    file_format: ExportFormat


def run_export(
    settings: ExportSettings,
    manifest_uri: str,
    output_uri: str,
    detections_uri: str | None = None,
    *,
    overwrite: bool = False,
    placement: Placement = ANYWHERE,
    no_capacity_after: float = 300.0,
    most_images_here: int = MOST_IMAGES_HERE,
) -> ExportResult:
    """Write detections, or a manifest's annotations, in another tool's format.

    Args:
        settings: format and selection.
        manifest_uri: the images.
        output_uri: a folder; a rerun into it does what is left.
        detections_uri: an output of `detect` over these images; None exports the manifest itself.
        overwrite: remove an earlier export from the output and start again.
        placement: which nodes may run Ray tasks.
        no_capacity_after: seconds to wait for a free core of the cluster.
        most_images_here: more images are exported in Ray tasks.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    target = uris.make_absolute(output_uri)
    inputs = _open_inputs(settings, manifest_uri, detections_uri, target)
    storage.check_writable(target)
    record = _build_record(settings, inputs)
    output = open_export(target, record, overwrite=overwrite)
    earlier = output.read_complete()
    if earlier is not None:
        output.remove_parts()
        return ExportResult(earlier, inputs.facts, was_complete=True)
    numbers = number_manifest(inputs.manifest) if settings.format == "coco" else None
    export = ShardExport(
        inputs.manifest,
        inputs.parts,
        inputs.selection,
        inputs.file_format,
        target,
        record.fingerprint,
    )
    if _is_small(inputs, most_images_here):
        counts = _export_here(export, inputs.cut, numbers)
    else:
        options = RunOptions(overwrite=overwrite, no_capacity_after=no_capacity_after)
        counts = _export_in_tasks(
            export, output, inputs.cut, numbers, options=options, placement=placement
        )
    output.finish(counts)
    return ExportResult(counts, inputs.facts, was_complete=False)


def _open_inputs(
    settings: ExportSettings, manifest_uri: str, detections_uri: str | None, target: str
) -> _Inputs:
    """Open and check what `run_export` reads; nothing is written.

    Raises:
        PipelineError: as `run_export`.
    """
    manifest = open_manifest(manifest_uri)
    parts = None if detections_uri is None else open_parts(detections_uri)
    places = {"manifest": manifest.uri, "detections": detections_uri}
    check_apart(target, places, list_written(settings.format))
    if parts is None and (settings.min_score or settings.thresholds):
        raise InvalidConfiguration(
            "--min-score and --thresholds select --detections: pass these too"
        )
    facts = read_facts(manifest, parts)
    selection = BoxSelection(
        facts.classes, settings.labels, settings.min_score, settings.thresholds
    )
    file_format = build_format(
        settings.format, facts, settings.as_annotations, settings.image_prefix
    )
    _check_images_apart(settings.format, facts.root, target)
    cut = cut_export(manifest, parts)
    if settings.format == "yolo":
        check_label_names(manifest, facts.root, cut.images)
    return _Inputs(manifest, parts, facts, cut, selection, file_format)


def _is_small(inputs: _Inputs, most_images: int) -> bool:
    """Whether the export is done in this process."""
    size = 0 if inputs.parts is None else measure_parts(inputs.parts)
    return inputs.cut.images <= most_images and size <= MOST_BYTES_HERE


def _check_images_apart(name: FormatName, root: str | None, target: str) -> None:
    """Reject an export beside the original annotations, which have the same names.

    Raises:
        InvalidConfiguration: the images are below the output.
    """
    if name in ("voc", "yolo") and root is not None:
        place, output = resolve_place(root).rstrip("/") + "/", resolve_place(target).rstrip("/")
        if place.startswith(f"{output}/"):
            raise InvalidConfiguration(
                f"--output {uris.redact_uri(target)} holds the images of the manifest, so perhaps their "
                "annotations too: choose another folder"
            )


def _build_record(settings: ExportSettings, inputs: _Inputs) -> RunRecord:
    manifest, parts = inputs.manifest, inputs.parts
    detections = parts and {"fingerprint": parts.fingerprint, "parts": digest_parts(parts)}
    return RunRecord(
        "export",
        {
            **_describe_settings(settings),
            "labels": sorted(settings.labels),
            "version": VERSION,
            "dataset": inputs.cut.dataset,
            "images": inputs.cut.images,
            "manifest": digest_manifest(manifest),
            "detections": detections,
        },
        {
            "manifest": uris.redact_uri(manifest.uri),
            "detections": parts and uris.redact_uri(parts.uri),
        },
    )


def _describe_settings(settings: ExportSettings) -> dict[str, object]:
    """The settings in the record; one that is not set is left out, so that older exports stay complete."""
    described = asdict(settings)
    if settings.image_prefix is None:
        del described["image_prefix"]
    return described


def _export_here(export: ShardExport, cut: Cut, numbers: NDArray[np.int64] | None) -> ExportCounts:
    """Export all shards in this process."""
    tables = [
        export.export(shard, slice_numbers(numbers, shard))
        for shard in cut.build_shards(export.fingerprint)
    ]

    def read_tables(columns: list[str]) -> Iterator[pa.Table]:
        return (table.select(columns) for table in tables)

    return assemble_files(export.output, export.file_format, read_tables)


def _export_in_tasks(
    export: ShardExport,
    output: ExportOutput,
    cut: Cut,
    numbers: NDArray[np.int64] | None,
    *,
    options: RunOptions,
    placement: Placement,
) -> ExportCounts:
    """Export the shards that are left in Ray tasks."""
    cluster.check_ray_address()
    may_grow = not cluster.is_local()
    ready = open_run(output.parts_uri, output.record, cut, options, logs_output=output.uri)

    def export_shards() -> WorkDone:
        need, patience = placement.build_need(CPU=1.0), options.no_capacity_after
        cluster.check_needs([need], patience, may_grow=may_grow)
        cluster.await_core(patience, placement)
        work = make_export_work(ExportPlan(export, output.parts_uri), numbers, placement)
        return run_shards(work, "export", ready, options)

    with cluster.connect_to_cluster():
        complete_run(ready, options, export_shards)
    parts = Parts(output.parts_uri, ready.shards, output.record.fingerprint)
    return assemble_files(export.output, export.file_format, parts.read_tables)
