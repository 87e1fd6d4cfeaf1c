"""The manifest: one row per image, in one Parquet file or a folder of them, streamed and sliced."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import image_members, schema, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.image_members import Member
from pipeline.imaging import Decoding, Exif, Truncated
from pipeline.manifest_files import check_complete
from pipeline.manifest_footers import read_footer
from pipeline.table_checks import cast_table

log = logging.getLogger(__name__)

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
    negative_labels: tuple[str, ...] | None = None
    """Classes that the image is known not to show, if the dataset is federated."""
    not_exhaustive_labels: tuple[str, ...] | None = None
    """Classes of which the image may show more than `objects`, if the dataset is federated."""
    member: Member | None = None
    """Where the image lies in the file `uri`; None if it is that file."""


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
    exif: Exif = "ignore"
    """The orientation that sizes and boxes refer to, and so the one to decode images in."""
    truncated: Truncated = "reject"
    """Whether a JPEG that ends early is used, grey where pixels are missing."""
    is_federated: bool = False
    """Whether images are annotated for some classes only, as in LVIS."""
    has_members: bool = False
    """Whether images lie inside other files, such as tar files."""

    @property
    def image_columns(self) -> tuple[str, ...]:
        """The columns that say where an image is, and of which size."""
        members = image_members.COLUMNS if self.has_members else ()
        return ("image_id", "uri", "width", "height", *members)

    @property
    def decoding(self) -> Decoding:
        """How to decode the images."""
        return Decoding(self.exif, self.truncated)

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
        """Read rows `first_row` to `first_row + rows`, and only the row groups that hold them.

        Raises:
            UnreadableDataset: a file is damaged, a column has another type, or a row holds a value that does
                not belong there, such as an object without a box.
        """
        last_row = first_row + rows
        tables = []
        for file in self.files:
            start, stop = max(first_row, file.first_row), min(last_row, file.first_row + file.rows)
            if start < stop:
                tables.append(_read_slice(file.uri, start - file.first_row, stop - start, columns))
        if not tables:
            return schema.MANIFEST_COLUMNS.empty_table().select(
                list(columns or schema.MANIFEST.names)
            )
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
            if name not in present:  # all but image_id and uri may be absent
                field = schema.MANIFEST_COLUMNS.field(name)
                table = table.append_column(field, pa.nulls(rows, field.type))
    return cast_table(table.select(names), schema.MANIFEST_COLUMNS, uri, first_row=first)


def open_manifest(uri: str) -> Manifest:
    """Open a manifest and check everything that can be checked without reading its rows.

    Args:
        uri: a Parquet file, or a folder whose `*.parquet` files are read in the order of their names.

    Raises:
        UnreadableDataset: there is no Parquet file, a file is damaged or has a newer schema, columns are
            missing or have a wrong type, files list different classes, one is missing of those that
            `prepare` wrote together, or there are no rows.
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
        footers = list(threads.map(read_footer, paths))
    first = footers[0]
    for path, footer in zip(paths, footers, strict=True):
        if footer.classes != first.classes:
            raise UnreadableDataset(
                f"{uris.redact_uri(path)} lists other classes than {uris.redact_uri(paths[0])}"
            )
        if footer.decoding != first.decoding:
            raise UnreadableDataset(
                f"{uris.redact_uri(path)} was prepared with {_describe(footer.decoding)}, "
                f"{uris.redact_uri(paths[0])} with {_describe(first.decoding)}: prepare both alike"
            )
        files.append(ManifestFile(path, first_row, footer.rows))
        first_row += footer.rows
    if first_row == 0:
        raise UnreadableDataset(f"{uris.redact_uri(uri)} is a manifest without images")
    check_complete(uri, [footer.place for footer in footers], first_row)
    return Manifest(
        uri,
        tuple(files),
        first.classes,
        first.category_ids,
        first.decoding.exif,
        first.decoding.truncated,
        any(footer.is_federated for footer in footers),
        any(footer.has_members for footer in footers),
    )


def _describe(decoding: Decoding) -> str:
    return f"--exif {decoding.exif} --truncated {decoding.truncated}"
