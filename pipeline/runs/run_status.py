"""The state of a run, from the objects of its output alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import log_files, run_record, shards, storage, uris
from pipeline.errors import MissingObject, StorageError, UnreadableDataset
from pipeline.json_reader import InvalidJson, JsonFields, is_finite_number, parse_fields
from pipeline.progress_samples import read_progress
from pipeline.run_record import RECORD_NAME, RunRecord
from pipeline.runs.output import SUMMARY_NAME, WITHOUT_STATUS
from pipeline.runs.part_inspection import inspect_parts

MATCHES_FOLDER = "matches"
"""The folder of an analysis that has its parts."""
MOST_FAULTS = 5
"""Damaged parts that are named."""
_LAST_BYTES = 8192


@dataclass(frozen=True)
class Rate:
    """How fast a run works."""

    per_second: float
    unit: str
    """`images` or `steps`."""
    source: str
    """Where the figure comes from."""


@dataclass(frozen=True)
class OutputStatus:
    """The state of an output."""

    output: str
    job: str
    state: str
    """`finished`, `unfinished` or `not begun`."""
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    resolved: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "images"
    """What `total`, `committed` and `left` count: `images`, `steps` or `stages`."""
    total: int | None = None
    """None if the output does not say."""
    committed: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    """Failed images by stage and error type."""
    shards: int | None = None
    shards_committed: int | None = None
    faults: Mapping[str, str] = field(default_factory=dict)
    """Parts that a rerun does again, with the reason."""
    rate: Rate | None = None
    starts: int | None = None
    """How often the job was started, as its logs have it."""
    last_line: str | None = None
    """The last line of the driver's log."""
    notes: tuple[str, ...] = ()

    @property
    def left(self) -> int | None:
        """Images or steps that are not committed."""
        return None if self.total is None else self.total - self.committed

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        rate = self.rate
        return {
            "output": uris.redact_uri(self.output),
            "job": self.job,
            "state": self.state,
            "settings": dict(self.settings),
            "inputs": dict(self.inputs),
            "resolved": dict(self.resolved),
            "unit": self.unit,
            "total": self.total,
            "committed": self.committed,
            "left": self.left,
            "failed": dict(self.failed),
            "shards": self.shards,
            "shards_committed": self.shards_committed,
            "faults": dict(self.faults),
            "rate": None if rate is None else vars(rate),
            "starts": self.starts,
            "last_line": self.last_line,
            "notes": list(self.notes),
        }


def read_shard_status(
    output: str, record: RunRecord, logs_output: str | None = None
) -> OutputStatus:
    """The state of a run over shards.

    Reads one listing, and the last 32 kB of each part.

    Args:
        output: the folder of the parts.
        record: its record.
        logs_output: the folder that has the logs; None is `output`.

    Raises:
        UnreadableDataset: the shard table is damaged.
        StorageError: the store cannot be reached.
    """
    logs_output = logs_output or output
    table = shards.read_shard_table(output)
    if not table:
        return describe_record(output, record, "not begun", total=_read_images(record))
    committed = shards.list_parts(output, table).committed
    listed = [shard for shard in table if shard.ordinal in committed]
    has_status = record.job not in WITHOUT_STATUS
    inspection = inspect_parts(output, listed, record.fingerprint, has_status=has_status)
    failed: Counter[str] = Counter()
    for rows in inspection.failed.values():
        failed.update(rows.values())
    whole = [shard for shard in listed if shard not in inspection.faults]
    summary = read_summary(output)
    is_finished = len(whole) == len(table) and summary is not None
    return describe_record(
        output,
        record,
        "finished" if is_finished else "unfinished",
        total=sum(shard.rows for shard in table),
        committed=sum(shard.rows for shard in whole),
        failed=dict(failed.most_common()),
        shards=len(table),
        shards_committed=len(whole),
        faults={
            shard.part_name: fault for shard, fault in list(inspection.faults.items())[:MOST_FAULTS]
        },
        rate=_find_rate(logs_output, summary if is_finished else None),
        notes=_list_notes(len(inspection.faults), len(whole) == len(table), summary),
        **read_log_facts(logs_output),
    )


def _list_notes(faults: int, is_complete: bool, summary: JsonFields | None) -> tuple[str, ...]:
    notes = []
    if faults > MOST_FAULTS:
        notes.append(f"{faults} parts are damaged; the first {MOST_FAULTS} are listed")
    if is_complete and summary is None:
        notes.append("all parts are committed, but there is no summary.json: rerun the command")
    return tuple(notes)


def describe_record(output: str, record: RunRecord, state: str, **values: Any) -> OutputStatus:
    """The status of an output with the record's settings and these values."""
    return OutputStatus(
        output, record.job, state, record.settings, record.inputs, record.resolved, **values
    )


def _read_images(record: RunRecord) -> int | None:
    images = record.settings.get("images")
    return images if isinstance(images, int) else None


def read_summary(output: str) -> JsonFields | None:
    """The content of summary.json, or None if it is missing or damaged."""
    try:
        return parse_fields(storage.read(uris.join(output, SUMMARY_NAME)))
    except (MissingObject, InvalidJson):
        return None


def _find_rate(output: str, summary: JsonFields | None) -> Rate | None:
    """The mean rate of the last start: of a finished run by its summary, otherwise by its progress."""
    if summary is not None:
        stored = summary.values.get("images_per_second")
        if is_finite_number(stored) and stored:
            return Rate(float(stored), "images", "mean of the last start, summary.json")
    try:
        starts = read_progress(output)
    except StorageError:
        return None
    if not starts:
        return None
    last = starts[-1].lines[-1]
    if last.elapsed <= 0 or not last.images:
        return None
    source = f"mean of start {starts[-1].start.index}, after {last.elapsed:.0f} s of it, logs"
    return Rate(last.images / last.elapsed, "images", source)


def read_log_facts(output: str) -> dict[str, Any]:
    """How often the job was started, and the last line of its driver; both None without logs."""
    try:
        names = log_files.list_log_files(output)
        starts = log_files.find_starts(names)
        if not starts:
            return {"starts": None, "last_line": None}
        uri = uris.join(output, log_files.FOLDER, starts[-1].name_file("driver"))
        lines = storage.read_end(uri, _LAST_BYTES).decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), None)
    except MissingObject:
        last = None
    except StorageError:
        return {"starts": None, "last_line": None}
    return {"starts": len(starts), "last_line": last}


def find_run_folder(uri: str) -> str:
    """The folder with the run's record: of an analysis, `uri` may be the folder above its `matches`."""
    output = uris.make_absolute(uri)
    matches = uris.join(output, MATCHES_FOLDER)
    has_own = storage.exists(uris.join(output, RECORD_NAME))
    return matches if not has_own and storage.exists(uris.join(matches, RECORD_NAME)) else output


def open_record(output: str) -> RunRecord:
    """The record of an output; without one, the reason why there is nothing to tell.

    Raises:
        UnreadableDataset: the folder is missing or empty, or not the output of a run.
        MismatchedOutput: run.json is damaged.
    """
    record = run_record.read_record(output)
    if record is not None:
        return record
    name = uris.redact_uri(output)
    if not storage.exists(output):
        raise UnreadableDataset(f"{name} does not exist")
    names = storage.list_names(output)
    if not names:
        raise UnreadableDataset(f"{name} holds no files, and no {RECORD_NAME}: no run began here")
    raise UnreadableDataset(
        f"{name} holds no {RECORD_NAME}, so it is not the output of a run; it holds {len(names)} files, the "
        f"first is {names[0]}"
    )
