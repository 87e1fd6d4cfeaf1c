"""A table with a row per image, such as camera, country and day, whose columns divide images into slices.

Texts, flags and whole numbers with few values are slices as they are; numbers with many values are divided
at their quartiles. Of a text's values, the most frequent ones have a slice each, and the others one
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from pipeline import schema, storage, uris
from pipeline.errors import UnreadableDataset

MAX_VALUES = 40
"""The most slices of one column; rarer values are in the slice `other`."""
MAX_COLUMNS = 20

_MAX_BYTES = 4 * 2**30
_MAX_WHOLE_NUMBERS = 12


@dataclass(frozen=True)
class SideColumn:
    """One column: its slices, and the slice of each image."""

    names: tuple[str, ...]
    positions: NDArray[np.int16]
    """`(N,)` in `names`, -1 for null, by the rows of the side table."""


@dataclass(frozen=True)
class SideTable:
    """The columns of N images."""

    uri: str
    image_ids: pa.Array
    columns: Mapping[str, SideColumn]

    def count_images(self, image_ids: pa.ChunkedArray) -> int:
        """Count the images that have a row in the table."""
        return int(pc.sum(pc.is_in(image_ids, value_set=self.image_ids)).as_py() or 0)

    def find_slices(self, image_ids: pa.ChunkedArray) -> dict[str, NDArray[np.int16]]:
        """Return by column the slice of each image `(P,)`, -1 for images that have none."""
        index = pc.index_in(image_ids, value_set=self.image_ids)
        rows = pc.fill_null(index, -1).to_numpy().astype(np.int64)
        return {
            name: np.where(rows < 0, np.int16(-1), column.positions[rows])
            if len(column.positions)
            else np.full(len(rows), -1, np.int16)
            for name, column in self.columns.items()
        }


def read_side_table(uri: str) -> SideTable:
    """Read a Parquet or CSV file with a column `image_id` and at least one other column.

    Raises:
        UnreadableDataset: the file is damaged, has no `image_id`, names an image twice, or has no other
            column or too many of them.
        StorageError: the file does not exist or cannot be read.
    """
    table = _read_table(uri)
    name = uris.redact_uri(uri)
    if "image_id" not in table.column_names:
        raise UnreadableDataset(
            f"{name} has no column image_id; it has {', '.join(table.column_names)[:200]}"
        )
    names = [column for column in table.column_names if column != "image_id"]
    if len(set(table.column_names)) < len(table.column_names):
        raise UnreadableDataset(f"{name} has two columns of one name")
    if not 1 <= len(names) <= MAX_COLUMNS:
        raise UnreadableDataset(
            f"{name} has {len(names)} columns beside image_id, expected 1 to {MAX_COLUMNS}"
        )
    image_ids = _combine(table.column("image_id").cast(pa.string()))
    if image_ids.null_count:
        raise UnreadableDataset(f"{name}: an image_id is null")
    if pc.count_distinct(image_ids).as_py() < len(image_ids):
        counts = pc.value_counts(image_ids)
        repeated = counts.field("values")[
            pc.index(pc.greater(counts.field("counts"), 1), True).as_py()
        ]
        raise UnreadableDataset(f"{name} has several rows for image {repeated.as_py()!r:.200}")
    columns = {
        column: _slice_column(table.column(column), f"{name}: column {column}") for column in names
    }
    return SideTable(uri, image_ids, columns)


def _read_table(uri: str) -> pa.Table:
    data = storage.read(uri, _MAX_BYTES)
    if data[:4] == b"PAR1":
        with schema.report_damage(uri):
            return schema.parse_parquet(data)
    try:
        # An image_id such as 0012 must stay a text.
        options = pa.csv.ConvertOptions(column_types={"image_id": pa.string()})
        return pa.csv.read_csv(pa.BufferReader(data), convert_options=options)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0][:200]
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} is neither Parquet nor CSV with a header: {text}"
        ) from error


def _slice_column(column: pa.ChunkedArray, where: str) -> SideColumn:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        distinct = pc.count_distinct(column).as_py()
        if distinct > _MAX_WHOLE_NUMBERS or not pa.types.is_integer(kind):
            return _slice_numbers(column.cast(pa.float64()))
    try:
        return _slice_texts(_combine(column.cast(pa.string())))
    except pa.ArrowException as error:
        raise UnreadableDataset(
            f"{where} is {column.type}, expected text, numbers or dates"
        ) from error


def _slice_numbers(column: pa.ChunkedArray) -> SideColumn:
    values: NDArray[np.float64] = column.to_numpy()
    is_number = np.isfinite(values)
    if not is_number.any():
        return SideColumn((), np.full(len(values), -1, np.int16))
    limits = np.unique(np.quantile(values[is_number], [0.25, 0.5, 0.75]))
    positions = np.searchsorted(limits, values, side="left")
    names = [f"up to {limits[0]:g}"]
    names += [f"above {a:g} to {b:g}" for a, b in pairwise(limits.tolist())]
    names.append(f"above {limits[-1]:g}")
    return SideColumn(tuple(names), np.where(is_number, positions, -1).astype(np.int16))


def _slice_texts(column: Any) -> SideColumn:
    counts = pc.value_counts(column.drop_null()).to_pylist()
    ranked = sorted(counts, key=lambda entry: (-entry["counts"], entry["values"]))
    names = [entry["values"] for entry in ranked[:MAX_VALUES]]
    positions = pc.index_in(column, value_set=pa.array(names, pa.string()), skip_nulls=True)
    fill = np.where(_to_numpy(column.is_null()), -1, len(names))
    found = _to_numpy(pc.fill_null(positions, -1))
    if len(ranked) > MAX_VALUES:
        names = [*names, "other" if "other" not in names else "all other values"]
    return SideColumn(tuple(names), np.where(found < 0, fill, found).astype(np.int16))


def _combine(column: pa.ChunkedArray) -> Any:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _to_numpy(values: Any) -> NDArray[Any]:
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array
