"""The result of a query as a table for a terminal."""

from __future__ import annotations

from itertools import islice

import pyarrow as pa
from rich.table import Column, Table
from rich.text import Text

from pipeline.printable import escape_unprintable

MOST_ROWS = 100
"""Rows that are shown."""


def build_query_table(reader: pa.RecordBatchReader) -> tuple[Table, bool]:
    """Build a table of a result's first rows; returns also whether there are more."""
    table = Table(
        *(
            Column(
                Text(escape_unprintable(field.name)),
                justify="right" if _is_number(field.type) else "left",
                overflow="fold",
            )
            for field in reader.schema
        )
    )
    rows = (row for batch in reader for row in zip(*map(_show_column, batch.columns), strict=True))
    for row in islice(rows, MOST_ROWS):
        table.add_row(*row)
    return table, next(rows, None) is not None


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _show_column(column: pa.Array) -> list[Text]:
    """The values as texts that can neither command the terminal nor be taken for markup."""
    if pa.types.is_floating(column.type):
        column = column.cast(pa.string())  # the shortest text of a float32
    return [
        Text("" if value is None else escape_unprintable(str(value)))
        for value in column.to_pylist()
    ]
