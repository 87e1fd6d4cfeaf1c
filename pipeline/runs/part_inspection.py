"""The committed parts of an output: which are whole and this run's, and which of their images failed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema, storage, uris
from pipeline.errors import MissingObject, UnreadableDataset
from pipeline.part_identity import (
    find_fault_in_end,
    find_wrong_count,
    get_footer,
    get_footer_length,
)
from pipeline.runs.report import Report
from pipeline.shards import Shard

log = logging.getLogger(__name__)

WINDOW = 1024
"""Parts that are requested at a time; each waiting request takes memory."""
LOG_EVERY = 30.0
"""Seconds between log lines while parts are read."""
FOOTER = 32_768
"""Bytes read from a part's end to get its footer: footers here have some 5 kB, a longer one takes a second
read."""


@dataclass
class PartInspection:
    """What the ends of an output's parts show."""

    faults: dict[Shard, str] = field(default_factory=dict)
    """Why a part is damaged or not this run's, for the parts that are to be done again."""
    failed: dict[Shard, dict[int, str]] = field(default_factory=dict)
    """The failed rows of the other parts, each with its stage and error type."""


def inspect_parts(
    output: str, committed: Sequence[Shard], fingerprint: str, *, has_status: bool = True
) -> PartInspection:
    """Read the ends of committed parts.

    Only parts whose footer says that they contain a status other than ok are read further.

    Args:
        output: the folder of the parts.
        committed: the shards whose part the folder lists.
        fingerprint: the run's.
        has_status: whether the parts of this run have one row per image with its status.

    Raises:
        StorageError: the store fails.
    """
    inspection = PartInspection()
    last_logged = monotonic()
    with ThreadPoolExecutor(16) as threads:
        for start in range(0, len(committed), WINDOW):
            if monotonic() - last_logged > LOG_EVERY:
                last_logged = monotonic()
                log.info("checked %d of %d parts", start, len(committed))
            window = committed[start : start + WINDOW]
            states = threads.map(
                lambda shard: _inspect(output, shard, fingerprint, has_status), window
            )
            for shard, state in zip(window, states, strict=True):
                if isinstance(state, str):
                    inspection.faults[shard] = state
                elif state:
                    inspection.failed[shard] = state
    return inspection


def _inspect(output: str, shard: Shard, fingerprint: str, has_status: bool) -> str | dict[int, str]:
    """A part's fault, or its failed rows."""
    uri = uris.join(output, shard.part_name)
    try:
        end = _read_footer_end(uri)
        fault = find_fault_in_end(end, shard.key, shard.rows, fingerprint)
        if fault is not None:
            return fault
        return {} if not has_status or _is_all_ok(end) else _read_failed_rows(uri, shard)
    except MissingObject:  # a link that leads nowhere, or a part that was removed meanwhile
        return "it is not there"
    except UnreadableDataset as error:
        return str(error).removeprefix(f"{uris.redact_uri(uri)} ")


def _read_footer_end(uri: str) -> bytes:
    """The last bytes of a part, at least all of its footer."""
    end = storage.read_end(uri, FOOTER)
    length = get_footer_length(end)
    return end if length <= len(end) else storage.read_end(uri, length)


def _is_all_ok(end: bytes) -> bool:
    """Whether a part's footer shows that the status of every row is ok; False if it does not show it.

    The footer holds the smallest and largest value of the status column verbatim, each after its length.
    """
    footer = get_footer(end) or b""
    return b"\x02ok" in footer and b"failed" not in footer


def _read_failed_rows(uri: str, shard: Shard) -> dict[int, str]:
    with storage.open_file(uri) as source, schema.report_damage(uri):
        parquet = pq.ParquetFile(source)
        names = parquet.schema_arrow.names
        if "status" not in names:
            raise UnreadableDataset("it has no column status")
        columns = [name for name in ("status", "stage", "error_type") if name in names]
        table = parquet.read(columns)
        failed = _find_failed_rows(table)
    fault = find_wrong_count(len(table), shard.rows)
    if fault is not None:
        raise UnreadableDataset(fault)
    return failed


def _find_failed_rows(table: pa.Table) -> dict[int, str]:
    """The failed rows of a part, each with its stage and error type."""
    columns = [name for name in ("status", "stage", "error_type") if name in table.column_names]
    if "status" not in columns:
        return {}
    return {
        index: f"{row.get('stage', 'propose')}: {row['error_type']}"
        for index, row in enumerate(table.select(columns).to_pylist())
        if row["status"] == "failed"
    }


def read_committed_report(output: str, shard: Shard) -> Report | None:
    """The report of a shard's part, or None if the shard has no part, or one that is to be done again.

    A worker may commit a part and be lost before its report arrives. The seconds are lost with it.

    Raises:
        StorageError: the store does not answer.
        UnreadableDataset: the part is damaged.
    """
    uri = uris.join(output, shard.part_name)
    try:
        data = storage.read(uri)
    except MissingObject:
        return None
    if find_fault_in_end(data, shard.key, shard.rows, None) is not None:
        return None
    with schema.report_damage(uri):
        table = schema.parse_parquet(data)
        failed = Counter(_find_failed_rows(table).values())
    report = Report(images=shard.rows, failed=failed)
    report.counts["bytes"] = len(data)
    for count, column in (("proposals", "boxes"), ("detections", "detections")):
        if column in table.column_names:
            report.counts[count] = pc.sum(pc.list_value_length(table[column])).as_py() or 0
    return report
