"""The shard work of a detection run: CPU tasks that read and propose, then the pool of detector actors.

A piece goes through two stages. A CPU task reads its images, computes proposals or takes the stored
ones, and yields chunks of encoded bytes and boxes into the object store. A detector actor takes the
chunks one by one and puts the shard's part. Images never pass through the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray import ObjectRef, ObjectRefGenerator
from ray import exceptions as rx
from ray.actor import ActorHandle

from pipeline.engine import cluster
from pipeline.engine.capacity import Capacity
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.detect.pool import DetectorPool
from pipeline.engine.detect.read_task import ReadEnd, read_piece
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.retry_policy import NoActorLeft, classify_error
from pipeline.engine.shards.work import Flight
from pipeline.proposals.stored_proposals import StoredProposals
from pipeline.runs.encoded_image import EncodedImage
from pipeline.runs.placement import ANYWHERE, Need, Placement
from pipeline.runs.report import Failure, Report
from pipeline.runs.reuse import ReusePlan

STORE_SHARE = 0.5
"""Share of Ray's object stores that images in flight may take before no further shard is read."""


class DetectionWork:
    """Shard work of two stages, with the pool of detector actors."""

    def __init__(
        self,
        plan: DetectionPlan,
        plan_reference: ObjectRef[DetectionPlan],
        pool: DetectorPool,
        *,
        stored: StoredProposals | None = None,
        mean_size: float = 0.0,
        placement: Placement = ANYWHERE,
        reuse: ReusePlan | None = None,
        warm_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the work.

        Args:
            plan: what every task and actor needs to know.
            plan_reference: the same in the object store.
            pool: the detectors; this work starts and ends them as a context manager.
            stored: the images' proposals, if the plan does not say how to compute them.
            mean_size: bytes per image, estimated before any is read; 0 if unknown.
            placement: which nodes may run the tasks that read.
            reuse: which rows of an earlier output may be taken over.
            warm_up: prepares the workers of the tasks, while the detectors start.
        """
        self.plan = plan
        self.stored = stored
        self._placement = placement
        self._reuse = reuse
        self._warm_up = warm_up
        self._plan_reference = plan_reference
        self._pool = pool
        self._mean_size = mean_size
        """Bytes per image: an estimate until pieces were read, then their mean."""
        self._images_read = 0
        self._chunks: dict[Flight, ObjectRefGenerator] = {}
        """What the read task of each piece yields, kept alive until a detector takes it."""
        self._handles: dict[Flight, ActorHandle[Any]] = {}
        """The actor of each piece; Ray ends an actor without handles."""

    def __enter__(self) -> DetectionWork:
        try:
            # An autoscaler starts nodes for detectors and tasks at the same time.
            self._pool.follow(cluster.get_capacity())
            cluster.await_core(self.plan.options.no_capacity_after, self._placement)
            self._warm_up()
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

    def follow(self, capacity: Capacity, queued: int) -> None:
        """Start detectors on nodes that joined, forget those of nodes that are gone, release idle ones."""
        self._pool.follow(capacity, queued + len(self._chunks))

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        """Whether a piece may start: one per core and two per actor, while their bytes fit the budget.

        A piece that is still being read counts as its number of images times their mean size.
        """
        limit = self._count_task_cores(capacity) + 2 * self._pool.size
        if len(flights) >= limit or not self._pool.has_ready():
            return False
        if not flights:
            return True
        expected = [self._mean_size * flight.piece.rows for flight in flights]
        in_flight = sum(
            flight.size or estimate for flight, estimate in zip(flights, expected, strict=True)
        )
        return in_flight + max(expected) <= STORE_SHARE * capacity.object_store

    def _count_task_cores(self, capacity: Capacity) -> int:
        """The cores that the actors leave to the tasks."""
        tasks = capacity.count_tasks(self._placement)
        return max(1, int(min(tasks, capacity.cpus - self._pool.reserved_cpus)))

    def measure_flow(self, flights: Collection[Flight], capacity: Capacity) -> FlowState:
        """The load of the tasks on the cores and of the detectors, with what waits in front of each."""
        reading = sum(flight.stage != "detect" for flight in flights)
        cores = self._count_task_cores(capacity)
        busy_cores = min(reading, cores)
        busy_actors = self._pool.busy
        name = "propose" if self.stored is None else "read"
        title = "proposals on CPU" if self.stored is None else "reading on CPU"
        device = "GPU" if self.plan.resources.device == "cuda" else "CPU"
        return FlowState(
            [
                StageLoad(name, title, cores, busy_cores, reading - busy_cores),
                StageLoad(
                    "detect",
                    f"detection on {device}",
                    self._pool.size,
                    busy_actors,
                    len(flights) - reading - busy_actors,
                ),
            ],
            bytes_in_flight=sum(flight.size for flight in flights),
            budget=STORE_SHARE * capacity.object_store,
        )

    def list_needs(self) -> Sequence[Need]:
        """What a task and an actor need."""
        return [self._placement.build_need(CPU=1.0), self.plan.resources.need]

    def start(self, flight: Flight) -> ObjectRef[Any]:
        """Start reading a piece; returns the end of its generator, which the runner waits for."""
        flight.stage = "propose" if self.stored is None else "read"
        piece, stored_rows = flight.piece, None
        if self.stored is not None:  # a task gets the rows of its own images only
            first_row = piece.shard.first_row + (piece.row or 0)
            stored_rows = self.stored.locate(first_row, piece.rows)
        reusable = None if self._reuse is None else self._reuse.select(piece.shard, piece.row)
        last = flight.is_last_chance
        arguments = (self._plan_reference, piece, stored_rows, last, reusable)
        task = read_piece.options(**self._placement.build_options())
        chunks: ObjectRefGenerator = task.remote(*arguments)
        self._chunks[flight] = chunks
        end: ObjectRef[Any] = chunks.completed()
        return end

    def start_next_stage(self, flight: Flight) -> ObjectRef[Report] | None:
        """Hand a piece that is read to the actor with the least to do, preferably on the same node."""
        if flight.stage == "detect":
            del self._handles[flight]
            self._pool.take_back(flight)
            return None
        if flight.stage == "reuse":
            return None
        *chunks, last = list(self._chunks.pop(flight))
        end: ReadEnd = ray.get(last)
        if end.is_committed:
            flight.stage = "reuse"
            return chunks[0]  # type: ignore[no-any-return]  # the task's report
        flight.size = end.size
        images_read = self._images_read + end.images
        self._mean_size = (self._mean_size * self._images_read + flight.size) / images_read
        self._images_read = images_read
        handle = self._pool.hand_out(flight, end.node)
        if handle is None:
            raise NoActorLeft("no detector is left to take the images")
        flight.stage = "detect"
        self._handles[flight] = handle
        return handle.detect.remote(flight.piece, chunks)  # type: ignore[no-any-return]

    def clean_up(self, flight: Flight, error: Exception) -> bool:
        """Replace a dead actor; returns whether this piece, the first of its actor's, was at work."""
        self._chunks.pop(flight, None)
        self._handles.pop(flight, None)
        if flight.stage != "detect":
            return True
        if not isinstance(error, rx.RayTaskError) and classify_error(error).lost_attempt:
            return self._pool.replace_lost(flight, error)
        self._pool.take_back(flight, succeeded=False)
        return True

    def build_failed_row(self, piece: Piece, failure: Failure) -> pa.Table:
        """The row of an image that ended its workers."""
        (listed,) = piece.read_images(self.plan.manifest, self.plan.fingerprint)
        failed_image = EncodedImage(listed.image_id, listed.uri, failure=failure, key=listed.key)
        return self.plan.build_table([failed_image], [None])
