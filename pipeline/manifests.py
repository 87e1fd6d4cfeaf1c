"""The manifest: one row per image, in one Parquet file or a folder of them, streamed and sliced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema, storage
from pipeline.errors import UnreadableDataset

ROW_GROUP = 2048
"""Rows per Parquet row group: a shard reads one or two groups, whatever the manifest's size."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One annotated object: its class and its box in pixels, half open."""

    label: str
    x1: float
    y1: float
    x2: float
    y2: float
    difficult: bool = False
    crowd: bool = False


@dataclass(frozen=True)
class ManifestRow:
    """One image: `objects` is None where nothing was annotated, empty where nothing is in it."""

    image_id: str
    uri: str
    width: int | None
    height: int | None
    objects: tuple[AnnotatedObject, ...] | None


@dataclass(frozen=True)
class ManifestFile:
    """One Parquet file of a manifest and the rows it holds, counted over the whole manifest."""

    uri: str
    first_row: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """An opened manifest: which files, how many rows, which classes. It holds no rows."""

    uri: str
    files: tuple[ManifestFile, ...]
    classes: tuple[str, ...] | None
    category_ids: tuple[int, ...] | None

    @property
    def rows(self) -> int:
        """Images in all files."""
        return sum(file.rows for file in self.files)

    def batches(
        self, columns: Sequence[str], limit: int | None = None, batch_size: int = ROW_GROUP
    ) -> Iterator[pa.RecordBatch]:
        """Stream the first `limit` rows (None: all) in order, a few thousand at a time."""
        left = self.rows if limit is None else min(limit, self.rows)
        for file in self.files:
            if left <= 0:
                return
            with storage.opened(file.uri) as source, schema.reading(file.uri):
                for batch in _batches(pq.ParquetFile(source), batch_size, list(columns)):
                    yield batch.slice(0, left)
                    left -= len(batch)
                    if left <= 0:
                        return

    def read(self, first_row: int, rows: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows `first_row` to `first_row + rows`, reading only the row groups that hold them."""
        last_row = first_row + rows
        tables = []
        for file in self.files:
            start, stop = max(first_row, file.first_row), min(last_row, file.first_row + file.rows)
            if start < stop:
                tables.append(_read_slice(file.uri, start - file.first_row, stop - start, columns))
        if not tables:
            return schema.MANIFEST.empty_table()
        return pa.concat_tables(tables)


def _batches(
    parquet: pq.ParquetFile, batch_size: int, columns: list[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of one file, one row group after the other: told of several, pyarrow reads them all first."""
    for group in range(parquet.num_row_groups):
        yield from parquet.iter_batches(batch_size, row_groups=[group], columns=columns)


def _read_slice(uri: str, first: int, rows: int, columns: Sequence[str] | None) -> pa.Table:
    with storage.opened(uri) as source, schema.reading(uri):
        parquet = pq.ParquetFile(source)
        groups: list[int] = []
        group_start, offset = 0, 0
        for index in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(index).num_rows
            if group_start < first + rows and group_start + count > first:
                if not groups:
                    offset = first - group_start
                groups.append(index)
            group_start += count
        wanted = list(columns) if columns is not None else list(schema.MANIFEST.names)
        present = [name for name in wanted if name in parquet.schema_arrow.names]
        table = parquet.read_row_groups(groups, columns=present).slice(offset, rows)
        for name in wanted:
            if name not in present:  # objects, width and height may be absent
                field = schema.MANIFEST.field(name)
                table = table.append_column(field, pa.nulls(rows, field.type))
        return table.select(wanted).cast(pa.schema([schema.MANIFEST.field(n) for n in wanted]))


def open_manifest(uri: str) -> Manifest:
    """Open a manifest and check what can be checked without reading its rows.

    Args:
        uri: a Parquet file, or a folder whose `*.parquet` files are read in the order of their names.

    Raises:
        UnreadableDataset: no Parquet file, a file that is damaged, missing or wrongly typed columns,
            files that disagree on the classes, no rows.
        StorageError: the store cannot be reached.
    """
    uri = storage.absolute(uri)
    if storage.is_folder(uri):
        found = [n for n in storage.names(uri) if n.endswith(".parquet") and not n.startswith(".")]
        paths = [storage.join(uri, name) for name in found]
        if not paths:
            raise UnreadableDataset(
                f"{storage.shown(uri)} holds no *.parquet file, so it is no manifest"
            )
    else:
        paths = [uri]
    files: list[ManifestFile] = []
    first_row = 0
    with ThreadPoolExecutor(16) as threads:  # each waits for its store most of the time
        footers = list(threads.map(_footer, paths))
    _, classes, categories = footers[0]
    for path, (count, its_classes, _) in zip(paths, footers, strict=True):
        if its_classes != classes:
            raise UnreadableDataset(
                f"{storage.shown(path)} lists other classes than {storage.shown(paths[0])}"
            )
        files.append(ManifestFile(path, first_row, count))
        first_row += count
    if first_row == 0:
        raise UnreadableDataset(f"{storage.shown(uri)} is a manifest of no images")
    return Manifest(
        uri,
        tuple(files),
        None if classes is None else tuple(classes),
        None if categories is None else tuple(categories),
    )


def _footer(path: str) -> tuple[int, Any, Any]:
    """Rows, classes and category ids of one file, whose columns are checked."""
    with storage.opened(path) as source, schema.reading(path):
        parquet = pq.ParquetFile(source)
        _check_columns(path, parquet.schema_arrow)
        told = {}
        for key, kind in (("classes", str), ("category_ids", int)):
            try:
                told[key] = schema.metadata_value(parquet.schema_arrow, key)
            except UnreadableDataset as error:
                raise UnreadableDataset(f"{storage.shown(path)}: {error}") from error
            if told[key] is not None and not _is_list_of(told[key], kind):
                raise UnreadableDataset(
                    f"{storage.shown(path)}: the schema's metadata {key!r} is {told[key]!r:.60}, expected a "
                    "list of " + ("names" if kind is str else "numbers")
                )
        return parquet.metadata.num_rows, told["classes"], told["category_ids"]


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _check_columns(uri: str, found: pa.Schema) -> None:
    for name in ("image_id", "uri"):
        if name not in found.names:
            raise UnreadableDataset(
                f"{storage.shown(uri)} has no column {name}; a manifest has "
                f"{', '.join(schema.MANIFEST.names)}; this file has {', '.join(found.names)}"
            )
        if found.field(name).type not in (pa.string(), pa.large_string()):
            raise UnreadableDataset(
                f"{storage.shown(uri)}: column {name} is {found.field(name).type}, expected string"
            )
    if "objects" in found.names and not pa.types.is_null(found.field("objects").type):
        listed = found.field("objects").type
        missing = [
            field.name
            for field in schema.OBJECT
            if not _is_list_of_structs(listed) or listed.value_type.get_field_index(field.name) < 0
        ]
        if missing:
            raise UnreadableDataset(
                f"{storage.shown(uri)}: objects lack {', '.join(missing)} (objects are {listed})"
            )


def _is_list_of_structs(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return bool(pa.types.is_struct(kind.value_type))


def write_manifest(
    uri: str,
    rows: Iterable[ManifestRow],
    classes: Sequence[str] | None,
    category_ids: Sequence[int] | None = None,
) -> int:
    """Write rows as one Parquet file, put whole, and return how many there were.

    Raises:
        UnreadableDataset: an image_id twice, a label that is not among `classes`, or no rows.
    """
    target = schema.MANIFEST
    if classes is not None:
        target = schema.with_metadata(target, {"classes": list(classes)})
    if category_ids is not None:
        target = schema.with_metadata(target, {"category_ids": list(category_ids)})
    known = None if classes is None else frozenset(classes)
    seen: set[str] = set()
    with (
        storage.whole_file(uri) as scratch,
        pq.ParquetWriter(scratch, target, compression="zstd") as writer,
    ):
        source = iter(rows)
        while chunk := list(islice(source, ROW_GROUP)):
            for row in chunk:
                _check_row(row, seen, known)
                seen.add(row.image_id)
            writer.write_table(_table(chunk, target), row_group_size=ROW_GROUP)
        if not seen:
            raise UnreadableDataset("the dataset holds no images, so no manifest was written")
    return len(seen)


def _check_row(row: ManifestRow, seen: set[str], known: frozenset[str] | None) -> None:
    if row.image_id in seen:
        raise UnreadableDataset(
            f"image_id {row.image_id!r} occurs twice ({storage.shown(row.uri)})"
        )
    if known is not None:
        for item in row.objects or ():
            if item.label not in known:
                raise UnreadableDataset(
                    f"image {row.image_id!r} has an object of class {item.label!r}, "
                    f"which is not among the classes {', '.join(sorted(known))}"
                )


def _table(rows: Sequence[ManifestRow], target: pa.Schema) -> pa.Table:
    objects = [
        None if row.objects is None else [vars(item) for item in row.objects] for row in rows
    ]
    return pa.table(
        {
            "image_id": [row.image_id for row in rows],
            "uri": [row.uri for row in rows],
            "width": pa.array([row.width for row in rows], pa.int32()),
            "height": pa.array([row.height for row in rows], pa.int32()),
            "objects": pa.array(objects, pa.list_(schema.OBJECT)),
        },
        schema=target,
    )
