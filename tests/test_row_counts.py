"""The number of rows in a Parquet file's footer, compared with its row groups and columns."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UnreadableDataset
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.row_counts import count_rows

ROWS = 6


def _encode(value: int) -> bytes:
    """An i64 of the footer, as Thrift's compact protocol writes it."""
    zigzag, encoded = (value << 1) ^ (value >> 63), bytearray()
    while zigzag > 0x7F:
        encoded.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes([*encoded, zigzag])


def _replace_counts(data: bytes, value: int) -> Iterator[tuple[bytes, pq.FileMetaData]]:
    """The file with one of the places that hold its number of rows replaced, for each such place."""
    length = int.from_bytes(data[-8:-4], "little")
    body, footer = data[: -8 - length], data[-8 - length : -8]
    pattern, at = b"\x16" + _encode(ROWS), -1
    while (at := footer.find(pattern, at + 1)) >= 0:
        changed = footer[:at] + b"\x16" + _encode(value) + footer[at + len(pattern) :]
        damaged = body + changed + len(changed).to_bytes(4, "little") + b"PAR1"
        try:
            yield damaged, pq.ParquetFile(io.BytesIO(damaged)).metadata
        except (pa.ArrowException, OSError):
            continue


@pytest.mark.parametrize("value", [12, 3, 0, -5, 2**40])
def test_a_number_of_rows_that_the_row_groups_do_not_hold_is_rejected(
    tmp_path: Path, value: int
) -> None:
    uri = f"{tmp_path}/m.parquet"
    write_manifest(uri, (ManifestRow(f"i{n}", f"/{n}", 1, 1, None) for n in range(ROWS)), None)
    assert open_manifest(uri).rows == ROWS
    rejected = 0
    for damaged, metadata in _replace_counts(Path(uri).read_bytes(), value):
        if value in (metadata.num_rows, metadata.row_group(0).num_rows):
            (tmp_path / "m.parquet").write_bytes(damaged)
            with pytest.raises(UnreadableDataset, match=r"m\.parquet is "):
                open_manifest(uri)
            rejected += 1
    assert rejected >= 2, "the footer's number and the row group's"


def test_both_numbers_may_lie_alike(tmp_path: Path) -> None:
    """A footer and a row group that agree are compared with the values of a column."""
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"image_id": [f"i{n}" for n in range(ROWS)]}), path)
    whole = path.read_bytes()
    once = [
        data for data, metadata in _replace_counts(whole, 12) if 12 in _list_row_numbers(metadata)
    ]
    twice = [
        data
        for damaged in once
        for data, metadata in _replace_counts(damaged, 12)
        if _list_row_numbers(metadata) == [12, 12]
    ]
    assert twice
    for data in twice:
        with pytest.raises(UnreadableDataset, match="states 12 rows, but holds 6 values"):
            count_rows(pq.ParquetFile(io.BytesIO(data)), str(path))


def _list_row_numbers(metadata: pq.FileMetaData) -> list[int]:
    return [metadata.num_rows, metadata.row_group(0).num_rows]


def test_several_row_groups_are_summed(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    lists = pa.array([[1, 2], [], None, [3], [4], [5], [6]])
    pq.write_table(pa.table({"list": lists, "flat": range(7)}), path, row_group_size=3)
    assert count_rows(pq.ParquetFile(path), str(path)) == 7
    pq.write_table(pa.table({"list": lists}), path, row_group_size=3)
    assert count_rows(pq.ParquetFile(path), str(path)) == 7
    pq.write_table(pa.table({"flat": pa.array([], pa.int64())}), path)
    assert count_rows(pq.ParquetFile(path), str(path)) == 0
