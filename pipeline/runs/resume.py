"""Whether a run may write into an output: it starts there, resumes itself, or is rejected.

Every job that writes an output decides it here: runs over shards, training, compression, imported
proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import run_record, storage, uris
from pipeline.errors import InvalidConfiguration, MismatchedOutput
from pipeline.run_record import RunRecord


class TakenOver(MismatchedOutput):
    """Another run started in this run's output and now owns it."""


def find_run_to_resume(
    output: str,
    record: RunRecord,
    *,
    overwrite: bool,
    read_record: Callable[[str], RunRecord | None] = run_record.read_record,
    remains: Sequence[str] = (),
) -> RunRecord | None:
    """The record of the earlier run that this run resumes, or None if this run starts from nothing.

    Nothing is written or removed.

    Args:
        output: the folder to write.
        record: what this run does.
        overwrite: start from nothing whatever the output holds.
        read_record: reads the earlier run's record; None means that there was none.
        remains: objects in the output that no run leaves without a record.

    Raises:
        MismatchedOutput: a run with other settings wrote the output, or one whose record is missing.
    """
    earlier = read_record(output)
    if overwrite:
        return None
    if earlier is None:
        unknown = [name for name in remains if storage.exists(uris.join(output, name))]
        if unknown:
            raise MismatchedOutput(
                f"{uris.redact_uri(output)} holds {unknown[0]} of an unknown run, since "
                f"{run_record.RECORD_NAME} is missing: choose another --output or pass --overwrite"
            )
        return None
    differences = run_record.describe_differences(earlier, record)
    if differences:
        raise MismatchedOutput(
            f"{uris.redact_uri(output)} was written by a run with other settings ({'; '.join(differences)}): "
            "choose another --output or pass --overwrite"
        )
    return earlier


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


def check_apart(output: str, **inputs: str | None) -> None:
    """Reject a run that would write over what it reads.

    Args:
        output: the folder to write.
        inputs: the URIs that the run reads, by the names of their options.

    Raises:
        InvalidConfiguration: one of them is the output.
    """
    for option, uri in inputs.items():
        if uri is not None and _resolve(uri) == _resolve(output):
            raise InvalidConfiguration(
                f"--output {uris.redact_uri(output)} is the --{option}: choose another folder"
            )


def _resolve(uri: str) -> str:
    """Where a URI leads, links followed."""
    absolute = uris.make_absolute(uri)
    return str(Path(absolute).resolve()) if uris.get_protocol(absolute) == "file" else absolute
