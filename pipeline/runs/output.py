"""The output folder of a run over shards: opened, resumed or refused at the start, closed at the end."""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import run_record, schema, shards, storage
from pipeline.errors import InvalidConfiguration, MismatchedOutput
from pipeline.manifests import Manifest
from pipeline.run_record import RunRecord
from pipeline.runs.options import RunOptions
from pipeline.runs.report import Report
from pipeline.shards import Cut, Shard

log = logging.getLogger(__name__)

SUMMARY_NAME = "summary.json"
WINDOW = 1024
"""Parts that are asked for at a time where all are looked at."""
SILENCE = 30.0
"""Seconds after which a wait is told."""
FOOTER = 32_768
"""Bytes at a part's end that hold its footer; ours have some 5 kB, and a longer one is read anew."""


@dataclass(frozen=True)
class RunOutput:
    """An output folder that is ready for work: which shards there are and which are done."""

    uri: str
    record: RunRecord
    shards: tuple[Shard, ...]
    committed: frozenset[int]
    retry: Mapping[Shard, tuple[int, ...]] = field(default_factory=dict)
    """Rows of committed shards that failed and are to be done again."""
    settled: dict[str, Any] = field(default_factory=dict)
    """What settings that say auto came to, once it is known."""

    @property
    def todo(self) -> list[Shard]:
        """The shards that are left, in order."""
        return [shard for shard in self.shards if shard.ordinal not in self.committed]

    @property
    def rows(self) -> int:
        """Images in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def rows_committed(self) -> int:
        """Images that are done."""
        done = sum(shard.rows for shard in self.shards if shard.ordinal in self.committed)
        return done - sum(len(rows) for rows in self.retry.values())

    def failed_before(self) -> Counter[str]:
        """Failed images, by stage and error type, that earlier runs committed and this one leaves."""
        kept = [s for s in self.shards if s.ordinal in self.committed and s not in self.retry]
        failed: Counter[str] = Counter()
        for rows in failed_rows(self.uri, kept).values():
            failed.update(rows.values())
        return failed

    def settle(self, resolved: Mapping[str, Any]) -> None:
        """Note in run.json what settings that say auto came to, before any part is put.

        Raises:
            TakenOver: another run began here meanwhile, with other settings or on other hardware.
        """
        told = _check_ours(self.uri, self.record, self.shards)
        if not told.resolved:
            replace(told, resolved=resolved).write(self.uri)
        self.settled.update(resolved)
        self._check_settled()

    def _check_settled(self) -> None:
        told = _check_ours(self.uri, self.record, self.shards).resolved
        if self.settled and told != self.settled:
            raise TakenOver(
                f"{storage.shown(self.uri)} was begun with {dict(told)} at the same time, this run has "
                f"{self.settled}: start it again, with --overwrite"
            )

    def finish(self, summary: dict[str, Any]) -> None:
        """Remove parts that belong to no shard of this run, then put summary.json.

        Raises:
            MismatchedOutput: a part that was committed is gone.
            TakenOver: another run took the output over.
        """
        self._check_settled()
        listing = shards.listing(self.uri, self.shards)
        for name in listing.strays:
            log.info("removing %s: it belongs to no shard of this run", name)
            storage.remove(storage.join(self.uri, name))
        if len(listing.committed) < len(self.shards):
            missing = len(self.shards) - len(listing.committed)
            raise MismatchedOutput(
                f"{missing} parts of {storage.shown(self.uri)} were removed while the run was at work: "
                "run it again"
            )
        data = json.dumps(summary, indent=2, sort_keys=True).encode() + b"\n"
        storage.put(storage.join(self.uri, SUMMARY_NAME), data)


def failed_rows(output: str, committed: Sequence[Shard]) -> dict[Shard, dict[int, str]]:
    """The failed rows of committed shards, each with its stage and error type.

    Rows are read of those parts only whose footer says that a status other than ok is in them.
    """

    def failed_in(shard: Shard) -> dict[int, str]:
        uri = storage.join(output, shard.part_name)
        if _all_ok(uri):
            return {}
        with storage.opened(uri) as source, schema.reading(uri):
            parquet = pq.ParquetFile(source)
            names = parquet.schema_arrow.names
            columns = [n for n in ("status", "stage", "error_type") if n in names]
            rows = parquet.read(columns).to_pylist()
        return {
            index: f"{row.get('stage', 'propose')}: {row['error_type']}"
            for index, row in enumerate(rows)
            if row["status"] == "failed"
        }

    failed: dict[Shard, dict[int, str]] = {}
    told = monotonic()
    with ThreadPoolExecutor(16) as threads:
        for start in range(0, len(committed), WINDOW):  # each that waits takes memory
            if monotonic() - told > SILENCE:
                told = monotonic()
                log.info("looked for failed images in %d of %d parts", start, len(committed))
            window = committed[start : start + WINDOW]
            found = zip(window, threads.map(failed_in, window), strict=True)
            failed.update({shard: rows for shard, rows in found if rows})
    return failed


def committed_report(output: str, shard: Shard) -> Report | None:
    """What a shard's part came to, where it is committed: its attempt may be lost before it told.

    The seconds are not known any more.

    Raises:
        StorageError: the store does not say.
    """
    uri = storage.join(output, shard.part_name)
    try:
        data = storage.read(uri)
    except storage.MissingObject:
        return None
    with schema.reading(uri):
        table = pq.read_table(io.BytesIO(data))
    report = Report(
        images=len(table), failed=Counter(failed_rows(output, [shard]).get(shard, {}).values())
    )
    report.counts["bytes"] = len(data)
    for count, column in (("proposals", "boxes"), ("detections", "detections")):
        if column in table.column_names:
            report.counts[count] = pc.sum(pc.list_value_length(table[column])).as_py() or 0
    return report


def _all_ok(uri: str) -> bool:
    """Whether a part's footer tells that each row's status is ok.

    The status column's smallest and largest value stand in it as they are, a length before each. To look
    for them takes a tenth of the time that parsing the footer does; what is not found is parsed.
    """
    end = storage.read_end(uri, FOOTER)
    length = int.from_bytes(end[-8:-4], "little") + 8
    footer = end[-length:]
    return length <= len(end) and b"\x02ok" in footer and b"failed" not in footer


def cut_of_output(output: str) -> list[int] | None:
    """The rows of each shard of the cut that an output has already, or None."""
    table = shards.read_table(output)
    return None if table is None else [shard.rows for shard in table]


def default_shard_size(rows: int) -> int:
    """Images per shard where none is asked for: 256, fewer for a small dataset.

    512 shards keep the cores of a large machine busy until near the end. The cluster has no say, so that
    the same dataset is cut alike anywhere and before a cluster is asked for.
    """
    return max(8, min(256, rows // 512))


def open_run(
    output: str,
    record: RunRecord,
    cut: Cut,
    options: RunOptions,
    look: Callable[[], None] = lambda: None,
) -> RunOutput:
    """Make an output ready: resume the same run, start a new one, or refuse.

    Args:
        output: the folder; other files in it are left alone.
        record: what this run is told to do.
        cut: the manifest's cut; where the output has one already it must be that one.
        options: `overwrite` removes what another run wrote, the shard table first, so that a run which
            is killed on the way leaves nothing that could be read as an output; `retry_failed` lists
            the failed rows that are to be done again.
        look: called where there is work to do, before anything is changed; what it raises ends it.

    Raises:
        MismatchedOutput: a run with other settings wrote here and they do not say overwrite.
        StorageError: the folder cannot be written.
    """
    before = run_record.read_record(output)
    resumed = before is not None and not options.overwrite
    if before is None or options.overwrite:
        look()
    else:
        found = run_record.differences(before, record)
        if found:
            raise MismatchedOutput(
                f"{storage.shown(output)} was written by a run with other settings ({'; '.join(found)}): "
                "choose another --output or pass --overwrite"
            )
        record = replace(record, resolved=before.resolved)
    if options.overwrite:
        _clear(output)
    planned = cut.shards(record.fingerprint)
    if not resumed:
        record.write(output)
    table = shards.read_table(output)
    if table is None:
        shards.write_table(output, planned)
    _check_ours(output, record, planned)
    committed = shards.listing(output, planned).committed
    retry: dict[Shard, tuple[int, ...]] = {}
    if options.retry_failed:
        done = [shard for shard in planned if shard.ordinal in committed]
        retry = {shard: tuple(rows) for shard, rows in failed_rows(output, done).items()}
    ready = RunOutput(output, record, tuple(planned), committed, retry)
    if resumed and (ready.todo or ready.retry):
        look()
    return ready


def check_apart(output: str, **inputs: str | None) -> None:
    """A run must not write over what it reads, whatever it is told.

    Args:
        output: the folder to write.
        inputs: what is read, by the names of the options.

    Raises:
        InvalidConfiguration: one of them is the output.
    """
    for option, uri in inputs.items():
        if uri is not None and _place(uri) == _place(output):
            raise InvalidConfiguration(
                f"--output {storage.shown(output)} is the --{option}: choose another folder"
            )


def _place(uri: str) -> str:
    """Where a URI leads, links followed."""
    found = storage.absolute(uri)
    return str(Path(found).resolve()) if storage.protocol(found) == "file" else found


class TakenOver(MismatchedOutput):
    """Another run began in this run's output: it is for that one to end."""


def _check_ours(output: str, record: RunRecord, planned: Sequence[Shard]) -> RunRecord:
    """Two drivers may start on one output at once, or one may overwrite what the other still does.

    With equal settings and an equal cut they write the same parts. Otherwise run.json and the table tell
    whose the output is, and the other one must neither go on nor remove parts that it does not know.
    """
    told = run_record.read_record(output)
    if told is None or told.fingerprint != record.fingerprint:
        raise TakenOver(
            f"{storage.shown(output)}/{run_record.NAME} is not of this run: another run with other settings "
            "began here at the same time or since; choose another --output, or pass --overwrite"
        )
    if shards.read_table(output) != list(planned):
        raise TakenOver(
            f"{storage.shown(output)}/{shards.TABLE_NAME} is not the cut of this run: another run began here "
            "at the same time or since; start again when it has ended, or pass --overwrite"
        )
    return told


def _clear(output: str) -> None:
    storage.remove(storage.join(output, shards.TABLE_NAME))
    storage.remove(storage.join(output, SUMMARY_NAME))
    for name in shards.listing(output, ()).strays:
        storage.remove(storage.join(output, name))


def plan_cut(
    manifest: Manifest,
    output: str,
    options: RunOptions,
    inherited: Sequence[int] | None = None,
) -> Cut:
    """Cut the manifest: as the output has it, else as stored proposals have it, else by size."""
    rows = manifest.rows if options.limit is None else min(options.limit, manifest.rows)
    earlier = None if options.overwrite else cut_of_output(output)
    if earlier is not None and sum(earlier) == rows:
        return shards.cut(manifest, earlier, rows)
    # Another dataset or --limit than the output's is cut anew here; its record will say what differs.
    sizes = inherited or options.shard_size or default_shard_size(rows)
    return shards.cut(manifest, sizes, rows)
