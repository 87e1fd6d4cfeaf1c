"""What a kind of work over shards tells the runner: how to start a piece, go on, clean up after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

import pyarrow as pa
from ray import ObjectRef

from pipeline.engine.cluster import Capacity
from pipeline.engine.monitor.stages import FlowState
from pipeline.engine.shards.piece import Piece
from pipeline.runs.report import Failure


@dataclass(eq=False)
class Flight:
    """One piece at work."""

    piece: Piece
    stage: str = ""
    held: Any = None
    """Whatever the work keeps alive for this flight: a generator, an actor."""
    size: float = 0.0
    """Bytes that it holds in the object store, once they are known."""
    last_chance: bool = False
    """Whether what stops single images is to fail them, since the piece is given up otherwise."""
    began: float = field(default_factory=monotonic)


class ShardWork(Protocol):
    """One kind of work over shards; `Flight` objects carry its state between the calls."""

    def follow(self, capacity: Capacity) -> None:
        """The cluster was looked at: nodes may have joined or gone."""

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        """Whether one more piece may be started beside those at work."""

    def flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        """How busy the stages are and what waits in front of them."""

    def needs(self) -> Sequence[dict[str, float]]:
        """The resources of each kind of task or actor, to tell a cluster that can hold none."""

    def start(self, flight: Flight) -> ObjectRef[Any]:
        """Start the first stage of a piece."""

    def proceed(self, flight: Flight) -> ObjectRef[Any] | None:
        """After a stage ended well: start the next one, or None when its result is the report."""

    def lost(self, flight: Flight, error: Exception) -> bool:
        """After a stage ended badly: clean up, and tell whether this flight's piece was being worked on."""

    def failed_table(self, piece: Piece, failure: Failure) -> pa.Table:
        """The row of a single image that could not be done."""
