"""The shard work of a proposals run: one CPU task per piece reads, proposes and commits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from time import process_time

import pyarrow as pa
import ray
from ray import ObjectRef

from pipeline import store_options
from pipeline.engine.capacity import Capacity
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.propose.memory import find_memory_limit
from pipeline.engine.propose.plan import ProposalPlan
from pipeline.engine.propose.proposing import read_and_propose
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.engine.shards.work import Flight
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.placement import Need
from pipeline.runs.report import Failure, Report
from pipeline.runs.reusable_rows import ReusableRows
from pipeline.runs.reuse import ReusePlan
from pipeline.runs.tables import build_proposals_table


class ProposalWork:
    """Shard work of one stage: a task that commits its own part."""

    def __init__(self, plan: ProposalPlan, reuse: ReusePlan | None = None) -> None:
        """Prepare the work; `reuse` says which rows of an earlier output may be taken over."""
        self.plan = plan
        self._reuse = reuse
        self._plan_reference = ray.put(plan)
        self._placement = plan.options.placement

    def follow(self, capacity: Capacity, queued: int) -> None:
        """Do nothing: Ray sends tasks to new nodes by itself."""

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        """Whether there are fewer than two pieces per core: one at work, one waiting."""
        return len(flights) < 2 * capacity.count_tasks(self._placement)

    def measure_flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        """The load of the one stage; images stay with their task."""
        cores = capacity.count_tasks(self._placement)
        busy = min(len(flights), cores)
        waiting = len(flights) - busy
        return FlowState([StageLoad("propose", "proposals on CPU", cores, busy, waiting)])

    def list_needs(self) -> Sequence[Need]:
        """A core, where the placement allows it."""
        return [self._placement.build_need(CPU=1.0)]

    def start(self, flight: Flight) -> ObjectRef[Report]:
        """Start the one task of a piece."""
        flight.stage = "propose"
        task = propose_piece.options(**self._placement.build_options())
        piece, reusable = flight.piece, None
        if self._reuse is not None:
            reusable = self._reuse.select(piece.shard, piece.row)
        return task.remote(self._plan_reference, piece, flight.is_last_chance, reusable)

    def start_next_stage(self, flight: Flight) -> None:
        """Return None: there is no second stage."""

    def clean_up(self, flight: Flight, error: Exception) -> bool:  # noqa: ARG002
        """Return True: a task works on its own piece only."""
        return True

    def build_failed_row(self, piece: Piece, failure: Failure) -> pa.Table:
        """The row of an image that ended its workers."""
        (listed,) = piece.read_images(self.plan.manifest, self.plan.fingerprint)
        failed_image = EncodedImage(listed.image_id, listed.uri, failure=failure, key=listed.key)
        return _build_table([failed_image], self.plan)


@ray.remote(num_cpus=1, max_retries=0)
def propose_piece(
    plan: ProposalPlan, piece: Piece, is_last_chance: bool, reusable: ReusableRows | None
) -> Report:
    """Read the images of a piece, compute their proposals or take over stored ones, and commit them."""
    began = process_time()
    store_options.set_options(plan.stores)
    rows = piece.read_images(plan.manifest, plan.fingerprint)
    report = Report()
    reused = None if reusable is None else reusable.take(rows, report)
    if reused is not None:
        rows = reused.leave_out(rows)
    encoded_images = []
    for encoded in read_and_propose(
        rows,
        plan.settings,
        report,
        image_seconds=plan.options.image_seconds,
        is_last_chance=is_last_chance,
        decoding=plan.manifest.decoding,
        memory_limit=find_memory_limit(),
    ):
        encoded.data = None  # the part stores the boxes only
        if encoded.failure is not None:
            # The part does not store the stage, and a rerun reports what the part says.
            report.fail(replace(encoded.failure, stage="propose"))
        elif encoded.boxes is not None:
            report.counts["proposals"] += len(encoded.boxes)
        encoded_images.append(encoded)
    count_on_node(report, "propose", len(encoded_images))
    table = _build_table(encoded_images, plan)
    if reused is not None:
        report.counts["proposals"] += reused.count_elements("boxes")
        table = reused.merge(table)
    commit_or_return(piece, plan.output, table, report)
    report.add_cpu_seconds("propose", process_time() - began)
    return report


def _build_table(encoded_images: Sequence[EncodedImage], plan: ProposalPlan) -> pa.Table:
    return build_proposals_table(encoded_images, plan.provenance, plan.fingerprint)
