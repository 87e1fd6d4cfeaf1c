"""The shards of a small inspection, one after the other in this process."""

from __future__ import annotations

import logging
from time import monotonic, sleep

from pipeline.engine.inspect.inspecting import inspect_piece
from pipeline.engine.inspect.plan import InspectionPlan
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.shards.piece import Piece, commit_or_return
from pipeline.errors import ShardFailed, StorageError
from pipeline.runs.backoff import ATTEMPTS, DEFAULT_BACKOFF, Backoff
from pipeline.runs.output import RunOutput
from pipeline.runs.report import Report
from pipeline.runs.summary import RunInterrupted, WorkDone
from pipeline.shards import Shard

log = logging.getLogger(__name__)


def inspect_shards(
    plan: InspectionPlan, ready: RunOutput, backoff: Backoff = DEFAULT_BACKOFF
) -> WorkDone:
    """Inspect the shards that an output lacks.

    Raises:
        RunInterrupted: Ctrl-C; it says how much was committed.
        ShardFailed: a store keeps failing.
        PipelineError: an error that no retry can help.
    """
    total = Report()
    work_began = monotonic()
    with RunProgress("inspect", ready.rows, ready.rows_committed, logs=ready.logs) as progress:
        try:
            for shard in ready.todo:
                report = _inspect_patiently(plan, shard, backoff)
                total.add(report)
                progress.advance(report)
                if progress.is_due():
                    progress.refresh(FlowState([StageLoad("inspect", "hashing", 1, 1, 0)]))
        except KeyboardInterrupt as interrupt:
            raise RunInterrupted(total.images) from interrupt
    return WorkDone(ready, total, work_began)


def _inspect_patiently(plan: InspectionPlan, shard: Shard, backoff: Backoff) -> Report:
    piece = Piece(shard)
    for attempt in range(1, ATTEMPTS + 1):
        report = Report()
        try:
            table = inspect_piece(
                plan, piece, report, is_last_chance=attempt == ATTEMPTS, is_watched=False
            )
            return commit_or_return(piece, plan.output, table, report)
        except StorageError as error:
            if attempt == ATTEMPTS:
                raise ShardFailed(
                    f"shard {shard.ordinal} could not be done: {error}; what was done is committed, "
                    "a rerun does the rest"
                ) from error
            log.warning("shard %d, attempt %d: %s", shard.ordinal, attempt, error)
            sleep(backoff.wait(attempt))
    raise AssertionError("unreachable")
