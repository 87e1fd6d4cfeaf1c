"""The driver's loop over shards: start work, wait, retry, isolate what kills its worker, count.

Retries are the driver's, never Ray's: a shard whose attempt ended is put back in the queue, and since
a commit is one whole-object put under a content key, an attempt that was believed dead but still
writes does no harm. A shard that lost its worker twice is done again one image per task; only a
image that alone ends two workers is failed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any

import ray
from ray import ObjectRef
from ray import exceptions as rx

from pipeline.engine import cluster
from pipeline.engine.monitor.metrics import RunMetrics
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.shards.isolation import IsolatedShards
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.piece_queue import PieceQueue
from pipeline.engine.shards.ray_errors import died_with_node, ended_worker
from pipeline.engine.shards.work import Flight, ShardWork
from pipeline.errors import (
    NoCapacity,
    PipelineError,
    ShardFailed,
    StorageError,
)
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, committed_report
from pipeline.runs.report import Failure, Report
from pipeline.runs.summary import Summary
from pipeline.shards import Shard

log = logging.getLogger(__name__)

ATTEMPTS = 6
"""Attempts at a shard whose work raises an error: they outlast a store that is away for a minute."""
RETRY_SECONDS = 0.5
"""Wait before the first retry; each further one waits four times as long, up to the longest wait."""
LONGEST_WAIT = 30.0
"""Seconds between two attempts at most."""
GIVEN_UP_IN_A_ROW = 3
"""Shards that may be given up without one committed between: then the fault is none of theirs."""
CAPACITY_EVERY = 5.0
"""Seconds between looks at the cluster: nodes may join and leave."""
WORKER_LOSSES = 2
"""Workers that a shard, and then a single image, may end."""
MEMORY_LOSSES = 4
"""Workers that Ray may end for their node's memory at a single image: the need may be another's."""
ENDED_WORKERS = (
    "this image alone ended its workers again and again: a crash, too much memory or time"
)
NODE_LOSSES = 50
"""Attempts that may be lost with a node: they say nothing about the shard."""


class ShardRunner:
    """Runs one kind of work over shards until all are committed or have failed."""

    def __init__(
        self,
        work: ShardWork,
        output: str,
        todo: Sequence[Shard],
        progress: RunProgress,
        *,
        metrics: RunMetrics | None = None,
        retry: Mapping[Shard, Sequence[int]] | None = None,
        no_capacity_after: float = 300.0,
    ) -> None:
        """Prepare a run.

        Args:
            work: what to do with a piece.
            output: folder of the parts.
            todo: shards without a part.
            progress: told of what is done.
            metrics: told of the same, for Prometheus.
            retry: rows of committed shards to do again, one image per task.
            no_capacity_after: seconds to wait for a node that can hold what the work needs.
        """
        self.work = work
        self.output = output
        self.progress = progress
        self.metrics = metrics
        self.total = Report()
        self.no_capacity_after = no_capacity_after
        self._queue = PieceQueue(Piece(shard) for shard in todo)
        self._flights: dict[ObjectRef[Any], Flight] = {}
        self._errors: dict[Piece, int] = {}
        self._first_error: dict[Piece, float] = {}
        self._well_since = 0.0
        """When the latest began of those pieces that came through a stage."""
        self._losses: dict[Piece, int] = {}
        self._node_losses: dict[Piece, int] = {}
        self._isolated = IsolatedShards(output)
        for shard, rows in (retry or {}).items():
            self._isolate(shard, rows)
        self._failed: dict[Shard, str] = {}
        self._given_up_in_a_row = 0
        self._unput: deque[tuple[float, Shard, int]] = deque()
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
        while self._queue or self._flights or self._unput:
            self._turn()
        if self._failed:
            shard, reason = next(iter(self._failed.items()))
            raise ShardFailed(
                f"{len(self._failed)} shards could not be done, the first is {shard.ordinal} "
                f"(rows from {shard.first_row}): {reason}; what was done is committed, a rerun does the rest"
            )
        return self.total

    def _turn(self) -> None:
        self._launch()
        self._put_what_is_due()
        ready = self._ended()
        for reference in ready:
            self._settle(reference)
        if self.progress.due():
            self._show()
        if not ready:
            self._check_capacity()

    def _show(self) -> None:
        state = self.work.flow(self._flights.values(), self._capacity)
        self.progress.refresh(state)
        if self.metrics is not None:
            self.metrics.show(state)

    def _launch(self) -> None:
        if monotonic() - self._capacity_asked > CAPACITY_EVERY:
            self._capacity, self._capacity_asked = cluster.capacity(), monotonic()
            self.work.follow(self._capacity)
        while self._queue and self.work.has_room(self._flights.values(), self._capacity):
            piece = self._queue.take()
            if piece is None:
                return
            flight = Flight(piece, last_chance=self._errors.get(piece, 0) == ATTEMPTS - 1)
            self._flights[self.work.start(flight)] = flight

    def _ended(self) -> list[ObjectRef[Any]]:
        """Wait half a second for a stage to end; returns all that have, so that one look serves many."""
        if not self._flights:  # all that is left waits for its next attempt
            sleep(0.1)
            return []
        ready, rest = ray.wait(list(self._flights), timeout=0.5)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return ready

    def _settle(self, reference: ObjectRef[Any]) -> None:
        flight = self._flights.pop(reference)
        try:
            result = ray.get(reference)
            following = self.work.proceed(flight)
        except (rx.RayError, PipelineError) as error:
            self._after_error(flight, error)
            return
        self._capacity_seen = monotonic()
        self._well_since = max(self._well_since, flight.began)
        if following is not None:
            self._flights[following] = flight
            return
        if flight.piece.whole:
            self._count(result)
        else:
            self._collect(flight.piece, result)

    def _count(self, report: Report) -> None:
        self._given_up_in_a_row = 0
        self.total.add(report)
        self.progress.advance(report)
        if self.metrics is not None:
            self.metrics.count(report)

    def _after_error(self, flight: Flight, error: Exception) -> None:
        at_work = self.work.lost(flight, error)
        piece = flight.piece
        if piece.shard in self._failed:
            return
        cause = error.cause if isinstance(error, rx.RayTaskError) else error
        if isinstance(cause, PipelineError) and not isinstance(cause, StorageError):
            raise cause
        if (died_with_node(cause) or ended_worker(cause)) and self._was_committed(piece):
            return
        if not at_work or died_with_node(cause):
            self._node_losses[piece] = self._node_losses.get(piece, 0) + 1
            if self._node_losses[piece] <= NODE_LOSSES:
                self._queue.again(piece)
                return
        elif ended_worker(cause):
            self._after_worker_loss(flight, cause)
            return
        self._errors[piece] = self._errors.get(piece, 0) + 1
        self._first_error.setdefault(piece, monotonic())
        attempt = self._errors[piece]
        told = f"{type(cause).__name__}: {cause}".splitlines()[0]
        log.warning("shard %d, attempt %d: %s", piece.shard.ordinal, attempt, told)
        if attempt < ATTEMPTS:
            self._queue.again(piece, _wait(attempt))
        elif not piece.whole and self._well_since > self._first_error[piece]:  # others come through
            self._fail_image(piece, Failure.of(flight.stage, cause))
        else:
            self._give_up(piece.shard, told)

    def _was_committed(self, piece: Piece) -> bool:
        """Whether a lost attempt had put its part, and only its report was lost: then it is counted."""
        try:
            report = committed_report(self.output, piece.shard) if piece.whole else None
        except PipelineError:  # not to be read: then it is done again, which does no harm
            return False
        if report is not None:
            self._count(report)
        return report is not None

    def _after_worker_loss(self, flight: Flight, cause: Exception) -> None:
        piece = flight.piece
        self._losses[piece] = self._losses.get(piece, 0) + 1
        memory = isinstance(cause, rx.OutOfMemoryError)
        most = MEMORY_LOSSES if memory and not piece.whole else WORKER_LOSSES
        log.warning(
            "shard %d%s ended its worker while at %s (%d of %d)",
            piece.shard.ordinal,
            "" if piece.whole else f", image {piece.row}",
            flight.stage,
            self._losses[piece],
            most,
        )
        if self._losses[piece] < most:
            wait = 4 * _wait(self._losses[piece]) if memory else 0.0
            self._queue.again(piece, wait)
        elif piece.whole:
            self._isolate(piece.shard, range(piece.shard.rows))
        else:
            kind = "OutOfMemory" if memory else "WorkerDied"
            self._fail_image(piece, Failure(flight.stage, kind, ENDED_WORKERS))

    def _fail_image(self, piece: Piece, failure: Failure) -> None:
        try:
            table = self.work.failed_table(piece, failure)
        except StorageError as error:  # it reads the manifest: the image's turn comes again
            log.warning("shard %d: %s", piece.shard.ordinal, error)
            self._losses[piece] = max(0, self._losses.get(piece, 0) - 1)
            self._errors[piece] = min(ATTEMPTS - 1, self._errors.get(piece, 0))
            self._queue.again(piece, LONGEST_WAIT)
            return
        report = Report(images=1, table=table)
        report.fail(failure)
        self._collect(piece, report)

    def _isolate(self, shard: Shard, rows: Sequence[int]) -> None:
        self._isolated.begin(shard, rows)
        self._queue.add_first([Piece(shard, row) for row in rows])

    def _collect(self, piece: Piece, report: Report) -> None:
        if self._isolated.collect(piece, report):
            self._put_isolated(piece.shard)

    def _put_isolated(self, shard: Shard, attempt: int = 1) -> None:
        """Put the part of a shard whose images were done one by one; again later where that fails."""
        try:
            report = self._isolated.put(shard)
        except StorageError as error:
            log.warning("shard %d, attempt %d to put it: %s", shard.ordinal, attempt, error)
            if attempt < ATTEMPTS:
                self._unput.append((monotonic() + _wait(attempt), shard, attempt + 1))
            else:
                self._give_up(shard, str(error))
        else:
            self._count(report)

    def _put_what_is_due(self) -> None:
        for _ in range(len(self._unput)):
            not_before, shard, attempt = self._unput.popleft()
            if not_before > monotonic():
                self._unput.append((not_before, shard, attempt))
            else:
                self._put_isolated(shard, attempt)

    def _give_up(self, shard: Shard, reason: str) -> None:
        """Count a shard as failed, and forget its other images where they are done one by one."""
        self._failed[shard] = reason
        self._queue.drop(shard)
        self._given_up_in_a_row += 1
        if self._given_up_in_a_row >= GIVEN_UP_IN_A_ROW:
            raise ShardFailed(
                f"{self._given_up_in_a_row} shards failed one after the other: {reason}; "
                "what was done is committed, a rerun does the rest"
            )

    def _check_capacity(self) -> None:
        missing = [lack for need in self.work.needs() if (lack := cluster.missing(need))]
        if not missing:
            self._capacity_seen = monotonic()
        elif monotonic() - self._capacity_seen > self.no_capacity_after:
            raise NoCapacity(
                f"for {self.no_capacity_after:.0f} s the cluster has lacked {missing[0]}: what was done "
                "is committed, run again when it has such a node"
            )


def _wait(attempt: int) -> float:
    return min(LONGEST_WAIT, RETRY_SECONDS * float(4 ** (attempt - 1)))


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
            metrics=RunMetrics(title, ready.record.fingerprint),
            retry=ready.retry,
            no_capacity_after=options.no_capacity_after,
        )
        summary.report = runner.total
        summary.work_begins()
        try:
            runner.run()
        finally:
            summary.utilisation = progress.utilisation.means()
