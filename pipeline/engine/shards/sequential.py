"""The shards of a small run, one after the other in this process."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from time import monotonic, sleep

from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.shards.output_watch import OutputWatch
from pipeline.errors import MissingObject, ShardFailed, StorageError
from pipeline.runs.backoff import ATTEMPTS, DEFAULT_BACKOFF, Backoff
from pipeline.runs.output import RunOutput
from pipeline.runs.report import Report
from pipeline.runs.summary import RunInterrupted, WorkDone
from pipeline.shards import Shard

log = logging.getLogger(__name__)

ShardWork = Callable[[Shard, bool], Report]
"""Does a shard and commits its part; the second argument says whether this is the last attempt."""


def run_shards_here(
    do_shard: ShardWork,
    job: str,
    stage: StageLoad,
    ready: RunOutput,
    backoff: Backoff = DEFAULT_BACKOFF,
) -> WorkDone:
    """Do the shards that an output lacks.

    Args:
        do_shard: the work on one shard.
        job: the job's name, for the progress.
        stage: the only stage, as the progress shows it.
        ready: the output, opened.
        backoff: waits between attempts at a shard whose store fails.

    Raises:
        RunInterrupted: Ctrl-C; it says how much was committed.
        ShardFailed: a store keeps failing.
        TakenOver: another run with other settings started in the output.
        PipelineError: an error that no retry can help.
    """
    total = Report()
    work_began = monotonic()
    watch = OutputWatch(ready, standstill=math.inf)  # between two shards, minutes may pass
    with RunProgress(job, ready.rows, ready.rows_committed, logs=ready.logs) as progress:
        try:
            for shard in ready.todo:
                watch.check()
                report = _do_patiently(do_shard, shard, backoff)
                total.add(report)
                progress.advance(report)
                if progress.is_due():
                    progress.refresh(FlowState([stage]))
        except KeyboardInterrupt as interrupt:
            raise RunInterrupted(total.images) from interrupt
    return WorkDone(ready, total, work_began)


def _do_patiently(do_shard: ShardWork, shard: Shard, backoff: Backoff) -> Report:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return do_shard(shard, attempt == ATTEMPTS)
        except MissingObject:
            raise
        except StorageError as error:
            if attempt == ATTEMPTS:
                raise ShardFailed(
                    f"shard {shard.ordinal} could not be done: {error}; what was done is committed, "
                    "a rerun does the rest"
                ) from error
            log.warning("shard %d, attempt %d: %s", shard.ordinal, attempt, error)
            sleep(backoff.wait(attempt))
    raise AssertionError("unreachable")
