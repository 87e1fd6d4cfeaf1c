"""The manifest: one row per image, in one Parquet file or a folder of them, streamed and sliced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema, storage, uris
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
    """One image: `objects` is None if the image is not annotated, empty if it is known to show none."""

    image_id: str
    uri: str
    width: int | None
    height: int | None
    objects: tuple[AnnotatedObject, ...] | None


@dataclass(frozen=True)
class ManifestFile:
    """One Parquet file of a manifest; `first_row` counts over the whole manifest."""

    uri: str
    first_row: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """An open manifest: its files, row counts and classes. It holds no rows in memory."""

    uri: str
    files: tuple[ManifestFile, ...]
    classes: tuple[str, ...] | None
    category_ids: tuple[int, ...] | None

    @property
    def rows(self) -> int:
        """Images in all files."""
        return sum(file.rows for file in self.files)

    def read_batches(
        self, columns: Sequence[str], limit: int | None = None, batch_size: int = ROW_GROUP
    ) -> Iterator[pa.RecordBatch]:
        """Stream the first `limit` rows (None: all) in order, a few thousand at a time."""
        remaining = self.rows if limit is None else min(limit, self.rows)
        for file in self.files:
            if remaining <= 0:
                return
            with storage.open_file(file.uri) as source, schema.report_damage(file.uri):
                for batch in _iterate_batches(pq.ParquetFile(source), batch_size, list(columns)):
                    yield batch.slice(0, remaining)
                    remaining -= len(batch)
                    if remaining <= 0:
                        return

    def read(self, first_row: int, rows: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read rows `first_row` to `first_row + rows`, and only the row groups that hold them."""
        last_row = first_row + rows
        tables = []
        for file in self.files:
            start, stop = max(first_row, file.first_row), min(last_row, file.first_row + file.rows)
            if start < stop:
                tables.append(_read_slice(file.uri, start - file.first_row, stop - start, columns))
        if not tables:
            return schema.MANIFEST.empty_table()
        return pa.concat_tables(tables)


def _iterate_batches(
    parquet: pq.ParquetFile, batch_size: int, columns: list[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of one file, one row group at a time: given several groups, pyarrow reads all of them first."""
    for group in range(parquet.num_row_groups):
        yield from parquet.iter_batches(batch_size, row_groups=[group], columns=columns)


def _read_slice(uri: str, first: int, rows: int, columns: Sequence[str] | None) -> pa.Table:
    with storage.open_file(uri) as source, schema.report_damage(uri):
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
        names = list(columns) if columns is not None else list(schema.MANIFEST.names)
        present = [name for name in names if name in parquet.schema_arrow.names]
        table = parquet.read_row_groups(groups, columns=present).slice(offset, rows)
        for name in names:
            if name not in present:  # objects, width and height may be absent
                field = schema.MANIFEST.field(name)
                table = table.append_column(field, pa.nulls(rows, field.type))
        return table.select(names).cast(pa.schema([schema.MANIFEST.field(name) for name in names]))


def open_manifest(uri: str) -> Manifest:
    """Open a manifest and check everything that can be checked without reading its rows.

    Args:
        uri: a Parquet file, or a folder whose `*.parquet` files are read in the order of their names.

    Raises:
        UnreadableDataset: there is no Parquet file, a file is damaged or has a newer schema, columns are
            missing or have a wrong type, files list different classes, or there are no rows.
        StorageError: the store cannot be reached.
    """
    uri = uris.make_absolute(uri)
    if storage.is_folder(uri):
        names = [
            n for n in storage.list_names(uri) if n.endswith(".parquet") and not n.startswith(".")
        ]
        paths = [uris.join(uri, name) for name in names]
        if not paths:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)} holds no *.parquet file, so it is not a manifest"
            )
    else:
        paths = [uri]
    files: list[ManifestFile] = []
    first_row = 0
    with ThreadPoolExecutor(16) as threads:  # each thread mostly waits for the store
        footers = list(threads.map(_read_footer, paths))
    _, classes, categories = footers[0]
    for path, (count, file_classes, _) in zip(paths, footers, strict=True):
        if file_classes != classes:
            raise UnreadableDataset(
                f"{uris.redact_uri(path)} lists other classes than {uris.redact_uri(paths[0])}"
            )
        files.append(ManifestFile(path, first_row, count))
        first_row += count
    if first_row == 0:
        raise UnreadableDataset(f"{uris.redact_uri(uri)} is a manifest without images")
    return Manifest(
        uri,
        tuple(files),
        None if classes is None else tuple(classes),
        None if categories is None else tuple(categories),
    )


def _read_footer(path: str) -> tuple[int, Any, Any]:
    """Check the columns of one file and read its number of rows, classes and category ids."""
    with storage.open_file(path) as source, schema.report_damage(path):
        parquet = pq.ParquetFile(source)
        file_schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
    schema.check_version(file_schema, path)
    _check_columns(path, file_schema)
    classes = _read_list(path, file_schema, "classes", str)
    return rows, classes, _read_list(path, file_schema, "category_ids", int)


def _read_list(path: str, file_schema: pa.Schema, key: str, kind: type) -> Any:
    try:
        values = schema.read_metadata(file_schema, key)
    except UnreadableDataset as error:
        raise UnreadableDataset(f"{uris.redact_uri(path)}: {error}") from error
    if values is not None and not _is_list_of(values, kind):
        raise UnreadableDataset(
            f"{uris.redact_uri(path)}: the schema's metadata {key!r} is {values!r:.60}, expected a list of "
            + ("names" if kind is str else "numbers")
        )
    return values


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _check_columns(uri: str, file_schema: pa.Schema) -> None:
    for name in ("image_id", "uri"):
        if name not in file_schema.names:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)} has no column {name}; a manifest has the columns "
                f"{', '.join(schema.MANIFEST.names)}, and this file has {', '.join(file_schema.names)}"
            )
        if file_schema.field(name).type not in (pa.string(), pa.large_string()):
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)}: column {name} is {file_schema.field(name).type}, expected string"
            )
    if "objects" in file_schema.names and not pa.types.is_null(file_schema.field("objects").type):
        objects = file_schema.field("objects").type
        missing = [
            field.name
            for field in schema.OBJECT
            if not _is_list_of_structs(objects)
            or objects.value_type.get_field_index(field.name) < 0
        ]
        if missing:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)}: objects lack {', '.join(missing)} (objects are {objects})"
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
    """Write rows as one Parquet file, put whole, and return their number.

    Raises:
        UnreadableDataset: an image_id occurs twice, a label is not among `classes`, or there are no rows.
    """
    metadata: dict[str, Any] = {}
    if classes is not None:
        metadata["classes"] = list(classes)
    if category_ids is not None:
        metadata["category_ids"] = list(category_ids)
    target = schema.add_metadata(schema.MANIFEST, metadata)
    class_names = None if classes is None else frozenset(classes)
    seen: set[str] = set()
    with (
        storage.write_whole(uri) as scratch,
        pq.ParquetWriter(scratch, target, compression="zstd") as writer,
    ):
        source = iter(rows)
        while chunk := list(islice(source, ROW_GROUP)):
            for row in chunk:
                _check_row(row, seen, class_names)
                seen.add(row.image_id)
            writer.write_table(_build_table(chunk, target), row_group_size=ROW_GROUP)
        if not seen:
            raise UnreadableDataset("the dataset holds no images, so no manifest was written")
    return len(seen)


def _check_row(row: ManifestRow, seen: set[str], class_names: frozenset[str] | None) -> None:
    if row.image_id in seen:
        raise UnreadableDataset(
            f"image_id {row.image_id!r} occurs twice ({uris.redact_uri(row.uri)})"
        )
    if class_names is not None:
        for item in row.objects or ():
            if item.label not in class_names:
                raise UnreadableDataset(
                    f"image {row.image_id!r} has an object of class {item.label!r}, "
                    f"which is not among the classes {', '.join(sorted(class_names))}"
                )


def _build_table(rows: Sequence[ManifestRow], target: pa.Schema) -> pa.Table:
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
