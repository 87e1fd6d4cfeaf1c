"""The tasks of an export: each exports a shard and commits its texts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray import ObjectRef

from pipeline import store_options
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.engine.shards.single_task_work import SingleTaskWork
from pipeline.engine.shards.work import Flight
from pipeline.exports.coco_ids import slice_numbers
from pipeline.exports.image_batch import LeftOutImage
from pipeline.exports.shard_export import BOXES, ShardExport
from pipeline.runs.placement import ANYWHERE, Placement
from pipeline.runs.report import Failure, Report
from pipeline.store_options import StoreOptions


@dataclass(frozen=True)
class ExportPlan:
    """An export as its tasks see it."""

    shard_export: ShardExport
    parts_uri: str
    stores: StoreOptions = field(default_factory=store_options.get_options)
    """Options of the stores, for the workers."""


@ray.remote(num_cpus=1, max_retries=0)
def export_piece(plan: ExportPlan, piece: Piece, numbers: NDArray[np.int64] | None) -> Report:
    """Export a shard and commit its texts; of a single image, return the texts."""
    store_options.set_options(plan.stores)
    report = Report()
    with report.time_stage("export"):
        table = plan.shard_export.export(piece.shard, numbers)
    if piece.row is not None:
        table = table.slice(piece.row, 1)
    report.counts["boxes"] = sum(table.column(BOXES).to_pylist())
    count_on_node(report, "export", len(table))
    return commit_or_return(piece, plan.parts_uri, table, report)


def make_export_work(
    plan: ExportPlan, numbers: NDArray[np.int64] | None, placement: Placement = ANYWHERE
) -> SingleTaskWork:
    """The shard work of an export.

    Args:
        plan: put into the object store once.
        numbers: COCO's ids of all images; each task receives those of its shard.
        placement: which nodes may run the tasks.
    """
    reference = ray.put(plan)
    task = export_piece.options(**placement.build_options())

    def start_task(flight: Flight) -> ObjectRef[Report]:
        of_shard = slice_numbers(numbers, flight.piece.shard)
        report: ObjectRef[Report] = task.remote(reference, flight.piece, of_shard)
        return report

    def build_failed_row(piece: Piece, failure: Failure) -> pa.Table:
        export = plan.shard_export
        (listed,) = piece.read_images(export.manifest, export.fingerprint)
        return export.build_left_out_row(
            LeftOutImage(listed.image_id, failure.stage, failure.error_type, failure.message)
        )

    return SingleTaskWork("export", "export on CPU", start_task, build_failed_row, placement)
