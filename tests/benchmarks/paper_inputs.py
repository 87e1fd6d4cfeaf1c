"""What the inputs of a job hold: whether a finished step is still that of its inputs, and their limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pipeline import storage, uris
from pipeline.errors import PipelineError
from pipeline.run_record import read_record

INPUTS = ("--manifest", "--proposals", "--checkpoint", "--weights", "--detections")
"""Options that name the inputs of a job."""
DIGESTED = ("model.json", ".parquet")
"""Ends of the names of files that identify a folder without run.json: a checkpoint or a manifest."""


def list_inputs(command: Sequence[str]) -> Iterator[str]:
    """The values of the options `INPUTS`."""
    is_input = False
    for word in command:
        if word.startswith("--"):
            is_input = word in INPUTS
        elif is_input:
            yield word


def identify_input(uri: str) -> str:
    """A digest of a file, or the fingerprint of the run that wrote a folder; empty if there is neither.

    An input that cannot be read has none: the job says what is wrong with it.
    """
    with suppress(PipelineError, OSError):
        return hashlib.sha256(storage.read(uri)).hexdigest()
    with suppress(PipelineError, OSError):
        record = read_record(uri)
        return _digest_files(uri) if record is None else record.fingerprint
    return ""


def _digest_files(folder: str) -> str:
    names = [name for name in storage.list_names(folder) if name.endswith(DIGESTED)]
    digest = hashlib.sha256()
    for name in names:
        digest.update(hashlib.sha256(storage.read(uris.join(folder, name))).digest())
    return digest.hexdigest() if names else ""


def find_stored_limit(proposals: str) -> int | None:
    """The most boxes per image that a run of proposals stored; None if it has no limit or states none."""
    record = read_record(proposals)
    provenance = {} if record is None else record.settings.get("proposals")
    limit = provenance.get("max_boxes") if isinstance(provenance, dict) else None
    return limit if isinstance(limit, int) else None
