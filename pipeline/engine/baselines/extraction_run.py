"""The extraction of features, or of SPPnet's maps, as a run over shards that resumes, on any store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from time import process_time
from typing import Any

import pyarrow as pa
import ray
from ray import ObjectRef

from pipeline import shards, storage, store_options, uris
from pipeline.engine import cluster
from pipeline.engine.baselines.extraction import (
    Content,
    ExtractionPlan,
    build_failed_part,
    extract_piece,
)
from pipeline.engine.baselines.plan import BaselinePlan
from pipeline.engine.baselines.stage_network import compute_network_digest
from pipeline.engine.baselines.task_device import TaskDevice
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.engine.shards.runner import run_shards
from pipeline.engine.shards.single_task_work import SingleTaskWork
from pipeline.engine.shards.work import Flight
from pipeline.run_record import RunRecord
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.options import RunOptions
from pipeline.runs.output import open_run
from pipeline.runs.report import Failure, Report
from pipeline.runs.start_totals import StartTotals
from pipeline.runs.summary import WorkDone, complete_run
from pipeline.shards import Parts


def run_extraction(
    plan: BaselinePlan,
    content: Content,
    options: RunOptions,
    maps: Parts | None = None,
    totals: StartTotals | None = None,
) -> tuple[Parts, Mapping[str, Any]]:
    """Extract what is not stored yet.

    Args:
        plan: the training.
        content: `features`, or `maps`; also the name of the folder in the output.
        options: `shard_size` images per part.
        maps: SPPnet's stored maps, for its features.
        totals: sums of all starts of the stage; None if this only opens what is stored.

    Returns:
        The stored parts, and figures of the stage over all its starts: images, windows and bytes.

    Raises:
        PipelineError: as `run_shards` raises it.
    """
    output = uris.join(plan.output, content)
    manifest = plan.dataset.manifest
    cut = shards.cut_manifest(manifest, options.shard_size or manifest.rows)
    digest = compute_network_digest(plan, content)
    record = RunRecord(content, describe_extraction(plan, cut.dataset, digest))
    ready = open_run(output, record, cut, options)
    extraction = ExtractionPlan(plan, content, output, record.fingerprint, digest, maps)

    def extract() -> WorkDone:
        cluster.await_core(options.no_capacity_after)
        on_commit = None if totals is None else partial(_add_report, totals)
        return run_shards(_build_work(extraction), content, ready, options, on_commit=on_commit)

    summary = complete_run(ready, options, extract, is_labelled=True)
    parts = Parts(output, ready.shards, record.fingerprint)
    sums = {} if totals is None else totals.compute()
    return parts, {
        "images": summary.images,
        "images_failed": summary.images_failed,
        "windows": int(sums.get("windows", 0)),
        "bytes": count_stored_bytes(parts),
        "bytes_read": int(sums.get("bytes_read", 0)),
        "cpu_seconds": round(sums.get("cpu_seconds", 0.0), 3),
    }


def _add_report(totals: StartTotals, report: Report) -> None:
    for name in ("windows", "bytes_read"):
        totals.add(name, report.counts[name])
    totals.add("cpu_seconds", sum(report.cpu_seconds.values()))


def count_stored_bytes(parts: Parts) -> int:
    """The bytes of all parts, as their store lists them."""
    sizes = storage.list_sizes(parts.uri)
    return sum(sizes.get(shard.part_name, 0) for shard in parts.shards)


def describe_extraction(plan: BaselinePlan, dataset: str, digest: str) -> dict[str, Any]:
    """What decides the stored values: the settings of the run."""
    excluded = plan.dataset.excluded
    left_out = {} if excluded is None else {"excluded": excluded.digest}
    return left_out | {
        "dataset": dataset,
        "proposals": plan.dataset.proposals.provenance,
        "system": plan.regions.to_json(),
        "architecture": plan.architecture.to_json(),
        "preprocessing": plan.preprocessing.to_json(),
        "weights": digest,
        "precision": plan.recipe.precision,
        "max_proposals": plan.recipe.max_proposals,
        "min_proposal_side": plan.recipe.min_proposal_side,
    }


def _build_work(plan: ExtractionPlan) -> SingleTaskWork:
    plan_reference = ray.put(plan)
    device = TaskDevice(plan.training.gpu)
    extract = device.build_task(_extract)

    def start_task(flight: Flight) -> ObjectRef[Report]:
        task: ObjectRef[Report] = extract.remote(
            plan_reference, flight.piece, flight.is_last_chance
        )
        return task

    def build_failed_row(piece: Piece, failure: Failure) -> pa.Table:
        (listed,) = piece.read_images(plan.training.dataset.manifest, plan.fingerprint)
        failed = EncodedImage(listed.image_id, listed.uri, failure=failure, key=listed.key)
        return build_failed_part(plan, failed)

    return SingleTaskWork(
        plan.content,
        f"{plan.content} on {'GPU' if device.gpu else 'CPU'}",
        start_task,
        build_failed_row,
        gpus=device.gpus,
    )


def _extract(plan: ExtractionPlan, piece: Piece, is_last_chance: bool) -> Report:
    began = process_time()
    store_options.set_options(plan.training.stores)
    report = Report()
    table = extract_piece(plan, piece, report, is_last_chance)
    count_on_node(report, plan.content, len(table))
    commit_or_return(piece, plan.output, table, report)
    report.add_cpu_seconds(plan.content, process_time() - began)
    return report
