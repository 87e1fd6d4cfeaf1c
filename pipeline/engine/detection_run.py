"""Detection over a whole manifest: CPU tasks read and propose, detector actors decode, detect, commit.

A piece goes through two stages. A CPU task reads its pictures, computes proposals or takes the stored
ones, and yields chunks of encoded bytes and boxes into the object store. A detector actor takes the
chunks one by one and puts the shard's part. Pictures never pass through the driver.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import ray
from ray import ObjectRef
from ray import exceptions as rx

from pipeline import manifest as manifests
from pipeline import storage
from pipeline.detector import checkpoint_record
from pipeline.detector.keep import Keep
from pipeline.engine import cluster, output
from pipeline.engine.detector_actor import DetectionPlan, DetectorActor, detection_table
from pipeline.engine.proposal_run import warm_up
from pipeline.engine.reading import ProposalSettings, proposed_pictures, stored_pictures
from pipeline.engine.run_options import RunOptions
from pipeline.engine.shard_runner import Flight, work_through
from pipeline.engine.stored_proposals import matching
from pipeline.engine.summary import Summary, summarise
from pipeline.engine.work import Failure, Picture, Piece, Report
from pipeline.errors import InvalidCheckpoint, NoCapacity, PipelineError, ShardFailed
from pipeline.run_record import RunRecord

log = logging.getLogger(__name__)

CHUNK_BYTES = 32_000_000
"""Encoded pictures travel in chunks of about this size."""
MEMORY_PER_ACTOR = 1.5e9
"""Bytes that a detector on a CPU may take, torch included."""
STORE_SHARE = 0.5
"""Share of Ray's object stores that pictures in flight may take before no further shard is read."""
MOST_LOSSES_IN_A_ROW = 20
"""Actors that may die without a piece done between: more is the detector's fault, not a picture's."""


@dataclass(frozen=True)
class DetectionSettings:
    """How pictures are detected in: what decides the output beside checkpoint and proposals."""

    keep: Keep = field(default_factory=Keep)
    """Which detections of a picture are kept."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto, fp32 or bf16."""


@dataclass(frozen=True)
class ActorResources:
    """How many detector actors, and what each takes."""

    count: int
    gpus: float
    threads: int


def run(
    manifest_uri: str,
    checkpoint_uri: str,
    output_uri: str,
    *,
    proposals: str | ProposalSettings,
    settings: DetectionSettings,
    options: RunOptions = RunOptions(),
    actors: int | None = None,
    gpus_per_actor: float | None = None,
) -> Summary:
    """Detect in the pictures of a manifest, or in those that are not done yet.

    Args:
        manifest_uri: Parquet file or folder.
        checkpoint_uri: folder with model.safetensors and model.json.
        output_uri: folder for the parts; a rerun into it does what is left.
        proposals: URI of stored proposals, whose cut is inherited, or how to compute them on the way.
        settings: what else decides the output.
        options: shard size, limits, patience.
        actors: detector actors; None takes one per GPU, or one per core where there is no GPU.
        gpus_per_actor: GPUs of one actor; None takes 1, or 0 where there is no GPU.

    Raises:
        PipelineError: a subclass that says what is wrong.
    """
    opened = manifests.open_manifest(manifest_uri)
    checkpoint = checkpoint_record.peek(checkpoint_uri)
    target = storage.absolute(output_uri)
    storage.check_writable(target)
    stored = matching(proposals, opened, options.limit) if isinstance(proposals, str) else None
    made = stored.provenance if stored else proposals.recorded()  # type: ignore[union-attr]
    with cluster.connected():
        capacity = cluster.capacity()
        cut = output.plan_cut(
            opened, target, options, capacity.cpus, stored.rows if stored else None
        )
        record = RunRecord(
            "detect",
            {
                "dataset": cut.dataset,
                "checkpoint": checkpoint.digest,
                "proposals": made,
                **asdict(settings),
            },
            {"manifest": storage.shown(opened.uri), "checkpoint": storage.shown(checkpoint_uri)},
        )
        ready = output.open_run(target, record, cut, options)
        resources = actor_resources(capacity, actors, gpus_per_actor)
        plan = DetectionPlan(
            manifest=opened,
            output=target,
            fingerprint=record.fingerprint,
            checkpoint=storage.absolute(checkpoint_uri),
            checkpoint_digest=checkpoint.digest,
            classes=checkpoint.classes,
            keep=settings.keep,
            precision=settings.precision,
            proposals=None if isinstance(proposals, str) else proposals,
            stored=stored,
            image_seconds=options.image_seconds,
            threads=resources.threads,
        )
        with summarise(ready, options.max_failed_fraction) as summary:
            if ready.todo or ready.retry:
                _work(plan, resources, ready, summary, options)
        return summary


def _work(
    plan: DetectionPlan,
    resources: ActorResources,
    ready: output.RunOutput,
    summary: Summary,
    options: RunOptions,
) -> None:
    log.info("detecting with %d actors, %g GPUs each", resources.count, resources.gpus)
    with DetectionWork(plan, resources, options.no_capacity_after) as work:
        if plan.proposals is not None:
            warm_up(plan.proposals)
        work_through(work, "detect", ready, summary, options)


def actor_resources(
    capacity: cluster.Capacity, actors: int | None, gpus_per_actor: float | None
) -> ActorResources:
    """Actors for the cluster at hand.

    Without GPUs actors reserve no core, since actors that hold all cores starve the tasks that feed
    them; the kernel's scheduler shares the cores between the one-threaded actors and tasks.
    """
    gpus = gpus_per_actor if gpus_per_actor is not None else min(1.0, capacity.gpus)
    if gpus > 0:
        return ActorResources(actors or max(1, int(capacity.gpus / gpus)), gpus, threads=2)
    fitting = max(1, int(capacity.memory / MEMORY_PER_ACTOR))
    return ActorResources(actors or min(capacity.cpus, fitting), 0.0, threads=1)


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
        pictures = stored_pictures(rows, plan.stored.table(piece), plan.image_seconds, report)
    chunk: list[Picture] = []
    size = total = 0
    for picture in pictures:
        chunk.append(picture)
        size += picture.nbytes
        if size >= CHUNK_BYTES:
            yield chunk, report
            total += size
            chunk, size, report.seconds = [], 0, {}
    yield chunk, report
    yield total + size
