"""The images of a manifest that fulfil a condition in SQL, which DuckDB evaluates."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import InvalidConfiguration
from pipeline.manifests import Manifest
from pipeline.subsets.manifest_copy import read_manifest_tables

DERIVED = {
    "num_objects": "coalesce(len(objects), 0)",
    "labels": "[o.label FOR o IN objects]",
}
"""Columns that a condition may use beside those of the manifest."""
_ROW = "row of the manifest"


def find_rows(manifest: Manifest, condition: str) -> NDArray[np.bool_]:
    """Which rows fulfil the condition, `(N,)`; a condition that is null for an image leaves it out.

    Args:
        manifest: the images.
        condition: an expression over the columns of the manifest and DERIVED, such as
            `list_contains(labels, 'dog') AND width >= 300`.

    Raises:
        InvalidConfiguration: DuckDB is not installed, or the condition has an error.
    """
    try:
        import duckdb  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise InvalidConfiguration(
            "--where needs DuckDB: run pip install '.[duckdb]' in the clone"
        ) from error
    is_chosen = np.zeros(manifest.rows, bool)
    first = 0
    with duckdb.connect() as connection:
        connection.execute("SET python_enable_replacements = false")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        for table in read_manifest_tables(manifest):
            numbered = table.append_column(_ROW, pa.array(np.arange(len(table))))
            connection.register("manifest", numbered)
            try:
                images = connection.sql(_list_columns(table.column_names))
                # An expression and nothing else: a text spliced into a statement could end its clause.
                rows = images.filter(condition).project(f'"{_ROW}"').fetchnumpy()[_ROW]
            except (duckdb.Error, pa.ArrowException) as error:
                text = str(error).splitlines()[0]
                raise InvalidConfiguration(f"--where {condition!r:.200}: {text}") from error
            is_chosen[first + np.asarray(rows, np.int64)] = True
            connection.unregister("manifest")
            first += len(table)
    return is_chosen


def _list_columns(columns: list[str]) -> str:
    """What a condition may use."""
    derived = [
        f"{expression} AS {name}"
        for name, expression in DERIVED.items()
        if name not in columns and "objects" in columns
    ]
    return f"SELECT {', '.join(['*', *derived])} FROM manifest"  # noqa: S608
