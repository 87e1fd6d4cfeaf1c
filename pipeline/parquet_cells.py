"""Single values of a binary column of Parquet files; the row groups read last stay in memory."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema, storage, uris
from pipeline.errors import UnreadableDataset

LARGEST_GROUP = 4 << 30
"""Bytes of the images of one row group, which memory must hold."""
CACHED_BYTES = 256 << 20
"""Bytes of row groups that stay in memory; the last one stays however large it is."""


class CellReader:
    """Reads values by row, best in order. Several threads may share it; they read one at a time."""

    def __init__(self, cached_bytes: int = CACHED_BYTES) -> None:
        """Keep up to `cached_bytes` of row groups."""
        self._cached_bytes = cached_bytes
        self._lock = threading.Lock()
        self._groups: OrderedDict[tuple[str, str | None, str, int], pa.ChunkedArray] = OrderedDict()
        self._starts: dict[tuple[str, str | None], list[int]] = {}

    def read(self, uri: str, etag: str | None, column: str, row: int) -> bytes | None:
        """The bytes in a row of a column; None if the row is null or does not exist.

        Args:
            uri: the Parquet file.
            etag: which state of the file; what is in memory of another state is not used.
            column: its name; a dot stands before a field of a struct.
            row: counted over all row groups.

        Raises:
            UnreadableDataset: the file is damaged, has no such column, or its row groups are too large.
            StorageError: the file cannot be read.
        """
        with self._lock:
            starts = self._starts.get((uri, etag))
            if starts is None:
                starts = self._starts[uri, etag] = read_group_starts(uri)
            if not 0 <= row < starts[-1]:
                return None
            group = bisect_right(starts, row) - 1
            values = self._get_group((uri, etag, column, group))
        value: bytes | None = values[row - starts[group]].as_py()
        return value

    def _get_group(self, key: tuple[str, str | None, str, int]) -> pa.ChunkedArray:
        if key not in self._groups:
            uri, _, column, group = key
            values = read_group(uri, column, group)
            self._groups[key] = values
            while len(self._groups) > 1 and self._count_bytes() > self._cached_bytes:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _count_bytes(self) -> int:
        return sum(values.nbytes for values in self._groups.values())


def read_group_starts(uri: str) -> list[int]:
    """The first row of each row group of a Parquet file, and behind them the number of all rows."""
    with storage.open_file(uri) as source, schema.report_damage(uri):
        metadata = pq.ParquetFile(source).metadata
        counts = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    return [0, *np.cumsum(counts).tolist()]


def read_group(uri: str, column: str, group: int) -> pa.ChunkedArray:
    """A binary column of one row group.

    Raises:
        UnreadableDataset: the file is damaged, has no such column, or the row group is too large.
        StorageError: the file cannot be read.
    """
    with storage.open_file(uri) as source, schema.report_damage(uri):
        parquet = pq.ParquetFile(source, pre_buffer=False)
        metadata = parquet.metadata.row_group(group)
        chunks = [metadata.column(index) for index in range(metadata.num_columns)]
        sizes = {chunk.path_in_schema: chunk.total_uncompressed_size for chunk in chunks}
        if column not in sizes:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)} has no column {column}; it has {', '.join(sizes):.500}"
            )
        if sizes[column] > LARGEST_GROUP:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)}: row group {group} holds {sizes[column] / 2**30:.1f} GB of images, "
                f"more than {LARGEST_GROUP >> 30}: write the file again with smaller row groups"
            )
        values = parquet.read_row_group(group, columns=[column], use_threads=False).column(0)
    for field in column.split(".")[1:]:
        values = pc.struct_field(values, field)
    if not is_binary(values.type):
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: column {column} is {values.type}, expected binary"
        )
    return values


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column holds bytes."""
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))
