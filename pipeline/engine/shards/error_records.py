"""What the logs of a run keep about an error of a worker, which otherwise only Ray's own log has."""

from __future__ import annotations

import traceback
from typing import Any

from ray.exceptions import RayError

from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.retry_policy import Decision, classify_error
from pipeline.runs.run_logs import RunLogs

_CONSEQUENCES = {
    "Retry": "retried",
    "Isolate": "its images are done one by one",
    "FailImage": "the image is failed",
    "GiveUp": "the shard is given up",
    "EndRun": "the run ends",
}


def record_error(
    logs: RunLogs,
    piece: Piece,
    error: BaseException,
    decision: Decision,
    *,
    stage: str,
    cause: BaseException,
) -> None:
    """Keep an error with its traceback, or with what Ray says about a lost worker.

    Args:
        logs: of the run.
        piece: what the work was on.
        error: as Ray, or the driver's own code, raised it.
        decision: what follows.
        stage: where it happened.
        cause: the error without Ray's wrapping.
    """
    shard = piece.shard
    values: dict[str, Any] = {
        "stage": stage,
        "shard": shard.ordinal,
        "first_row": shard.first_row + (piece.row or 0),
        "rows": piece.rows,
        "cause": classify_error(cause).name.lower(),
        "error": f"{type(cause).__name__}: {cause}".splitlines()[0],
        "consequence": _CONSEQUENCES[type(decision).__name__],
    }
    logs.record_error(values, _describe(error))


def _describe(error: BaseException) -> str:
    """The worker's traceback, which is the text of Ray's error, or that of the driver's own error."""
    if isinstance(error, RayError):
        return str(error)
    return "".join(traceback.format_exception(error))
