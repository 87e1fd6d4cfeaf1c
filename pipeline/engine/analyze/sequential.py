"""The shards of a small analysis, one after the other in this process."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from time import monotonic, sleep

from pipeline.engine.analyze.match_shard import match_shard
from pipeline.engine.analyze.plan import AnalysisPlan, ShardSource
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.errors import MissingObject, ShardFailed, StorageError
from pipeline.runs.backoff import ATTEMPTS, DEFAULT_BACKOFF, Backoff
from pipeline.runs.output import RunOutput
from pipeline.runs.report import Report
from pipeline.runs.summary import RunInterrupted, WorkDone
from pipeline.shards import Shard

log = logging.getLogger(__name__)


def match_shards(
    plan: AnalysisPlan,
    sources: Mapping[int, ShardSource],
    ready: RunOutput,
    backoff: Backoff = DEFAULT_BACKOFF,
) -> WorkDone:
    """Match the shards that an output lacks.

    Raises:
        RunInterrupted: Ctrl-C; it says how much was committed.
        ShardFailed: a store keeps failing.
        PipelineError: an error that no retry can help.
    """
    total = Report()
    work_began = monotonic()
    with RunProgress("analyze", ready.rows, ready.rows_committed, logs=ready.logs) as progress:
        try:
            for shard in ready.todo:
                report = _match_patiently(plan, shard, sources[shard.ordinal], backoff)
                total.add(report)
                progress.advance(report)
                if progress.is_due():
                    progress.refresh(FlowState([StageLoad("match", "matching", 1, 1, 0)]))
        except KeyboardInterrupt as interrupt:
            raise RunInterrupted(total.images) from interrupt
    return WorkDone(ready, total, work_began)


def _match_patiently(
    plan: AnalysisPlan, shard: Shard, source: ShardSource, backoff: Backoff
) -> Report:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return match_shard(plan, shard, source)
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
