"""The driver's loop over shards: start work, wait, retry, isolate what kills its worker, count.

Retries are the driver's, never Ray's: a shard whose attempt ended is put back in the queue, and since
a commit is one whole-object put under a content key, an attempt that was believed dead but still
writes does no harm. A shard that lost its worker twice is done again one picture per task; only a
picture that alone ends two workers is failed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, Protocol

import pyarrow as pa
import ray
from ray import ObjectRef
from ray import exceptions as rx

from pipeline.engine import cluster
from pipeline.engine.cluster import Capacity
from pipeline.engine.output import RunOutput
from pipeline.engine.progress import RunProgress
from pipeline.engine.run_options import RunOptions
from pipeline.engine.summary import Summary
from pipeline.engine.work import Failure, Piece, Report
from pipeline.errors import (
    NoCapacity,
    PipelineError,
    ShardFailed,
    StorageError,
)
from pipeline.shards import Parts, Shard, put_part

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""Attempts at a shard whose work raises an error."""
RETRY_SECONDS = 0.5
"""Wait before the first retry; each further one waits four times as long."""
CAPACITY_EVERY = 5.0
"""Seconds between looks at the cluster: nodes may join and leave."""
WORKER_LOSSES = 2
"""Workers that a shard, and then a single picture, may end."""
NODE_LOSSES = 50
"""Attempts that may be lost with a node: they say nothing about the shard."""


@dataclass
class Flight:
    """One piece at work."""

    piece: Piece
    stage: str = ""
    held: Any = None
    """Whatever the work keeps alive for this flight: a generator, an actor."""
    size: float = 0.0
    """Bytes that it holds in the object store, once they are known."""


class ShardWork(Protocol):
    """One kind of work over shards; `Flight` objects carry its state between the calls."""

    def has_room(self, flights: Collection[Flight], capacity: Capacity) -> bool:
        """Whether one more piece may be started beside those at work."""

    def state(self, flights: Collection[Flight]) -> str:
        """Where the pieces at work are, for the progress line."""

    def needs(self) -> Sequence[dict[str, float]]:
        """The resources of each kind of task or actor, to tell a cluster that can hold none."""

    def start(self, flight: Flight) -> ObjectRef[Any]:
        """Start the first stage of a piece."""

    def proceed(self, flight: Flight) -> ObjectRef[Any] | None:
        """After a stage ended well: start the next one, or None when its result is the report."""

    def lost(self, flight: Flight, error: Exception) -> bool:
        """After a stage ended badly: clean up, and tell whether this flight's piece was being worked on."""

    def failed_table(self, piece: Piece, failure: Failure) -> pa.Table:
        """The row of a single picture that could not be done."""


@dataclass
class _Isolated:
    """A shard being done one picture per task, all of it or the pictures that failed before."""

    rows: Sequence[int]
    tables: dict[int, pa.Table] = field(default_factory=dict)
    report: Report = field(default_factory=Report)


class ShardRunner:
    """Runs one kind of work over shards until all are committed or have failed."""

    def __init__(
        self,
        work: ShardWork,
        output: str,
        todo: Sequence[Shard],
        progress: RunProgress,
        *,
        retry: Mapping[Shard, Sequence[int]] | None = None,
        no_capacity_after: float = 300.0,
    ) -> None:
        """Prepare a run.

        Args:
            work: what to do with a piece.
            output: folder of the parts.
            todo: shards without a part.
            progress: told of what is done.
            retry: rows of committed shards to do again, one picture per task.
            no_capacity_after: seconds to wait for a node that can hold what the work needs.
        """
        self.work = work
        self.output = output
        self.progress = progress
        self.total = Report()
        self.no_capacity_after = no_capacity_after
        self._queue: deque[tuple[float, Piece]] = deque((0.0, Piece(shard)) for shard in todo)
        self._flights: dict[ObjectRef[Any], Flight] = {}
        self._errors: dict[Piece, int] = {}
        self._losses: dict[Piece, int] = {}
        self._node_losses: dict[Piece, int] = {}
        self._isolated: dict[Shard, _Isolated] = {}
        for shard, rows in (retry or {}).items():
            self._isolate(shard, rows)
        self._failed: dict[Shard, str] = {}
        self._committed = 0
        self._capacity_seen = monotonic()
        self._capacity = cluster.capacity()
        self._capacity_asked = monotonic()

    def run(self) -> Report:
        """Work until nothing is left.

        Raises:
            ShardFailed: some shards could not be done; the others are committed.
            NoCapacity: for `no_capacity_after` seconds no node could hold what the work needs.
            PipelineError: an error that a retry cannot mend.
        """
        while self._queue or self._flights:
            self._launch()
            if self._flights:
                ready, _ = ray.wait(list(self._flights), timeout=0.5)
            else:  # all that is left waits for its next attempt
                ready = []
                sleep(0.1)
            for reference in ready:
                self._settle(reference)
            self.progress.refresh(self.work.state(self._flights.values()))
            if not ready:
                self._check_capacity()
        if self._failed:
            shard, reason = next(iter(self._failed.items()))
            raise ShardFailed(
                f"{len(self._failed)} shards could not be done, the first is {shard.ordinal} "
                f"(rows from {shard.first_row}): {reason}; what was done is committed, a rerun does the rest"
            )
        return self.total

    def _launch(self) -> None:
        if monotonic() - self._capacity_asked > CAPACITY_EVERY:
            self._capacity, self._capacity_asked = cluster.capacity(), monotonic()
        for _ in range(len(self._queue)):
            if not self.work.has_room(self._flights.values(), self._capacity):
                return
            not_before, piece = self._queue.popleft()
            if not_before > monotonic():
                self._queue.append((not_before, piece))
                continue
            flight = Flight(piece)
            self._flights[self.work.start(flight)] = flight

    def _settle(self, reference: ObjectRef[Any]) -> None:
        flight = self._flights.pop(reference)
        try:
            result = ray.get(reference)
            following = self.work.proceed(flight)
        except (rx.RayError, PipelineError) as error:
            self._after_error(flight, error)
            return
        self._capacity_seen = monotonic()
        if following is not None:
            self._flights[following] = flight
            return
        if flight.piece.whole:
            self._count(result)
        else:
            self._collect(flight.piece, result)

    def _count(self, report: Report) -> None:
        self._committed += 1
        self.total.add(report)
        self.progress.advance(report)

    def _after_error(self, flight: Flight, error: Exception) -> None:
        at_work = self.work.lost(flight, error)
        piece = flight.piece
        cause = error.cause if isinstance(error, rx.RayTaskError) else error
        if isinstance(cause, PipelineError) and not isinstance(cause, StorageError):
            raise cause
        if not at_work or _died_with_node(cause):
            self._node_losses[piece] = self._node_losses.get(piece, 0) + 1
            if self._node_losses[piece] <= NODE_LOSSES:
                self._queue.append((0.0, piece))
                return
        elif _ended_worker(cause):
            self._after_worker_loss(flight, cause)
            return
        self._errors[piece] = self._errors.get(piece, 0) + 1
        attempt = self._errors[piece]
        told = f"{type(cause).__name__}: {cause}".splitlines()[0]
        log.warning("shard %d, attempt %d: %s", piece.shard.ordinal, attempt, told)
        if attempt >= ATTEMPTS:
            self._give_up(piece.shard, told)
        else:
            self._queue.append((monotonic() + RETRY_SECONDS * 4 ** (attempt - 1), piece))

    def _after_worker_loss(self, flight: Flight, cause: Exception) -> None:
        piece = flight.piece
        self._losses[piece] = self._losses.get(piece, 0) + 1
        log.warning(
            "shard %d%s ended its worker while at %s (%d of %d)",
            piece.shard.ordinal,
            "" if piece.whole else f", picture {piece.row}",
            flight.stage,
            self._losses[piece],
            WORKER_LOSSES,
        )
        if self._losses[piece] < WORKER_LOSSES:
            self._queue.append((0.0, piece))
        elif piece.whole:
            self._isolate(piece.shard, range(piece.shard.rows))
        else:
            kind = "OutOfMemory" if isinstance(cause, rx.OutOfMemoryError) else "WorkerDied"
            failure = Failure(
                flight.stage,
                kind,
                f"this picture alone ended {WORKER_LOSSES} workers: a crash, too much memory or time",
            )
            report = Report(images=1, table=self.work.failed_table(piece, failure))
            report.fail(failure)
            self._collect(piece, report)

    def _isolate(self, shard: Shard, rows: Sequence[int]) -> None:
        self._isolated[shard] = _Isolated(rows)
        self._queue.extend((0.0, Piece(shard, row)) for row in rows)

    def _collect(self, piece: Piece, report: Report) -> None:
        """Keep a single picture's row; put the shard's part when all that were asked for are there."""
        state = self._isolated[piece.shard]
        assert piece.row is not None
        assert report.table is not None
        state.tables[piece.row] = report.table
        state.report.add(report)
        if len(state.tables) < len(state.rows):
            return
        del self._isolated[piece.shard]
        try:
            put_part(self.output, piece.shard, self._assembled(piece.shard, state))
        except StorageError as error:
            self._give_up(piece.shard, str(error))
            return
        self._count(state.report)

    def _assembled(self, shard: Shard, state: _Isolated) -> pa.Table:
        if len(state.tables) < shard.rows:
            before = Parts(self.output, (shard,)).read(shard)
            rest = {row: before.slice(row, 1) for row in range(shard.rows)}
            state.tables = rest | state.tables
        return pa.concat_tables(state.tables[row] for row in range(shard.rows))

    def _give_up(self, shard: Shard, reason: str) -> None:
        self._failed[shard] = reason
        self._queue = deque(entry for entry in self._queue if entry[1].shard != shard)
        if len(self._failed) >= 3 and not self._committed:
            raise ShardFailed(f"the first {len(self._failed)} shards all failed: {reason}")

    def _check_capacity(self) -> None:
        lacking = [need for need in self.work.needs() if not cluster.fits(need)]
        if not lacking:
            self._capacity_seen = monotonic()
        elif monotonic() - self._capacity_seen > self.no_capacity_after:
            wanted = ", ".join(f"{name} {amount:g}" for name, amount in lacking[0].items())
            raise NoCapacity(
                f"no node with {wanted} for {self.no_capacity_after:.0f} s: "
                "what was done is committed, run again when the cluster has such a node"
            )


def work_through(
    work: ShardWork, title: str, ready: RunOutput, summary: Summary, options: RunOptions
) -> None:
    """Run the shards that an output still lacks, showing progress, and add up what they came to.

    Raises:
        PipelineError: as `ShardRunner.run` does.
    """
    with RunProgress(title, ready.rows, ready.rows_committed) as progress:
        runner = ShardRunner(
            work,
            ready.uri,
            ready.todo,
            progress,
            retry=ready.retry,
            no_capacity_after=options.no_capacity_after,
        )
        summary.report = runner.total
        summary.work_begins()
        runner.run()


def _died_with_node(cause: BaseException) -> bool:
    lost = (rx.NodeDiedError, rx.ObjectLostError, rx.OwnerDiedError, rx.ObjectFetchTimedOutError)
    return isinstance(cause, lost) or "node has died" in str(cause)


def _ended_worker(cause: BaseException) -> bool:
    return isinstance(cause, rx.WorkerCrashedError | rx.OutOfMemoryError | rx.RayActorError)
