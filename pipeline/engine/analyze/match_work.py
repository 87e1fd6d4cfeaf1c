"""The shard work of an analysis run on Ray: one CPU task per shard."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import ray
from ray import ObjectRef

from pipeline import store_options
from pipeline.engine.analyze.match_shard import match_shard
from pipeline.engine.analyze.plan import AnalysisPlan, ShardSource
from pipeline.engine.capacity import Capacity
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.work import Flight
from pipeline.errors import ShardFailed
from pipeline.runs.placement import ANYWHERE, Need, Placement
from pipeline.runs.report import Failure, Report
from pipeline.shards import Shard


class MatchWork:
    """Shard work of one stage; a shard is never done image by image."""

    def __init__(
        self,
        plan: AnalysisPlan,
        sources: Mapping[int, ShardSource],
        placement: Placement = ANYWHERE,
    ) -> None:
        self._plan_reference = ray.put(plan)
        self._sources = sources
        self._placement = placement

    def follow(self, capacity: Capacity, queued: int) -> None:
        """Do nothing: Ray sends tasks to new nodes by itself."""

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        """Whether there are fewer than two shards per core: one at work, one waiting."""
        return len(flights) < 2 * capacity.count_tasks(self._placement)

    def measure_flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        """The load of the one stage."""
        cores = capacity.count_tasks(self._placement)
        busy = min(len(flights), cores)
        return FlowState([StageLoad("match", "matching on CPU", cores, busy, len(flights) - busy)])

    def list_needs(self) -> Sequence[Need]:
        """A core, where the placement allows it."""
        return [self._placement.build_need(CPU=1.0)]

    def start(self, flight: Flight) -> ObjectRef[Report]:
        """Start the one task of a shard."""
        flight.stage = "match"
        shard = flight.piece.shard
        task = _match.options(**self._placement.build_options())
        return task.remote(self._plan_reference, shard, self._sources[shard.ordinal])

    def start_next_stage(self, flight: Flight) -> None:
        """Return None: there is no second stage."""

    def clean_up(self, flight: Flight, error: Exception) -> bool:  # noqa: ARG002
        """Return True: a task works on its own shard only."""
        return True

    def build_failed_row(self, piece: Piece, failure: Failure) -> pa.Table:
        """Reject: matches have no failed rows.

        Raises:
            ShardFailed: always.
        """
        raise ShardFailed(f"shard {piece.shard.ordinal} cannot be matched: {failure.message}")


@ray.remote(num_cpus=1, max_retries=0)
def _match(plan: AnalysisPlan, shard: Shard, source: ShardSource) -> Report:
    store_options.set_options(plan.stores)
    report = match_shard(plan, shard, source)
    count_on_node(report, "match", report.images)
    return report
