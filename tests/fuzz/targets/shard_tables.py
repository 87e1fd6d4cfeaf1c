"""The shard table of an output, and outputs that a run finds when it resumes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import shards
from pipeline.errors import PipelineError
from pipeline.run_record import RunRecord
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput, open_run
from pipeline.shards import Parts, Shard
from tests.fuzz.mutators.byte_mutator import mutate_bytes
from tests.fuzz.mutators.table_mutator import encode_table, mutate_table
from tests.fuzz.target import Target
from tests.fuzz.targets.run_outputs import (
    IMAGES,
    build_record,
    damage_part,
    plan_cut,
    read_rows,
    write_output,
)


@dataclass(frozen=True)
class _Answer:
    """An output's table as readers use it."""

    shards: tuple[Shard, ...]
    image_ids: list[str]


def _write_table(folder: Path, random: Random) -> str:
    output, _ = write_output(folder, "propose")
    path = Path(output) / shards.TABLE_NAME
    if random.random() < 0.15:
        data, change = mutate_bytes(path.read_bytes(), random)
    else:
        table, change = mutate_table(pq.read_table(path), random)
        data, form = encode_table(table, random)
        change = ", ".join(filter(None, (change, form)))
    path.write_bytes(data)
    return change


def _read_table(folder: Path) -> _Answer:
    parts: Parts = shards.open_parts(str(folder / "output"))
    ids = [
        name for table in parts.read_tables(["image_id"]) for name in table["image_id"].to_pylist()
    ]
    return _Answer(parts.shards, ids)


def _find_fault_in_table(folder: Path, answer: _Answer) -> str | None:
    first_row = 0
    for ordinal, shard in enumerate(answer.shards):
        if (shard.ordinal, shard.first_row) != (ordinal, first_row) or shard.rows < 1:
            return f"shard {ordinal} is {shard}, expected first_row {first_row}"
        first_row += shard.rows
    # A table that lost its last rows is a smaller output: only its readers, which know the manifest, notice.
    if answer.image_ids != list(IMAGES)[: len(answer.image_ids)] or first_row != len(
        answer.image_ids
    ):
        return f"the images are {answer.image_ids}, the table has {first_row} rows"
    stored = read_rows(folder / "output" / shards.TABLE_NAME) or []
    if [row.get("key") for row in stored] != [shard.key for shard in answer.shards]:
        return "the keys are not those of the file"
    return None


def _write_run(folder: Path, random: Random) -> str:
    return damage_part(*write_output(folder, "propose"), random)


def _resume(folder: Path) -> RunOutput:
    record: RunRecord = build_record(folder, "propose")
    return open_run(str(folder / "output"), record, plan_cut(folder), RunOptions(retry_failed=True))


def _find_fault_in_run(folder: Path, answer: RunOutput) -> str | None:
    """Whether a part counts as done that is another's, or damaged in a way that its readers do not name.

    To resume reads the footer of each part; damage before it is found by readers.
    """
    fingerprint = answer.record.fingerprint
    parts = Parts(str(folder / "output"), answer.shards, fingerprint)
    for shard in answer.shards:
        if shard.ordinal not in answer.committed:
            continue
        path = folder / "output" / shard.part_name
        data = path.read_bytes()
        others = [path.with_name(other.part_name) for other in answer.shards if other != shard]
        if shard.key.encode() not in data and any(
            other.exists() and other.read_bytes() == data for other in others
        ):
            return f"part {shard.ordinal} counts as done, but is the part of another shard"
        if _count_rows(path) != shard.rows:
            return f"part {shard.ordinal} counts as done, but its footer is damaged"
        if fingerprint.encode() not in data and shard.key.encode() not in data:
            return f"part {shard.ordinal} counts as done, but names neither its run nor its shard"
        if not _is_read_right(parts, shard):
            return f"part {shard.ordinal} counts as done, and its readers do not name its damage"
    return None


def _count_rows(path: Path) -> int | None:
    """The rows that the footer of a Parquet file says; None if pyarrow cannot read it."""
    try:
        return pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None


def _is_read_right(parts: Parts, shard: Shard) -> bool:
    """Whether reading a part gives all its rows or a named error."""
    try:
        return len(parts.read(shard)) == shard.rows
    except PipelineError:
        return True


TARGETS = (
    Target("shard_table", _write_table, _read_table, _find_fault_in_table),
    Target("resume", _write_run, _resume, _find_fault_in_run),
)
