"""The shard work of an analysis run on Ray: one CPU task per shard."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import ray
from ray import ObjectRef

from pipeline import store_options
from pipeline.engine.analyze.match_shard import match_shard
from pipeline.engine.analyze.plan import AnalysisPlan, ShardSource
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.single_task_work import SingleTaskWork
from pipeline.engine.shards.work import Flight
from pipeline.errors import ShardFailed
from pipeline.runs.placement import ANYWHERE, Placement
from pipeline.runs.report import Failure, Report
from pipeline.shards import Shard


def make_match_work(
    plan: AnalysisPlan, sources: Mapping[int, ShardSource], placement: Placement = ANYWHERE
) -> SingleTaskWork:
    """The shard work of an analysis; a shard is never done image by image.

    Args:
        plan: put into the object store once.
        sources: the detections of each shard, by its ordinal.
        placement: which nodes may run the tasks.
    """
    reference = ray.put(plan)
    task = _match.options(**placement.build_options())

    def start_task(flight: Flight) -> ObjectRef[Report]:
        shard = flight.piece.shard
        report: ObjectRef[Report] = task.remote(reference, shard, sources[shard.ordinal])
        return report

    def reject_failed_row(piece: Piece, failure: Failure) -> pa.Table:
        raise ShardFailed(f"shard {piece.shard.ordinal} cannot be matched: {failure.message}")

    return SingleTaskWork("match", "matching on CPU", start_task, reject_failed_row, placement)


@ray.remote(num_cpus=1, max_retries=0)
def _match(plan: AnalysisPlan, shard: Shard, source: ShardSource) -> Report:
    store_options.set_options(plan.stores)
    report = match_shard(plan, shard, source)
    count_on_node(report, "match", report.images)
    return report
