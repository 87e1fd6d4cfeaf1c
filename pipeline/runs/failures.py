"""The failed images of an output's committed parts."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema, storage, uris
from pipeline.errors import MissingObject
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


def read_failed_rows(output: str, committed: Sequence[Shard]) -> dict[Shard, dict[int, str]]:
    """The failed rows of committed shards, each with its stage and error type.

    Only parts whose footer says that they contain a status other than ok are read.
    """
    failed: dict[Shard, dict[int, str]] = {}
    last_logged = monotonic()
    with ThreadPoolExecutor(16) as threads:
        for start in range(0, len(committed), WINDOW):
            if monotonic() - last_logged > LOG_EVERY:
                last_logged = monotonic()
                log.info("checked %d of %d parts for failed images", start, len(committed))
            window = committed[start : start + WINDOW]
            rows_by_shard = threads.map(lambda shard: _read_failed_rows(output, shard), window)
            failed.update(
                {shard: rows for shard, rows in zip(window, rows_by_shard, strict=True) if rows}
            )
    return failed


def read_committed_report(output: str, shard: Shard) -> Report | None:
    """The report of a shard's part, or None if the shard is not committed.

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
    with schema.report_damage(uri):
        table = pq.read_table(io.BytesIO(data))
    failed = Counter(_read_failed_rows(output, shard).values())
    report = Report(images=len(table), failed=failed)
    report.counts["bytes"] = len(data)
    for count, column in (("proposals", "boxes"), ("detections", "detections")):
        if column in table.column_names:
            report.counts[count] = pc.sum(pc.list_value_length(table[column])).as_py() or 0
    return report


def _read_failed_rows(output: str, shard: Shard) -> dict[int, str]:
    uri = uris.join(output, shard.part_name)
    if is_all_ok(uri):
        return {}
    with storage.open_file(uri) as source, schema.report_damage(uri):
        parquet = pq.ParquetFile(source)
        names = parquet.schema_arrow.names
        columns = [name for name in ("status", "stage", "error_type") if name in names]
        rows = parquet.read(columns).to_pylist()
    return {
        index: f"{row.get('stage', 'propose')}: {row['error_type']}"
        for index, row in enumerate(rows)
        if row["status"] == "failed"
    }


def is_all_ok(uri: str) -> bool:
    """Whether a part's footer shows that the status of every row is ok; False if it does not show it.

    The footer holds the smallest and largest value of the status column verbatim, each after its length.
    Searching for them takes a tenth of the time that parsing the footer does.
    """
    end = storage.read_end(uri, FOOTER)
    length = int.from_bytes(end[-8:-4], "little") + 8
    footer = end[-length:]
    return length <= len(end) and b"\x02ok" in footer and b"failed" not in footer
