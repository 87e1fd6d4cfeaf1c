"""Detection's shard work: CPU tasks that read and propose, and the pool of detector actors.

A piece goes through two stages. A CPU task reads its pictures, computes proposals or takes the stored
ones, and yields chunks of encoded bytes and boxes into the object store. A detector actor takes the
chunks one by one and puts the shard's part. Pictures never pass through the driver.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray import ObjectRef
from ray import exceptions as rx

from pipeline import storage
from pipeline.engine import cluster
from pipeline.engine.detector_actor import DetectionPlan, DetectorActor, detection_table
from pipeline.engine.reading import proposed_pictures, stored_pictures
from pipeline.engine.shard_runner import Flight
from pipeline.engine.work import Failure, Picture, Piece, Report
from pipeline.errors import InvalidCheckpoint, NoCapacity, PipelineError, ShardFailed

CHUNK_BYTES = 32_000_000
"""Encoded pictures travel in chunks of about this size."""
STORE_SHARE = 0.5
"""Share of Ray's object stores that pictures in flight may take before no further shard is read."""
MOST_LOSSES_IN_A_ROW = 20
"""Actors that may die without a piece done between: more is the detector's fault, not a picture's."""


@dataclass(frozen=True)
class ActorResources:
    """How many detector actors, and what each takes."""

    count: int
    gpus: float
    threads: int


class DetectionWork:
    """Shard work of two stages, with the pool of detector actors."""

    def __init__(
        self, plan: DetectionPlan, resources: ActorResources, start_seconds: float
    ) -> None:
        self.plan = plan
        self.resources = resources
        self.start_seconds = start_seconds
        self._plan_reference = ray.put(plan)
        self._loads: dict[Any, list[Flight]] = {}
        self._losses_in_a_row = 0
        self._mean_size = 0.0
        self._pieces_read = 0

    def __enter__(self) -> DetectionWork:
        for _ in range(self.resources.count):
            self._add_actor()
        try:
            self._await_first_actor()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors."""
        for actor in self._loads:
            with contextlib.suppress(rx.RayError):
                ray.kill(actor)
        self._loads.clear()

    def _add_actor(self) -> None:
        actor = DetectorActor.options(  # type: ignore[attr-defined]
            num_cpus=0 if self.resources.gpus == 0 else 1,
            num_gpus=self.resources.gpus,
            scheduling_strategy="SPREAD",
        ).remote(self._plan_reference)
        self._loads[actor] = []

    def _await_first_actor(self) -> None:
        """Find out now whether the checkpoint loads and whether an actor can be placed at all."""
        first = next(iter(self._loads))
        try:
            ray.get(first.ready.remote(), timeout=self.start_seconds)
        except rx.GetTimeoutError as error:
            raise NoCapacity(
                f"no detector actor could be placed within {self.start_seconds:.0f} s; each needs "
                f"{self.needs()[-1]}"
            ) from error
        except rx.RayTaskError as error:
            if isinstance(error.cause, PipelineError):
                raise error.cause from error
            raise
        except rx.RayActorError as error:
            raise InvalidCheckpoint(
                f"the detector could not start on {storage.shown(self.plan.checkpoint)}: "
                f"{str(error).splitlines()[0]}"
            ) from error

    def has_room(self, flights: Collection[Flight], capacity: cluster.Capacity) -> bool:
        """A piece at work for each core and two for each actor, while their bytes fit the budget.

        A piece that is being read counts as much as those before it did on average.
        """
        if len(flights) >= capacity.cpus + 2 * self.resources.count:
            return False
        held = sum(flight.size or self._mean_size for flight in flights)
        return not flights or held + self._mean_size <= STORE_SHARE * capacity.object_store

    def state(self, flights: Collection[Flight]) -> str:
        """Where the pieces are: the stage in front of which they wait is the limit."""
        reading = sum(flight.stage != "detect" for flight in flights)
        at_work = sum(bool(load) for load in self._loads.values())
        waiting = len(flights) - reading - at_work
        return f"{reading} shards reading, {waiting} waiting, {at_work}/{len(self._loads)} detectors busy"

    def needs(self) -> Sequence[dict[str, float]]:
        """A core for the tasks and, where they use them, GPUs for the actors."""
        gpus = {"GPU": self.resources.gpus} if self.resources.gpus else {}
        return [{"CPU": 1.0}, {"CPU": 1.0} | gpus]

    def start(self, flight: Flight) -> ObjectRef[Any]:
        """Start reading a piece; the generator's end is what the runner waits for."""
        flight.stage = "propose" if self.plan.stored is None else "read"
        flight.held = _read_piece.remote(self._plan_reference, flight.piece)
        return flight.held.completed()  # type: ignore[no-any-return]

    def proceed(self, flight: Flight) -> ObjectRef[Report] | None:
        """Hand a piece that is read to the actor with the least to do."""
        if flight.stage == "detect":
            self._unload(flight)
            self._losses_in_a_row = 0
            return None
        *chunks, size = list(flight.held)
        flight.size = ray.get(size)
        self._pieces_read += 1
        self._mean_size += (flight.size - self._mean_size) / self._pieces_read
        actor = min(self._loads, key=lambda one: len(self._loads[one]))
        flight.stage = "detect"
        flight.held = actor
        self._loads[actor].append(flight)
        return actor.detect.remote(flight.piece, chunks)  # type: ignore[no-any-return]

    def lost(self, flight: Flight, error: Exception) -> bool:
        """Replace a dead actor; only the first of its pieces was being worked on."""
        if flight.stage != "detect":
            return True
        actor = flight.held
        if not isinstance(error, rx.RayActorError):
            self._unload(flight)
            return True
        at_work = True
        if actor in self._loads:
            with contextlib.suppress(rx.RayError):
                ray.kill(actor)
            at_work = self._loads.pop(actor)[0] is flight
            self._losses_in_a_row += 1
            if self._losses_in_a_row > MOST_LOSSES_IN_A_ROW:
                raise ShardFailed(
                    f"{self._losses_in_a_row} detector actors died one after the other, the last: "
                    f"{str(error).splitlines()[0]}"
                )
            self._add_actor()
        else:
            at_work = False
        return at_work

    def _unload(self, flight: Flight) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._loads[flight.held].remove(flight)

    def failed_table(self, piece: Piece, failure: Failure) -> pa.Table:
        """The row of a picture that ended its workers."""
        rows = piece.image_rows(self.plan.manifest, self.plan.fingerprint)
        return detection_table(self.plan, [Picture(*rows[0], failure=failure)], [None])


@ray.remote(num_cpus=1, max_retries=0)
def _read_piece(plan: DetectionPlan, piece: Piece) -> Iterator[tuple[list[Picture], Report] | int]:
    """Yield the piece's pictures, with boxes, in chunks with the seconds they took; last the bytes."""
    rows = piece.image_rows(plan.manifest, plan.fingerprint)
    report = Report()
    if plan.stored is None:
        assert plan.proposals is not None
        pictures = proposed_pictures(rows, plan.proposals, plan.image_seconds, report)
    else:
        boxes = plan.stored.table(piece.shard.ordinal)
        if piece.row is not None:
            boxes = boxes.slice(piece.row, 1)
        pictures = stored_pictures(rows, boxes, plan.image_seconds, report)
    chunk: list[Picture] = []
    size = total = 0
    for picture in pictures:
        if picture.boxes is not None:
            picture.boxes = picture.boxes[: plan.max_proposals]
        chunk.append(picture)
        size += picture.nbytes
        if size >= CHUNK_BYTES:
            yield chunk, report
            total += size
            chunk, size, report.seconds = [], 0, {}
    yield chunk, report
    yield total + size
