"""The output folder of a run over shards: opened at the start, checked and closed at the end."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline import log_files, shards, storage, uris
from pipeline.candidate_thresholds import THRESHOLDS_NAME, get_mean_per_image
from pipeline.errors import MismatchedOutput
from pipeline.run_record import RECORD_NAME, RunRecord
from pipeline.runs.dataset_card import CARD_NAME, put_card, remove_card
from pipeline.runs.options import RunOptions
from pipeline.runs.part_inspection import inspect_parts
from pipeline.runs.resume import TakenOver, check_not_taken_over, find_run_to_resume
from pipeline.runs.run_logs import RunLogs
from pipeline.runs.run_plan import PLAN_NAME, remove_foreign_plan
from pipeline.runs.threshold_selection import put_missing_thresholds
from pipeline.runs.unlisted_parts import find_unlisted
from pipeline.shards import Cut, Shard

log = logging.getLogger(__name__)

SUMMARY_NAME = "summary.json"
_OWN_FILES = (RECORD_NAME, shards.TABLE_NAME, SUMMARY_NAME, THRESHOLDS_NAME)
_WRITTEN = re.compile("|".join([shards.PART_NAME.pattern, *map(re.escape, _OWN_FILES)]))
"""The names that a run writes."""
_SCRATCH = re.compile(f"{_WRITTEN.pattern}|{re.escape(CARD_NAME)}|{re.escape(PLAN_NAME)}")
"""The names whose scratch files a run removes."""
WITHOUT_STATUS = ("analyze", "export")
"""Jobs whose parts do not have one row per image with its status."""
MOST_LOGGED = 5
"""Parts to be done again that are logged one by one."""


@dataclass(frozen=True)
class RunOutput:
    """An output folder that is ready for work: which shards it has and which are committed."""

    uri: str
    record: RunRecord
    shards: tuple[Shard, ...]
    committed: frozenset[int]
    retry: Mapping[Shard, tuple[int, ...]] = field(default_factory=dict)
    """Failed rows of committed shards that this run does again."""
    failed_before: Counter[str] = field(default_factory=Counter)
    """Failed images by stage and error type that earlier runs committed and this run does not retry."""
    mean_image_bytes: float = 0.0
    """Mean size of the images checked before the run, in bytes; 0 if unknown."""
    left_out: frozenset[int] = frozenset()
    """Ordinals of shards that this run leaves to a later one, because their inputs are not there yet."""
    logs: RunLogs | None = field(default=None, compare=False)
    """The logs of this start of the run; None keeps none."""

    @property
    def todo(self) -> list[Shard]:
        """The shards that are not committed, in order."""
        done = self.committed | self.left_out
        return [shard for shard in self.shards if shard.ordinal not in done]

    @property
    def has_work(self) -> bool:
        """Whether a shard is not committed or an image is to be retried."""
        return bool(self.todo or self.retry)

    @property
    def rows(self) -> int:
        """Images in all shards that are not left out."""
        return sum(shard.rows for shard in self.shards if shard.ordinal not in self.left_out)

    @property
    def rows_committed(self) -> int:
        """Images that are committed and not to be retried."""
        done = self.committed - self.left_out
        committed = sum(shard.rows for shard in self.shards if shard.ordinal in done)
        return committed - sum(len(rows) for rows in self.retry.values())

    def resolve(self, resolved: Mapping[str, Any]) -> RunOutput:
        """Record in run.json what the settings `auto` resolve to, before any part is put.

        Returns:
            The output with these values in its record.

        Raises:
            TakenOver: another run started here meanwhile, with other settings or on other hardware.
        """
        stored = _check_owned(self.uri, self.record, self.shards)
        if not stored.resolved:
            replace(stored, resolved=resolved).write(self.uri)
        output = replace(self, record=replace(self.record, resolved=resolved))
        output.check_owned()
        return output

    def check_owned(self) -> None:
        """Check that no other run took the output over.

        Raises:
            TakenOver: one did, with other settings, another cut or other resolved values.
        """
        resolved = _check_owned(self.uri, self.record, self.shards).resolved
        if self.record.resolved and resolved != self.record.resolved:
            raise TakenOver(
                f"{uris.redact_uri(self.uri)} was started with {dict(resolved)} at the same time, but this "
                f"run has {dict(self.record.resolved)}: start it again with --overwrite"
            )

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Remove parts that belong to no shard of this run and scratch files, then put summary.json.

        The thresholds of `detect --rule paper` are put before it, if they are missing.

        Raises:
            MismatchedOutput: a committed part is missing.
            UnreadableDataset: a part from which thresholds are selected is damaged.
            TakenOver: another run took the output over.
        """
        self.check_owned()
        listing = shards.list_parts(self.uri, self.shards)
        for name in listing.strays:
            log.info("removing %s: it belongs to no shard of this run", name)
            storage.remove(uris.join(self.uri, name))
        missing = shards.find_missing(self.uri, self.shards, listing.committed | self.left_out)
        if missing:
            raise MismatchedOutput(
                f"{len(missing)} parts of {uris.redact_uri(self.uri)} were removed while the run was "
                "working: run it again"
            )
        put_missing_thresholds(self.uri, self.record, self.shards)
        storage.remove_scratch_files(self.uri, _SCRATCH)
        storage.remove_scratch_files(uris.join(self.uri, log_files.FOLDER), log_files.LOG_NAME)
        names = (s.part_name for s in self.shards if s.ordinal not in self.left_out)
        put_card(self.uri, self.record, summary, next(names, None))
        data = json.dumps(summary, indent=2, sort_keys=True).encode() + b"\n"
        storage.put(uris.join(self.uri, SUMMARY_NAME), data)


def open_run(
    output: str,
    record: RunRecord,
    cut: Cut,
    options: RunOptions,
    check_images: Callable[[], float] = lambda: 0.0,
    *,
    logs_output: str | None = None,
) -> RunOutput:
    """Make an output ready: start it, resume the same run, or reject another one.

    Args:
        output: the folder; other files in it are left alone.
        record: what this run does.
        cut: the manifest's cut; it must be the output's if the output has one.
        options: `overwrite` removes what another run wrote, the shard table first, so that an interrupted
            run leaves nothing that could be read as an output; `retry_failed` lists the failed rows to
            do again.
        check_images: called if there is work to do, before anything is changed. Returns the images' mean
            size in bytes; an error that it raises ends the run.
        logs_output: the folder that gets the logs; None is `output`.

    Raises:
        MismatchedOutput: a run with other settings wrote here, or the folder holds files of unknown origin
            with the names that a run writes, and the options do not say overwrite.
        StorageError: the folder cannot be written.
    """
    mean_image_bytes = 0.0
    earlier = find_run_to_resume(
        output, record, overwrite=options.overwrite, list_remains=lambda: _list_remains(output)
    )
    if earlier is None:
        mean_image_bytes = check_images()
    else:
        record = replace(record, resolved=earlier.resolved)
    if options.overwrite:
        _clear(output)
        remove_foreign_plan(output, record.fingerprint)
    planned = cut.build_shards(record.fingerprint)
    if earlier is None:
        record.write(output)
    if shards.read_shard_table(output) is None:
        shards.write_shard_table(output, planned)
    _check_owned(output, record, planned)
    logs = RunLogs(logs_output or output)
    opened = RunOutput(output, record, tuple(planned), frozenset(), logs=logs)
    ready = _inspect_output(opened, options, is_resumed=earlier is not None)
    ready = replace(ready, mean_image_bytes=mean_image_bytes)
    if earlier is not None and ready.has_work:
        ready = replace(ready, mean_image_bytes=check_images())
    if ready.has_work and get_mean_per_image(record) is not None:
        storage.remove(uris.join(output, THRESHOLDS_NAME))  # they depend on all parts
    return ready


def list_shards_left(output: str, record: RunRecord, cut: Cut) -> list[Shard]:
    """The shards that a run would do in an output; nothing is written.

    Parts are not inspected: a damaged one counts as committed here.

    Raises:
        MismatchedOutput: the run would be rejected.
    """
    find_run_to_resume(output, record, overwrite=False, list_remains=lambda: _list_remains(output))
    planned = cut.build_shards(record.fingerprint)
    committed = shards.list_parts(output, planned).committed
    return [shard for shard in planned if shard.ordinal not in committed]


def _list_remains(output: str) -> list[str]:
    """What an output holds under the names that a run writes, apart from its record."""
    names = storage.list_names(output)
    return [name for name in names if _WRITTEN.fullmatch(name) and name != RECORD_NAME]


def _inspect_output(ready: RunOutput, options: RunOptions, *, is_resumed: bool) -> RunOutput:
    """The output with what its parts show: committed shards, failed images, and which of these to retry.

    A damaged part, or one of another run or shard, counts as none: its shard is done again.
    """
    listed = shards.list_parts(ready.uri, ready.shards).committed
    if is_resumed:
        listed |= find_unlisted(ready.uri, ready.shards, listed)
    committed = [shard for shard in ready.shards if shard.ordinal in listed]
    record = ready.record
    has_status = record.job not in WITHOUT_STATUS
    inspection = inspect_parts(ready.uri, committed, record.fingerprint, has_status=has_status)
    for number, (shard, fault) in enumerate(inspection.faults.items()):
        if number == MOST_LOGGED:
            log.warning("and %d more parts like these", len(inspection.faults) - number)
            break
        log.warning("%s is done again: %s", shard.part_name, fault)
    faulty = {shard.ordinal for shard in inspection.faults}
    retry: dict[Shard, tuple[int, ...]] = {}
    failed: Counter[str] = Counter()
    for shard, rows in inspection.failed.items():
        if options.retry_failed:
            retry[shard] = tuple(rows)
        else:
            failed.update(rows.values())
    return replace(ready, committed=listed - faulty, retry=retry, failed_before=failed)


def _check_owned(output: str, record: RunRecord, planned: Sequence[Shard]) -> RunRecord:
    """The record in the output, if output and shard table are still this run's.

    Two drivers may start on one output at once, or one may overwrite what the other still works on. With
    equal settings and an equal cut they write the same parts. Otherwise run.json and the shard table say
    whose the output is, and the other driver must neither go on nor remove parts that it does not know.

    Raises:
        TakenOver: another run put its own record or shard table there.
    """
    stored = check_not_taken_over(output, record)
    if shards.read_shard_table(output) != list(planned):
        raise TakenOver(
            f"{uris.redact_uri(output)}/{shards.TABLE_NAME} is not the cut of this run: another run started "
            "here at the same time or later; start again when it has ended, or pass --overwrite"
        )
    return stored


def _clear(output: str) -> None:
    storage.remove(uris.join(output, shards.TABLE_NAME))
    storage.remove(uris.join(output, SUMMARY_NAME))
    storage.remove(uris.join(output, THRESHOLDS_NAME))
    for name in shards.list_parts(output, ()).strays:
        storage.remove(uris.join(output, name))
    log_files.remove_log_files(output, log_files.list_log_files(output))
    remove_card(output)
