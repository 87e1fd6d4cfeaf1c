"""SQL over outputs of the pipeline, with DuckDB: one statement that reads, and nothing else.

DuckDB sees Arrow datasets, which read the files through the pipeline's own stores. Its access to files, the
network and extensions is off, so a query can neither read another file nor write one.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

from pipeline import schema, storage
from pipeline.analysis.sql_views import (
    DETECTION_ROWS,
    MANIFEST_ROWS,
    MATCHES,
    VIEW_INPUTS,
    Source,
    Views,
)
from pipeline.csv_cells import escape_cell, format_rows
from pipeline.errors import InvalidConfiguration

ROWS_PER_BATCH = 10_000
_SCHEMAS = {
    DETECTION_ROWS: schema.DETECTIONS,
    MANIFEST_ROWS: schema.MANIFEST,
    MATCHES: schema.MATCHES,
}


@contextmanager
def run_query(views: Views, statement: str) -> Iterator[pa.RecordBatchReader]:
    """The result of one statement that reads; rows are computed as they are read.

    Args:
        views: what the statement may use.
        statement: `SELECT ...`, or `DESCRIBE`, `SUMMARIZE`, `SHOW TABLES`.

    Raises:
        InvalidConfiguration: DuckDB is not installed, the statement is wrong or does more than read, or a
            file cannot be read.
    """
    try:
        import duckdb  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise InvalidConfiguration(
            "SQL needs DuckDB: run pip install '.[duckdb]' in the clone"
        ) from error
    with (
        tempfile.TemporaryDirectory(prefix="fast-rcnn-sql-") as folder,
        duckdb.connect() as connection,
    ):
        try:
            _prepare(connection, views, folder)
            _check_statement(duckdb, statement)
            yield connection.sql(statement).to_arrow_reader(ROWS_PER_BATCH)
        except (duckdb.Error, pa.ArrowException) as error:
            raise InvalidConfiguration(f"SQL: {_describe(error, views)}") from error


def _prepare(connection: Any, views: Views, folder: str) -> None:
    for name, source in views.sources.items():
        connection.register(name, open_dataset(source, _SCHEMAS[name]))
    for statement in views.statements:
        connection.execute(statement)
    # Arrays that do not fit into memory go to this folder; everything else outside is closed.
    connection.execute(f"SET temp_directory = '{folder}'")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def open_dataset(source: Source, target: pa.Schema) -> pa.dataset.Dataset:
    """The files as one table; a column that a file lacks is null."""
    opened = [storage.get_filesystem(uri) for uri in source.files]
    store = opened[0][0]
    filesystem = None if isinstance(store, LocalFileSystem) else PyFileSystem(FSSpecHandler(store))
    return pyarrow.dataset.dataset(
        [path for _, path in opened], schema=target, format="parquet", filesystem=filesystem
    )


def _check_statement(duckdb: Any, statement: str) -> None:
    statements = duckdb.extract_statements(statement)
    if len(statements) != 1:
        raise InvalidConfiguration(f"SQL: expected one statement, got {len(statements)}")
    kind = statements[0].type
    if kind != duckdb.StatementType.SELECT:  # DESCRIBE, SUMMARIZE and SHOW count as such
        raise InvalidConfiguration(
            f"SQL: {kind.name} is not allowed: only statements that read are; --output writes a result"
        )


def _describe(error: Exception, views: Views) -> str:
    """The first line of DuckDB's message, and what a missing view needs."""
    text = str(error).splitlines()[0]
    for name, option in VIEW_INPUTS.items():
        defined = name in views.sources or any(f" VIEW {name} " in s for s in views.statements)
        if not defined and f"Table with name {name} does not exist" in text:
            return f"{text} The view {name} needs {option}."
    return text


def write_result(uri: str, reader: pa.RecordBatchReader) -> int:
    """Write a result as Parquet or CSV, put whole, and return its number of rows.

    Args:
        uri: ends in .parquet or .csv.
        reader: the result.

    Raises:
        InvalidConfiguration: the query fails meanwhile.
        StorageError: the store fails.
    """
    rows = 0
    with storage.write_stream(uri) as file:
        if is_csv(uri):
            file.write(format_rows([list(map(escape_cell, reader.schema.names))]))
            for batch in reader:
                rows += len(batch)
                file.write(format_rows(zip(*map(format_column, batch.columns), strict=True)))
        else:
            with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
                for batch in reader:
                    rows += len(batch)
                    writer.write_batch(batch)
    return rows


def is_csv(uri: str) -> bool:
    """Whether a result goes to CSV rather than Parquet.

    Raises:
        InvalidConfiguration: the name ends in neither.
    """
    for ending in (".csv", ".parquet"):
        if uri.lower().endswith(ending):
            return ending == ".csv"
    raise InvalidConfiguration(f"--output {uri} ends in neither .parquet nor .csv")


def format_column(column: pa.Array) -> list[Any]:
    """The values of a column as cells of CSV: numbers, escaped texts, None for null, JSON for nested ones."""
    kind = column.type
    if pa.types.is_floating(kind):
        texts: list[Any] = pc.cast(column, pa.string()).to_pylist()
        return texts
    values: list[Any] = column.to_pylist()
    if pa.types.is_integer(kind):
        return values
    if pa.types.is_boolean(kind):
        return [value if value is None else str(value).lower() for value in values]
    if pa.types.is_nested(kind):
        values = [value if value is None else json.dumps(value, default=str) for value in values]
    return [None if value is None else escape_cell(str(value)) for value in values]
