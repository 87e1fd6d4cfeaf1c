"""The shard work of a proposals run: one CPU task per piece reads, proposes and commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import process_time

import pyarrow as pa
import ray
from ray import ObjectRef

from pipeline import store_options
from pipeline.engine.propose.memory import find_memory_limit
from pipeline.engine.propose.plan import ProposalPlan
from pipeline.engine.propose.proposing import read_and_propose
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.engine.shards.single_task_work import SingleTaskWork
from pipeline.engine.shards.work import Flight
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Failure, Report
from pipeline.runs.reusable_rows import ReusableRows
from pipeline.runs.reuse import ReusePlan
from pipeline.runs.tables import build_proposals_table


def make_proposal_work(plan: ProposalPlan, reuse: ReusePlan | None = None) -> SingleTaskWork:
    """The shard work of a proposals run.

    Args:
        plan: put into the object store once.
        reuse: which rows of an earlier output may be taken over.
    """
    reference, placement = ray.put(plan), plan.options.placement
    task = propose_piece.options(**placement.build_options())

    def start_task(flight: Flight) -> ObjectRef[Report]:
        piece = flight.piece
        reusable = None if reuse is None else reuse.select(piece.shard, piece.row)
        report: ObjectRef[Report] = task.remote(reference, piece, flight.is_last_chance, reusable)
        return report

    def build_failed_row(piece: Piece, failure: Failure) -> pa.Table:
        (listed,) = piece.read_images(plan.manifest, plan.fingerprint)
        failed_image = EncodedImage(listed.image_id, listed.uri, failure=failure, key=listed.key)
        return _build_table([failed_image], plan)

    return SingleTaskWork("propose", "proposals on CPU", start_task, build_failed_row, placement)


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
