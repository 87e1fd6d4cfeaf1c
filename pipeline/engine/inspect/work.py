"""The tasks of an inspection on Ray: each hashes the images of a piece and commits their signatures."""

from __future__ import annotations

from time import process_time

import pyarrow as pa
import ray
from ray import ObjectRef

from pipeline import store_options
from pipeline.engine.inspect.inspecting import (
    InspectedImage,
    build_signature_table,
    inspect_piece,
)
from pipeline.engine.inspect.plan import InspectionPlan
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.engine.shards.single_task_work import SingleTaskWork
from pipeline.engine.shards.work import Flight
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Failure, Report


@ray.remote(num_cpus=1, max_retries=0)
def inspect_on_worker(plan: InspectionPlan, piece: Piece, is_last_chance: bool) -> Report:
    """Hash the images of a piece, and commit or return their signatures."""
    began = process_time()
    store_options.set_options(plan.stores)
    report = Report()
    table = inspect_piece(plan, piece, report, is_last_chance=is_last_chance)
    count_on_node(report, "inspect", len(table))
    commit_or_return(piece, plan.output, table, report)
    report.add_cpu_seconds("inspect", process_time() - began)
    return report


def make_inspection_work(plan: InspectionPlan) -> SingleTaskWork:
    """The shard work of an inspection; the plan is put into the object store once."""
    reference = ray.put(plan)

    def start_task(flight: Flight) -> ObjectRef[Report]:
        task: ObjectRef[Report] = inspect_on_worker.remote(
            reference, flight.piece, flight.is_last_chance
        )
        return task

    def build_failed_row(piece: Piece, failure: Failure) -> pa.Table:
        (listed,) = piece.read_images(plan.manifest, plan.fingerprint)
        image = EncodedImage(listed.image_id, listed.uri, failure=failure, key=listed.key)
        return build_signature_table([InspectedImage(image)], plan.fingerprint)

    return SingleTaskWork("inspect", "hashing on CPU", start_task, build_failed_row)
