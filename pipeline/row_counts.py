"""How many rows a Parquet file has, by what all places of its footer say."""

from __future__ import annotations

import pyarrow.parquet as pq

from pipeline import uris
from pipeline.errors import UnreadableDataset


def count_rows(parquet: pq.ParquetFile, uri: str) -> int:
    """The rows of a file, once the footer's number, its row groups and their columns agree.

    Raises:
        UnreadableDataset: they differ, or a number is negative.
    """
    metadata = parquet.metadata
    groups = [_count_group(parquet, index, uri) for index in range(metadata.num_row_groups)]
    if metadata.num_rows != sum(groups):
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} is damaged: its footer states {metadata.num_rows} rows, but its "
            f"{len(groups)} row groups hold {sum(groups)}"
        )
    return int(metadata.num_rows)


def _count_group(parquet: pq.ParquetFile, index: int, uri: str) -> int:
    """The rows of a row group, compared with the values of its first column that holds one value a row."""
    group = parquet.metadata.row_group(index)
    rows = int(group.num_rows)
    column = _find_flat_column(parquet)
    values = rows if column is None else group.column(column).num_values
    if rows < 0 or values != rows:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} is damaged: its row group {index} states {rows} rows, but holds "
            f"{values} values of a column"
        )
    return rows


def _find_flat_column(parquet: pq.ParquetFile) -> int | None:
    schema = parquet.schema
    for index in range(len(schema)):
        if schema.column(index).max_repetition_level == 0:
            return index
    return None
