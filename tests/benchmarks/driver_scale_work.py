"""Work for `driver_scale` that is done as soon as it starts, so that only the driver costs time."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipeline.detector.architecture import Architecture
from pipeline.detector.checkpoint_record import CheckpointRecord
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.preprocessing import Preprocessing
from pipeline.engine.capacity import Capacity
from pipeline.engine.detect.launcher import ActorLauncher
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.detect.pool import DetectorPool
from pipeline.engine.detect.read_task import ReadEnd
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.detect.work import DetectionWork
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.propose.plan import ProposalPlan
from pipeline.engine.propose.work import make_proposal_work
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.work import Flight, ShardWork
from pipeline.manifests import Manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.placement import Need
from pipeline.runs.report import Failure, Report


class _ReadyWork:
    """Work whose pieces are done as soon as they start, without a task."""

    def follow(self, capacity: Capacity, queued: int) -> None:
        """Ignore the nodes, since no task runs on them."""

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        return len(flights) < 2 * capacity.cpus

    def measure_flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        return FlowState([StageLoad("none", "no work", capacity.cpus, 0, 0)])

    def list_needs(self) -> Sequence[Need]:
        return [Need({"CPU": 1.0})]

    def start(self, flight: Flight) -> Any:
        return ray.put(Report(images=flight.piece.shard.rows))

    def start_next_stage(self, flight: Flight) -> None:
        return None

    def clean_up(self, flight: Flight, error: Exception) -> bool:
        return True

    def build_failed_row(self, piece: Piece, failure: Failure) -> pa.Table:
        raise AssertionError("nothing fails here")


@ray.remote(num_cpus=1, max_retries=0)
def _propose_nothing(
    plan: ProposalPlan, piece: Piece, is_last_chance: bool, reusable: None
) -> Report:
    return Report(images=piece.shard.rows, seconds={"propose": 0.0})


@ray.remote(num_cpus=1, max_retries=0)
def _read_nothing(
    plan: DetectionPlan, piece: Piece, stored: None, is_last_chance: bool, reusable: None
) -> Iterator[Any]:
    yield [], Report()
    yield ReadEnd(1, ray.get_runtime_context().get_node_id(), piece.shard.rows)


@ray.remote(max_restarts=0, max_task_retries=0)
class _IdleDetector:
    def __init__(self, plan: DetectionPlan, precision: str) -> None:
        self.precision = precision

    def load(self) -> str:
        return self.precision

    def detect(self, piece: Piece, chunks: Sequence[Any]) -> Report:
        return Report(images=piece.shard.rows, seconds={"detect": 0.0})


@contextlib.contextmanager
def _open_ready_work(manifest: Manifest, target: str) -> Iterator[ShardWork]:
    yield _ReadyWork()


@contextlib.contextmanager
def _open_propose_work(manifest: Manifest, target: str) -> Iterator[ShardWork]:
    plan = ProposalPlan(manifest, target, "0" * 64, ProposalSettings(), {}, RunOptions())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.engine.propose.work.propose_piece", _propose_nothing)
        yield make_proposal_work(plan)


@contextlib.contextmanager
def _open_detect_work(manifest: Manifest, target: str) -> Iterator[ShardWork]:
    resources = ActorResources(0.0, 1, max_actors=2)
    architecture = Architecture(("object",))
    plan = DetectionPlan(
        manifest,
        target,
        fingerprint="0" * 64,
        checkpoint_uri="",
        checkpoint=CheckpointRecord(architecture, Preprocessing(), "", 0),
        settings=DetectionSettings(),
        options=RunOptions(),
        proposals=ProposalSettings(),
        resources=resources,
    )
    plan_reference = ray.put(plan)
    launcher = ActorLauncher(plan_reference, resources, _IdleDetector)
    pool = DetectorPool(launcher, resources, 60.0, "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.engine.detect.work.read_piece", _read_nothing)
        with DetectionWork(plan, plan_reference, pool) as work:
            yield work


WORK_BY_KIND = {
    "unlogged": _open_ready_work,
    "loop": _open_ready_work,
    "propose": _open_propose_work,
    "detect": _open_detect_work,
}
