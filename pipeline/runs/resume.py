"""Whether a run may write into an output: it starts there, resumes itself, or is rejected.

Every job that writes an output decides it here: runs over shards, training, compression, imported
proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline import run_record, uris
from pipeline.errors import MismatchedOutput
from pipeline.run_record import RunRecord


class TakenOver(MismatchedOutput):
    """Another run started in this run's output and now owns it."""


def find_run_to_resume(
    output: str,
    record: RunRecord,
    *,
    overwrite: bool,
    read_record: Callable[[str], RunRecord | None] = run_record.read_record,
    list_remains: Callable[[], Sequence[str]] = tuple,
) -> RunRecord | None:
    """The record of the earlier run that this run resumes, or None if this run starts from nothing.

    Nothing is written or removed.

    Args:
        output: the folder to write.
        record: what this run does.
        overwrite: start from nothing whatever the output holds.
        read_record: reads the earlier run's record; None means that there was none.
        list_remains: lists the objects that the output holds under names that this run writes or removes;
            called only if there is no record. No run leaves them without one, so they may be the user's own.

    Raises:
        MismatchedOutput: a run with other settings wrote the output, or one whose record is missing, or
            `overwrite` would mix the files of two jobs.
    """
    earlier = read_record(output)
    if overwrite:
        _check_same_job(output, earlier, record)
        return None
    if earlier is None:
        remains = list_remains()
        if remains:
            others = len(remains) - 1
            more = f" and {others} more file{'s' * (others > 1)}" if others else ""
            raise MismatchedOutput(
                f"{uris.redact_uri(output)} holds {remains[0]}{more} of an unknown run, since "
                f"{run_record.RECORD_NAME} is missing: choose another --output or pass --overwrite, "
                "which removes or replaces them"
            )
        return None
    differences = run_record.describe_differences(earlier, record)
    if differences:
        raise MismatchedOutput(
            f"{uris.redact_uri(output)} was written by a run with other settings ({'; '.join(differences)}): "
            "choose another --output or pass --overwrite"
        )
    return earlier


def _check_same_job(output: str, earlier: RunRecord | None, record: RunRecord) -> None:
    """Overwriting removes what this job writes, so it would leave another job's files beside it."""
    if earlier is not None and earlier.job != record.job:
        raise MismatchedOutput(
            f"{uris.redact_uri(output)} holds a run of {earlier.job}, which --overwrite of {record.job} "
            "does not replace: choose another --output, or remove the folder first"
        )


def check_not_taken_over(output: str, record: RunRecord) -> RunRecord:
    """The record in the output, if it is still this run's.

    Raises:
        TakenOver: another run with other settings put its own record there.
    """
    stored = run_record.read_record(output)
    if stored is None or stored.fingerprint != record.fingerprint:
        raise TakenOver(
            f"{uris.redact_uri(output)}/{run_record.RECORD_NAME} is not of this run: another run with other "
            "settings started here at the same time or later; choose another --output, or pass --overwrite"
        )
    return stored
