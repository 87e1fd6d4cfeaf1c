"""The driver's loop over shards: start work, wait, carry out what the retry policy decides, count.

Retries are the driver's, never Ray's: a shard whose attempt ended returns to the queue. A commit is one
whole-object put under a content key, so an attempt that was believed dead but still writes does no harm. A
shard that lost its worker twice is redone one image per task; only an image that ends two workers on its own
is failed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic, sleep
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from pipeline.engine import cluster
from pipeline.engine.monitor.metrics import RunMetrics
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.node_versions import NodeVersions, VersionCheck
from pipeline.engine.shards.error_records import record_error
from pipeline.engine.shards.isolation import IsolatedShards
from pipeline.engine.shards.output_watch import OutputWatch
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.piece_queue import PieceQueue
from pipeline.engine.shards.retry_policy import (
    Decision,
    EndRun,
    FailImage,
    GiveUp,
    Isolate,
    Retry,
    RetryPolicy,
    classify_error,
    unwrap_error,
)
from pipeline.engine.shards.work import Flight, ShardWork
from pipeline.errors import NoCapacity, PipelineError, ShardFailed, StorageError
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput
from pipeline.runs.part_inspection import read_committed_report
from pipeline.runs.report import Failure, Report
from pipeline.runs.run_logs import RunLogs
from pipeline.runs.summary import RunInterrupted, WorkDone
from pipeline.shards import Shard

log = logging.getLogger(__name__)

CAPACITY_EVERY = 5.0
"""Seconds between checks of the cluster: nodes may join and leave."""


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
        policy: RetryPolicy | None = None,
        watch: OutputWatch | None = None,
        logs: RunLogs | None = None,
        on_commit: Callable[[Report], None] | None = None,
        versions: VersionCheck | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            work: what to do with a piece.
            output: folder of the parts.
            todo: shards without a part.
            progress: shows what is done.
            metrics: shows the same to Prometheus.
            retry: rows of committed shards to do again, one image per task.
            no_capacity_after: seconds to wait for a node that can hold what the work needs.
            policy: decides what follows an error; None takes the default waits.
            watch: notices what other drivers do in the output.
            logs: keeps what lies behind errors.
            on_commit: called with the report of each committed shard.
            versions: warns of nodes with other versions than the driver's; None takes a new one.
        """
        self.work = work
        self.output = output
        self.progress = progress
        self.metrics = metrics
        self.no_capacity_after = no_capacity_after
        self.policy = policy or RetryPolicy()
        self.logs = logs
        self._on_commit = on_commit
        self._versions = versions or VersionCheck()
        self.total = Report()
        """Sums over what is done so far."""
        self._queue = PieceQueue(Piece(shard) for shard in todo)
        self._flights: dict[ObjectRef[Any], Flight] = {}
        self._watch = watch
        self._committed_elsewhere: set[int] = set()
        """Ordinals of shards that another driver had committed when this one had stood still."""
        self._isolated = IsolatedShards(output)
        for shard, rows in (retry or {}).items():
            self._isolate(shard, rows)
        self._failed: dict[Shard, str] = {}
        self._postponed: deque[tuple[float, Piece, Callable[[], None]]] = deque()
        """Steps of the driver itself that a store prevented: when to try again, and for which piece."""
        self._capacity_seen = monotonic()
        self._capacity = cluster.get_capacity()
        self._capacity_asked = monotonic()

    def run(self) -> Report:
        """Work until nothing is left.

        Raises:
            ShardFailed: some shards could not be done; the others are committed.
            NoCapacity: for `no_capacity_after` seconds no node could hold what the work needs.
            PipelineError: an error that no retry can help.
        """
        while self._queue or self._flights or self._postponed:
            self._advance()
        if self._failed:
            shard, reason = next(iter(self._failed.items()))
            raise ShardFailed(
                f"{len(self._failed)} shards could not be done, the first is {shard.ordinal} "
                f"(rows from {shard.first_row}): {reason}; what was done is committed, a rerun does the rest"
            )
        return self.total

    def _advance(self) -> None:
        self._start_pieces()
        self._take_due_steps()
        ended = self._wait_for_stages()
        if self._watch is not None:  # before anything goes on that puts a part
            self._committed_elsewhere |= self._watch.check()
        for reference in ended:
            self._handle_end(reference)
        if self.progress.is_due():
            self._refresh_displays()
        if not ended:
            self._check_capacity()

    def _refresh_displays(self) -> None:
        flow = self.work.measure_flow(self._flights.values(), self._capacity)
        state = replace(flow, queued=len(self._queue), hosts=self._capacity.hosts)
        self.progress.refresh(state)
        if self.metrics is not None:
            self.metrics.record_flow(state)

    def _start_pieces(self) -> None:
        if monotonic() - self._capacity_asked > CAPACITY_EVERY:
            self._capacity, self._capacity_asked = cluster.get_capacity(), monotonic()
            self.work.follow(self._capacity, len(self._queue))
        while self._queue and self.work.has_room(self._flights.values(), self._capacity):
            piece = self._queue.take()
            if piece is None:
                return
            is_elsewhere = piece.shard.ordinal in self._committed_elsewhere
            if is_elsewhere and self._count_if_committed(piece):
                continue
            flight = Flight(piece, is_last_chance=self.policy.is_last_chance(piece))
            self._flights[self.work.start(flight)] = flight

    def _wait_for_stages(self) -> list[ObjectRef[Any]]:
        """Wait half a second for a stage to end, then return all that have ended."""
        if not self._flights:  # everything left waits for its next attempt
            sleep(0.1)
            return []
        ended, rest = ray.wait(list(self._flights), timeout=0.5)
        if ended and rest:
            ended += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return ended

    def _handle_end(self, reference: ObjectRef[Any]) -> None:
        flight = self._flights.pop(reference)
        stage = flight.stage
        try:
            report = ray.get(reference)
            next_stage = self.work.start_next_stage(flight)
        except (RayError, PipelineError) as error:
            self._handle_error(flight, error)
            return
        self._capacity_seen = monotonic()
        self.policy.note_success(stage, flight.started_at)
        if next_stage is not None:
            self._flights[next_stage] = flight
        elif flight.piece.is_whole:
            self._count(report)
        else:
            self._collect(flight.piece, report)

    def _count(self, report: Report) -> None:
        self.policy.note_commit()
        self.total.add(report)
        self._versions.check(NodeVersions(*node) for node in report.versions_by_node.items())
        self.progress.advance(report)
        if self.metrics is not None:
            self.metrics.count_shard(report)
        if self._on_commit is not None:
            self._on_commit(report)

    def _handle_error(self, flight: Flight, error: Exception) -> None:
        was_at_work = self.work.clean_up(flight, error)
        piece = flight.piece
        if piece.shard in self._failed:
            return
        cause = unwrap_error(error)
        self._count_error(cause)
        if classify_error(cause).lost_attempt and self._count_if_committed(piece):
            return
        decision = self.policy.after(
            piece, cause, stage=flight.stage, was_at_work=was_at_work, now=monotonic()
        )
        self._record_error(piece, error, decision, flight.stage)
        self._carry_out(decision, piece)

    def _record_error(self, piece: Piece, error: Exception, decision: Decision, stage: str) -> None:
        if self.logs is not None:
            cause = unwrap_error(error)
            record_error(self.logs, piece, error, decision, stage=stage, cause=cause)

    def _count_error(self, error: BaseException) -> None:
        if self.metrics is not None:
            is_store = isinstance(error, StorageError)
            self.metrics.count_error("store" if is_store else classify_error(error).name.lower())

    def _carry_out(self, decision: Decision, piece: Piece) -> None:
        if decision.message:
            log.warning("%s", decision.message)
        match decision:
            case Retry(wait=wait):
                self._queue.retry(piece, wait)
            case Isolate():
                self._isolate(piece.shard, range(piece.shard.rows))
            case FailImage(failure=failure):
                self._take_step(piece, lambda: self._fail_image(piece, failure))
            case GiveUp(reason=reason):
                self._give_up(piece.shard, reason)
            case EndRun(error=error):
                raise error

    def _count_if_committed(self, piece: Piece) -> bool:
        """Whether a lost attempt had put its part, so that only its report was lost."""
        try:
            report = read_committed_report(self.output, piece.shard) if piece.is_whole else None
        except PipelineError:  # the part is unreadable: redoing it does no harm
            return False
        if report is not None:
            self._count(report)
        return report is not None

    def _fail_image(self, piece: Piece, failure: Failure) -> None:
        report = Report(images=1, table=self.work.build_failed_row(piece, failure))
        report.fail(failure)
        self._collect(piece, report)

    def _isolate(self, shard: Shard, rows: Sequence[int]) -> None:
        self._isolated.begin(shard, rows)
        self._queue.add_first([Piece(shard, row) for row in rows])

    def _collect(self, piece: Piece, report: Report) -> None:
        if self._isolated.collect(piece, report):
            self._take_step(Piece(piece.shard), lambda: self._put_isolated(piece.shard))

    def _put_isolated(self, shard: Shard) -> None:
        self._count(self._isolated.put(shard))

    def _take_step(self, piece: Piece, step: Callable[[], None]) -> None:
        """Do a step of the driver itself for a piece, again later if its store fails."""
        try:
            step()
        except StorageError as error:
            self._count_error(error)
            decision = self.policy.after_driver_error(piece, error)
            self._record_error(piece, error, decision, "driver")
            if isinstance(decision, Retry):
                log.warning("%s", decision.message)
                self._postponed.append((monotonic() + decision.wait, piece, step))
            else:
                self._carry_out(decision, piece)

    def _take_due_steps(self) -> None:
        for _ in range(len(self._postponed)):
            not_before, piece, step = self._postponed.popleft()
            if not_before > monotonic():
                self._postponed.append((not_before, piece, step))
            elif piece.shard not in self._failed:
                self._take_step(piece, step)

    def _give_up(self, shard: Shard, reason: str) -> None:
        """Count a shard as failed, and drop its other images if they are done one by one."""
        self._failed[shard] = reason
        self._queue.drop(shard)

    def _check_capacity(self) -> None:
        missing = [
            lack for need in self.work.list_needs() if (lack := cluster.describe_missing(need))
        ]
        if not missing:
            self._capacity_seen = monotonic()
        elif monotonic() - self._capacity_seen > self.no_capacity_after:
            raise NoCapacity(
                f"for {self.no_capacity_after:.0f} s the cluster has lacked {missing[0]}: what was done "
                "is committed, run again when it has such a node"
            )


def run_shards(
    work: ShardWork,
    title: str,
    ready: RunOutput,
    options: RunOptions,
    policy: RetryPolicy | None = None,
    *,
    on_commit: Callable[[Report], None] | None = None,
    versions: VersionCheck | None = None,
) -> WorkDone:
    """Do the shards that an output lacks, showing progress; `on_commit` gets the report of each.

    `versions` knows nodes that the caller has compared already.

    Raises:
        RunInterrupted: Ctrl-C; it says how much was committed.
        PipelineError: as `ShardRunner.run` does.
    """
    with RunProgress(title, ready.rows, ready.rows_committed, logs=ready.logs) as progress:
        runner = ShardRunner(
            work,
            ready.uri,
            ready.todo,
            progress,
            metrics=RunMetrics(title, ready.record.fingerprint),
            retry=ready.retry,
            no_capacity_after=options.no_capacity_after,
            policy=policy,
            watch=OutputWatch(ready),
            logs=ready.logs,
            on_commit=on_commit,
            versions=versions,
        )
        work_began = monotonic()
        try:
            report = runner.run()
        except KeyboardInterrupt as interrupt:
            raise RunInterrupted(runner.total.images) from interrupt
    shares = progress.utilisation.compute_shares()
    capacity = cluster.get_capacity()
    return WorkDone(ready, report, work_began, shares, capacity.cpus, capacity.gpus)
