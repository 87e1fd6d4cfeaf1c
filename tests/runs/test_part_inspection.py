"""Committed parts: failed rows, lost reports, and parts that are damaged or of another shard or run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import schema, storage
from pipeline.errors import AccessDenied
from pipeline.part_identity import SHARD, encode_shard, get_footer_length, name_shard
from pipeline.runs import part_inspection
from pipeline.runs.part_inspection import FOOTER, inspect_parts, read_committed_report
from pipeline.shards import Shard, put_part

FINGERPRINT = "f" * 64
SHARDS = [Shard(ordinal, f"{ordinal:024x}", 3 * ordinal, 3) for ordinal in range(3)]


def _build_table(target: pa.Schema, failed: int | None = None, rows: int = 3) -> pa.Table:
    values: list[dict[str, Any]] = [
        {"image_id": f"i{row}", "uri": "u", "status": "ok"} for row in range(rows)
    ]
    if failed is not None:
        values[failed] |= {"status": "failed", "stage": "read", "error_type": "Gone"}
    return pa.Table.from_pylist(values, schema=target)


def _add_run(target: pa.Schema, fingerprint: str = FINGERPRINT, **metadata: Any) -> pa.Schema:
    return schema.add_metadata(target, {"fingerprint": fingerprint, **metadata})


@pytest.mark.parametrize("kind", ["propose", "detect", "no statistics", "long footer"])
@pytest.mark.parametrize("names_shard", [True, False])
def test_failed_rows_are_read_with_and_without_the_help_of_the_footer(
    tmp_path: Path, kind: str, names_shard: bool
) -> None:
    """Parts of earlier releases do not name their shard."""
    target = _add_run(schema.DETECTIONS if kind == "detect" else schema.PROPOSALS)
    if kind == "long footer":
        target = _add_run(target, provenance="x" * 2 * FOOTER)
    for shard in SHARDS:
        table = _build_table(target, failed=2 if shard.ordinal == 1 else None)
        table = name_shard(table, shard.key) if names_shard else table
        path = tmp_path / shard.part_name
        pq.write_table(table, path, write_statistics=kind != "no statistics", compression="zstd")
    inspection = inspect_parts(str(tmp_path), SHARDS, FINGERPRINT)
    stage = "read" if kind == "detect" else "propose"
    assert inspection.failed == {SHARDS[1]: {2: f"{stage}: Gone"}}
    assert inspection.faults == {}


def test_parts_whose_footer_shows_that_all_is_well_are_not_read_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for shard in SHARDS:
        put_part(str(tmp_path), shard, _build_table(_add_run(schema.DETECTIONS)))
    reads: list[int] = []
    read_end = storage.read_end

    def count_read(uri: str, size: int) -> bytes:
        reads.append(size)
        return read_end(uri, size)

    monkeypatch.setattr(storage, "read_end", count_read)
    monkeypatch.delattr(storage, "open_file")
    monkeypatch.delattr(storage, "read")
    assert inspect_parts(str(tmp_path), SHARDS, FINGERPRINT).faults == {}
    assert reads == [FOOTER] * 3


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path)


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def _replace_by_dangling_link(path: Path, _: Path) -> None:
    path.unlink()
    path.symlink_to("/nonexistent")


_TARGET = _add_run(schema.PROPOSALS)
_OTHER_RUN = _add_run(schema.PROPOSALS, fingerprint="0" * 64)
_JUNK = b"PAR1\x02ok" + SHARDS[0].key.encode() + (20).to_bytes(4, "little") + b"PAR1"


def _overwrite_start_of_footer(data: bytes) -> bytes:
    start = len(data) - get_footer_length(data)
    return data[:start] + b"\xff" * 8 + data[start + 8 :]


def _build_named_table(rows: int) -> pa.Table:
    """A table that names the first shard with the shard's own number of rows."""
    table = _build_table(_TARGET, rows=rows)
    metadata = {**table.schema.metadata, SHARD: encode_shard(SHARDS[0].key, SHARDS[0].rows)}
    return table.replace_schema_metadata(metadata)


FAULTS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "empty": (lambda path, _: path.write_bytes(b""), "it is empty"),
    "start only": (lambda path, _: _cut(path, 700), "does not end as a Parquet file"),
    "magic only": (lambda path, _: path.write_bytes(b"PAR1"), "does not end as a Parquet file"),
    "magic twice": (lambda path, _: path.write_bytes(b"PAR1" * 3), "does not end as"),
    "junk": (lambda path, _: path.write_bytes(_JUNK), "its footer is not readable"),
    "length beyond the file": (
        lambda path, _: path.write_bytes(b"x" * 50 + b"\xff\xff\xff\x7fPAR1"),
        "does not end as",
    ),
    "the next part": (
        lambda path, other: path.write_bytes(other.read_bytes()),
        "it is the part of another shard",
    ),
    "fewer rows": (
        lambda path, _: _write(path, name_shard(_build_table(_TARGET, rows=2), SHARDS[0].key)),
        "it has 2 rows, but its shard has 3",
    ),
    "more rows, as an earlier release wrote it": (
        lambda path, _: _write(path, _build_table(_TARGET, rows=4)),
        "it has 4 rows, but its shard has 3",
    ),
    "another run's, as an earlier release wrote it": (
        lambda path, _: _write(path, _build_table(_OTHER_RUN)),
        "it is a part of another run",
    ),
    "another run's, though it names this shard": (
        lambda path, _: _write(path, name_shard(_build_table(_OTHER_RUN), SHARDS[0].key)),
        "it is a part of another run",
    ),
    "no run's": (
        lambda path, _: _write(path, _build_table(schema.PROPOSALS)),
        "it does not name the run",
    ),
    "a footer of which bytes are lost, though it names its shard": (
        lambda path, _: path.write_bytes(_overwrite_start_of_footer(path.read_bytes())),
        "its footer is not readable",
    ),
    "another number of rows than the shard that it names": (
        lambda path, _: _write(path, _build_named_table(2)),
        "it has 2 rows, but its shard has 3",
    ),
    "other columns": (
        lambda path, _: _write(path, name_shard(pa.table({"x": [1, 2, 3]}), SHARDS[0].key)),
        "it has no column status",
    ),
    "dangling link": (_replace_by_dangling_link, "it is not there"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_part_that_is_damaged_or_not_this_shards_is_found(tmp_path: Path, fault: str) -> None:
    for shard in SHARDS:
        put_part(str(tmp_path), shard, _build_table(_TARGET))
    first, second = (tmp_path / shard.part_name for shard in SHARDS[:2])
    change, message = FAULTS[fault]
    change(first, second)
    inspection = inspect_parts(str(tmp_path), SHARDS, FINGERPRINT)
    assert list(inspection.faults) == [SHARDS[0]]
    assert message in inspection.faults[SHARDS[0]]
    assert inspection.failed == {}
    assert read_committed_report(str(tmp_path), SHARDS[1]) is not None


def test_a_store_that_fails_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(uri: str, size: int) -> bytes:
        raise AccessDenied(uri)

    monkeypatch.setattr(storage, "read_end", deny)
    with pytest.raises(AccessDenied):
        inspect_parts(str(tmp_path), SHARDS, FINGERPRINT)


def test_many_parts_are_inspected_in_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_inspection, "WINDOW", 2)
    for shard in SHARDS:
        put_part(str(tmp_path), shard, _build_table(_TARGET, failed=0))
    (tmp_path / SHARDS[2].part_name).write_bytes(b"")
    inspection = inspect_parts(str(tmp_path), SHARDS, FINGERPRINT)
    assert list(inspection.failed) == SHARDS[:2]
    assert list(inspection.faults) == SHARDS[2:]


def test_the_report_of_a_part_whose_worker_was_lost(tmp_path: Path) -> None:
    shard = Shard(0, "0" * 24, 0, 3)
    assert read_committed_report(str(tmp_path), shard) is None
    box = [[0.0, 0.0, 1.0, 1.0]]
    rows = {
        "status": ["ok", "failed", "ok"],
        "error_type": [None, "UnreadableImage", None],
        "boxes": [box, None, box * 2],
    }
    size = put_part(str(tmp_path), shard, pa.table(rows))
    report = read_committed_report(str(tmp_path), shard)
    assert report is not None
    assert report.images == 3
    assert report.failed == {"propose: UnreadableImage": 1}
    assert report.counts == {"bytes": size, "proposals": 3}


def test_the_part_of_another_shard_is_no_report(tmp_path: Path) -> None:
    put_part(str(tmp_path), SHARDS[0], _build_table(_TARGET))
    (tmp_path / SHARDS[0].part_name).rename(tmp_path / SHARDS[1].part_name)
    assert read_committed_report(str(tmp_path), SHARDS[1]) is None


def test_a_part_names_its_shard_and_keeps_its_other_metadata(tmp_path: Path) -> None:
    put_part(str(tmp_path), SHARDS[1], _build_table(_TARGET))
    metadata = pq.read_schema(tmp_path / SHARDS[1].part_name).metadata
    assert metadata[SHARD] == encode_shard(SHARDS[1].key, 3)
    assert metadata[b"fingerprint"] == f'"{FINGERPRINT}"'.encode()


def test_parts_of_jobs_without_a_status_need_none(tmp_path: Path) -> None:
    for shard in SHARDS:  # a table of matches: several rows per image, and none where nothing is
        rows = pa.table({"label": ["cat"] * shard.ordinal})
        named = name_shard(rows.replace_schema_metadata(_TARGET.metadata), shard.key, shard.rows)
        pq.write_table(named, tmp_path / shard.part_name)
    inspection = inspect_parts(str(tmp_path), SHARDS, FINGERPRINT, has_status=False)
    assert (inspection.faults, inspection.failed) == ({}, {})
    assert list(inspect_parts(str(tmp_path), SHARDS, FINGERPRINT).faults) == SHARDS
