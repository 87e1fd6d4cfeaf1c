"""What a kind of work over shards does for the runner: start a piece, go on with it, clean up after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

import pyarrow as pa
from ray import ObjectRef, ObjectRefGenerator

from pipeline.engine.capacity import Capacity
from pipeline.engine.monitor.stages import FlowState
from pipeline.engine.shards.piece import Piece
from pipeline.runs.placement import Need
from pipeline.runs.report import Failure


@dataclass(eq=False)
class Flight:
    """One piece at work."""

    piece: Piece
    stage: str = ""
    chunks: ObjectRefGenerator | None = None
    """What the first of two stages yields, kept alive until the second takes it."""
    size: float = 0.0
    """Bytes that the piece takes in the object store; 0 until they are known."""
    is_last_chance: bool = False
    """Whether an error now gives up the piece, so that errors of single images must fail these instead."""
    started_at: float = field(default_factory=monotonic)


class ShardWork(Protocol):
    """One kind of work over shards; `Flight` objects carry its state between the calls."""

    def follow(self, capacity: Capacity, queued: int) -> None:
        """Adapt to the living nodes, of which some may have joined or left.

        Args:
            capacity: the living nodes.
            queued: pieces that have not started.
        """

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        """Whether one more piece may start beside those at work."""

    def measure_flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        """How busy the stages are and what waits in front of them."""

    def list_needs(self) -> Sequence[Need]:
        """What each kind of task or actor needs of its node, to detect a cluster that cannot hold one."""

    def start(self, flight: Flight) -> ObjectRef[Any]:
        """Start the first stage of a piece."""

    def start_next_stage(self, flight: Flight) -> ObjectRef[Any] | None:
        """Start the stage after one that succeeded; None if its result is the report."""

    def clean_up(self, flight: Flight, error: Exception) -> bool:
        """Clean up after a stage that failed; returns whether this flight's piece was at work then."""

    def build_failed_row(self, piece: Piece, failure: Failure) -> pa.Table:
        """The row of a single image that failed."""
