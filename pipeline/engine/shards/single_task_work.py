"""Shard work of one stage: a task per piece that commits its own part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pyarrow as pa
from ray import ObjectRef

from pipeline.engine.capacity import Capacity
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.work import Flight
from pipeline.runs.placement import ANYWHERE, Need, Placement
from pipeline.runs.report import Failure, Report


class SingleTaskWork:
    """Starts a task per piece, two pieces per core or GPU: one at work, one waiting."""

    def __init__(
        self,
        name: str,
        title: str,
        start_task: Callable[[Flight], ObjectRef[Report]],
        build_failed_row: Callable[[Piece, Failure], pa.Table],
        placement: Placement = ANYWHERE,
        *,
        gpus: float = 0.0,
    ) -> None:
        """Describe the work.

        Args:
            name: the stage in a word, such as `export`.
            title: what the stage does and where: `export on CPU`.
            start_task: starts the task of a piece, which takes one core and `gpus`.
            build_failed_row: the row of an image that ended its workers.
            placement: which nodes `start_task` allows.
            gpus: of each task.
        """
        self.name = name
        self.title = title
        self._start_task = start_task
        self._build_failed_row = build_failed_row
        self._placement = placement
        self._gpus = gpus

    def follow(self, capacity: Capacity, queued: int) -> None:
        """Do nothing: Ray sends tasks to new nodes by itself."""

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        """Whether there are fewer than two pieces for each task that can be at work."""
        return len(flights) < 2 * capacity.count_tasks(self._placement, self._gpus)

    def measure_flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        """The load of the one stage."""
        slots = capacity.count_tasks(self._placement, self._gpus)
        busy = min(len(flights), slots)
        waiting = len(flights) - busy
        return FlowState([StageLoad(self.name, self.title, slots, busy, waiting)])

    def list_needs(self) -> Sequence[Need]:
        """A core and the GPUs of a task, where the placement allows it."""
        return [self._placement.build_need(CPU=1.0, GPU=self._gpus)]

    def start(self, flight: Flight) -> ObjectRef[Report]:
        """Start the one task of a piece."""
        flight.stage = self.name
        return self._start_task(flight)

    def start_next_stage(self, flight: Flight) -> None:
        """Return None: there is no second stage."""

    def clean_up(self, flight: Flight, error: Exception) -> bool:  # noqa: ARG002
        """Return True: a task works on its own piece only."""
        return True

    def build_failed_row(self, piece: Piece, failure: Failure) -> pa.Table:
        """The row of an image that ended its workers."""
        return self._build_failed_row(piece, failure)
