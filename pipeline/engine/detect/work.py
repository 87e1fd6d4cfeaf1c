"""Detection's shard work: CPU tasks that read and propose, and the pool of detector actors.

A piece goes through two stages. A CPU task reads its images, computes proposals or takes the stored
ones, and yields chunks of encoded bytes and boxes into the object store. A detector actor takes the
chunks one by one and puts the shard's part. Images never pass through the driver.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray import ObjectRef
from ray import exceptions as rx

from pipeline import store_options
from pipeline.engine import cluster
from pipeline.engine.detect.actor import DetectionPlan, detection_table
from pipeline.engine.detect.pool import DetectorPool
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.propose.reading import Reading
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.ray_errors import NoActorLeft, died_with_node, ended_worker
from pipeline.engine.shards.work import Flight
from pipeline.proposals.stored import StoredProposals, StoredRows
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.report import Failure, Report

CHUNK_BYTES = 32_000_000
"""Encoded images travel in chunks of at most this size; an image that is larger goes alone."""
STORE_SHARE = 0.5
"""Share of Ray's object stores that images in flight may take before no further shard is read."""


class DetectionWork:
    """Shard work of two stages, with the pool of detector actors."""

    def __init__(
        self,
        plan: DetectionPlan,
        resources: ActorResources,
        start_seconds: float,
        precision: str,
        *,
        stored: StoredProposals | None = None,
        mean_size: float = 0.0,
    ) -> None:
        """Prepare it.

        Args:
            plan: what every task and actor needs to know.
            resources: what an actor takes.
            start_seconds: how long to wait for a place where no actor has one.
            precision: what the actors compute in; auto is settled by the first that is ready.
            stored: the images' proposals, where the plan does not say how to compute them.
            mean_size: bytes per image, as far as they are known before any is read.
        """
        self.plan = plan
        self.stored = stored
        self.resources = resources
        self._plan_reference = ray.put(plan)
        self._pool = DetectorPool(self._plan_reference, resources, start_seconds, precision)
        self._mean_size = mean_size
        """Bytes per image: of a few files until pieces were read, then theirs."""
        self._read = 0

    def __enter__(self) -> DetectionWork:
        try:
            self._pool.await_first()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors."""
        self._pool.close()

    @property
    def precision(self) -> str:
        """What the actors compute in."""
        return self._pool.precision

    def follow(self, capacity: cluster.Capacity) -> None:
        """Start detectors on nodes that joined, forget those of nodes that are gone."""
        self._pool.follow(capacity)

    def has_room(self, flights: Collection[Flight], capacity: cluster.Capacity) -> bool:
        """A piece at work for each core and two for each actor, while their bytes fit the budget.

        A piece that is being read counts as much as its number of images did on average.
        """
        if (
            len(flights) >= self._cores(capacity) + 2 * self._pool.size
            or not self._pool.has_ready()
        ):
            return False
        if not flights:
            return True
        expected = [self._mean_size * flight.piece.rows for flight in flights]
        held = sum(
            flight.size or its_share for flight, its_share in zip(flights, expected, strict=True)
        )
        return held + max(expected) <= STORE_SHARE * capacity.object_store

    def _cores(self, capacity: cluster.Capacity) -> int:
        """The cores that are left to the tasks."""
        return max(1, int(capacity.cpus - self._pool.reserved_cpus))

    def flow(self, flights: Collection[Flight], capacity: cluster.Capacity) -> FlowState:
        """The tasks on the cores and the detectors, each with what waits in front of it."""
        reading = sum(flight.stage != "detect" for flight in flights)
        cores = self._cores(capacity)
        tasks = min(reading, cores)
        at_work = self._pool.busy
        name = "propose" if self.stored is None else "read"
        title = "proposals on CPU" if self.stored is None else "reading on CPU"
        device = "GPU" if self.resources.gpus else "CPU"
        return FlowState(
            [
                StageLoad(name, title, cores, tasks, reading - tasks),
                StageLoad(
                    "detect",
                    f"detection on {device}",
                    self._pool.size,
                    at_work,
                    len(flights) - reading - at_work,
                ),
            ],
            held=sum(flight.size for flight in flights),
            budget=STORE_SHARE * capacity.object_store,
        )

    def needs(self) -> Sequence[dict[str, float]]:
        """A core for the tasks and, where they use them, GPUs for the actors."""
        return [{"CPU": 1.0}, self.resources.need()]

    def start(self, flight: Flight) -> ObjectRef[Any]:
        """Start reading a piece; the generator's end is what the runner waits for."""
        flight.stage = "propose" if self.stored is None else "read"
        piece, stored = flight.piece, None
        if self.stored is not None:  # a task is told of its own images only
            stored = self.stored.of(piece.shard.first_row + (piece.row or 0), piece.rows)
        flight.held = _read_piece.remote(self._plan_reference, piece, stored, flight.last_chance)
        return flight.held.completed()  # type: ignore[no-any-return]

    def proceed(self, flight: Flight) -> ObjectRef[Report] | None:
        """Hand a piece that is read to the actor with the least to do, best one of the same node."""
        if flight.stage == "detect":
            self._pool.done(flight)
            return None
        *chunks, last = list(flight.held)
        flight.size, node = ray.get(last)
        rows = flight.piece.rows
        self._mean_size = (self._mean_size * self._read + flight.size) / (self._read + rows)
        self._read += rows
        actor = self._pool.hand_out(flight, node)
        if actor is None:
            raise NoActorLeft("no detector is left to take the images")
        flight.stage = "detect"
        flight.held = actor
        return actor.detect.remote(flight.piece, chunks)  # type: ignore[no-any-return]

    def lost(self, flight: Flight, error: Exception) -> bool:
        """Replace a dead actor; only the first of its pieces was being worked on."""
        if flight.stage != "detect":
            return True
        if not isinstance(error, rx.RayTaskError) and (
            ended_worker(error) or died_with_node(error)
        ):
            return self._pool.lost(flight, error)
        self._pool.done(flight, well=False)
        return True

    def failed_table(self, piece: Piece, failure: Failure) -> pa.Table:
        """The row of an image that ended its workers."""
        rows = piece.image_rows(self.plan.manifest, self.plan.fingerprint)
        return detection_table(self.plan, [EncodedImage(*rows[0], failure=failure)], [None])


@ray.remote(num_cpus=1, max_retries=0)
def _read_piece(
    plan: DetectionPlan, piece: Piece, stored: StoredRows | None, last_chance: bool
) -> Iterator[tuple[Any, Any]]:
    """Yield the piece's images, with boxes, in chunks with the seconds they took; last bytes and node."""
    store_options.use(plan.stores)
    rows = piece.image_rows(plan.manifest, plan.fingerprint)
    report = Report()
    reading = Reading(report, plan.image_seconds, last_chance=last_chance)
    if stored is None:
        assert plan.proposals is not None
        encoded_images = reading.proposed(rows, plan.proposals)
    else:
        encoded_images = reading.stored(rows, stored.table())
    chunk: list[EncodedImage] = []
    size = total = 0
    for encoded in encoded_images:
        if encoded.boxes is not None:
            encoded.boxes = encoded.boxes[: plan.max_proposals]
        if chunk and size + encoded.nbytes > CHUNK_BYTES:
            yield chunk, report
            total += size
            chunk, size = [], 0
            report.seconds, report.counts = {}, Counter()
        chunk.append(encoded)
        size += encoded.nbytes
    yield chunk, report
    yield total + size, ray.get_runtime_context().get_node_id()
