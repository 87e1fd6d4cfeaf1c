"""Parquet files with encoded images in a column, as the Hugging Face Hub stores datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.image_members import Member
from pipeline.imaging import ImageHeader
from pipeline.manifests import AnnotatedObject
from pipeline.parquet_cells import CellReader, is_binary, read_group, read_group_starts
from pipeline.sources.checking import read_side
from pipeline.sources.contained_images import ContainedImage, build_contained_row
from pipeline.sources.dataset import (
    AHEAD,
    IMAGE_FAULTS,
    Dataset,
    ReadImage,
    choose_mapper,
    stream_groups,
)
from pipeline.sources.feature_names import read_class_names
from pipeline.sources.listed_labels import ListedLabels, collect_labels
from pipeline.sources.object_fields import ObjectFields, parse_objects
from pipeline.sources.options import DEFAULT, SourceOptions
from pipeline.sources.patterns import expand_patterns
from pipeline.sources.scalars import read_id
from pipeline.sources.sizes import parse_image_header
from pipeline.sources.tally import Tally

_SIDES = ("width", "height")


@dataclass(frozen=True)
class ParquetLayout:
    """Which columns hold what."""

    image_column: str = "image"
    """Column of the encoded images: bytes, or a struct with the field bytes."""
    id_column: str | None = None
    """Column of the image_ids; by default an id is the file's name and the number of the row."""
    objects_column: str | None = None
    """Column of the objects; by default objects, if there is one."""
    fields: ObjectFields = field(default_factory=ObjectFields)
    """Where labels and boxes are in it."""
    classes: tuple[str, ...] = ()
    """Labels in the order of their numbers; by default those of the files' metadata, or all, sorted."""


@dataclass(frozen=True)
class _Group:
    """One row group of one file."""

    uri: str
    etag: str | None
    index: int
    first_row: int
    rows: int


@dataclass(frozen=True)
class _File:
    """What the footer of the first file says."""

    image_column: str
    """With the field of a struct."""
    objects_column: str | None
    columns: tuple[str, ...]
    """Others to read: id, objects and sizes."""
    names: tuple[str, ...] | None


def open_parquet_images(
    data: Sequence[str], layout: ParquetLayout | None = None, options: SourceOptions = DEFAULT
) -> Dataset:
    """The images of Parquet files, in the order of files and rows.

    The manifest's rows hold the file and the row of each image, so nothing is copied. Without columns width
    and height, each image is read once for the size in its header; memory holds a row group per thread.

    Args:
        data: Parquet files in any store; `*`, `?` and `{000..127}` stand for several, a folder for its files.
        layout: which columns hold what.
        options: how many images may be invalid, and what is checked.

    Raises:
        UnreadableDataset: there is no Parquet file, a file is damaged or lacks a column, or (while streaming)
            too many images are invalid.
        StorageError: a file does not exist, or its store cannot be reached.
    """
    layout = layout or ParquetLayout()
    files = list_parquet_files(data)
    first = _read_file(files[0], layout)
    groups = [
        group
        for outcome in choose_mapper(options)(_list_groups, files, AHEAD)
        for group in outcome.result()
    ]
    reader = _GroupReader(layout, options, first)
    classes: tuple[str, ...] | None = None
    if first.objects_column is not None:
        classes = layout.classes or first.names or reader.list_labels(groups)
        reader.classes = classes
    tally = Tally()
    rows = stream_groups(groups, reader.read, tally, options)
    return Dataset(classes, None, rows, tally, has_members=True)


def list_parquet_files(data: Sequence[str]) -> list[str]:
    """The files that patterns and folders name; errors as for `expand_patterns`."""
    return expand_patterns(data, (".parquet",))


def _read_file(uri: str, layout: ParquetLayout) -> _File:
    where = uris.redact_uri(uri)
    with storage.open_file(uri) as source, schema.report_damage(uri):
        file_schema = pq.read_schema(source)
    names = file_schema.names

    def require(name: str, option: str) -> str:
        if name not in names:
            raise UnreadableDataset(
                f"{where} has no column {name} ({option}); it has {', '.join(names):.500}"
            )
        if names.count(name) > 1:
            raise UnreadableDataset(f"{where} has several columns {name} ({option})")
        return name

    kind = file_schema.field(require(layout.image_column, "--image-column")).type
    image_column = layout.image_column
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind, image_column = kind.field("bytes").type, f"{image_column}.bytes"
    if not is_binary(kind):
        raise UnreadableDataset(
            f"{where}: column {layout.image_column} is {kind}, expected binary, or a struct with the field "
            "bytes"
        )
    objects_column = layout.objects_column
    if objects_column is not None:
        require(objects_column, "--objects-column")
    elif "objects" in names:
        objects_column = require("objects", "--objects-column")
    columns = [objects_column] if objects_column is not None else []
    if layout.id_column is not None:
        columns.append(require(layout.id_column, "--id-column"))
    if all(name in names and pa.types.is_integer(file_schema.field(name).type) for name in _SIDES):
        columns += _SIDES
    label_names = None
    if objects_column is not None:
        label = layout.fields.label_field
        label_names = read_class_names(file_schema, objects_column, label, where)
    return _File(image_column, objects_column, tuple(columns), label_names)


def _list_groups(uri: str) -> list[_Group]:
    etag = storage.get_etag(uri)
    starts = read_group_starts(uri)
    return [
        _Group(uri, etag, index, first, last - first)
        for index, (first, last) in enumerate(pairwise(starts))
    ]


class _GroupReader:
    """Reads the images of one row group at a time; used by several threads."""

    def __init__(self, layout: ParquetLayout, options: SourceOptions, first: _File) -> None:
        self.classes: tuple[str, ...] = ()
        self._layout = layout
        self._options = options
        self._file = first
        self._cells = CellReader()

    def __getstate__(self) -> dict[str, Any]:
        """What other processes get: they read cells on their own."""
        return {name: value for name, value in vars(self).items() if name != "_cells"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _cells=CellReader())

    def list_labels(self, groups: Sequence[_Group]) -> tuple[str, ...]:
        """The labels of all objects, sorted: a pass over the column of the objects."""
        if not any(group.rows for group in groups):
            raise UnreadableDataset("the Parquet files hold no rows, so there are no images")
        return collect_labels(
            (o.result() for o in choose_mapper(self._options)(self._list_labels, groups, AHEAD)),
            f"column {self._file.objects_column} holds no object; name the classes with --classes if "
            "that is so",
        )

    def _list_labels(self, group: _Group) -> ListedLabels:
        listed = ListedLabels()
        column = self._file.objects_column
        assert column is not None
        for row, content in enumerate(_read_columns(group, (column,))[column]):
            try:
                listed.add(self._parse(content, self._place(group, row)))
            except UnreadableDataset as error:
                listed.take_fault(str(error))
        return listed

    def read(self, group: _Group) -> list[ReadImage | Exception]:
        """The images of a row group, each as its row or the error that it has.

        Raises:
            UnreadableDataset: the file is damaged, or lacks a column that the first has.
            StorageError: it cannot be read.
        """
        columns = _read_columns(group, self._file.columns)
        has_sizes = set(_SIDES) <= columns.keys()
        reads_images = not has_sizes or self._options.check_sizes or self._options.exif == "apply"
        images: list[ReadImage | Exception] = []
        values = (
            read_group(group.uri, self._file.image_column, group.index) if reads_images else None
        )
        for row in range(group.rows):
            cells = {name: column[row] for name, column in columns.items()}
            data = values[row].as_py() if values is not None else b""
            try:
                images.append(self._read_row(group, row, cells, data))
            except IMAGE_FAULTS as error:
                images.append(error)
        return images

    def _read_row(
        self, group: _Group, row: int, cells: dict[str, Any], data: bytes | None
    ) -> ReadImage:
        place = self._place(group, row)
        if data is None:
            raise UnreadableDataset(
                f"{place} has no bytes in column {self._file.image_column}: an image that is only a path "
                "cannot be read"
            )
        objects = self._parse(cells.get(self._file.objects_column or ""), place)

        def read_header() -> ImageHeader:
            encoded = data or self._cells.read(
                group.uri, group.etag, self._file.image_column, group.first_row + row
            )
            return parse_image_header(encoded or b"", place)

        member = Member(
            row=group.first_row + row, image_column=self._file.image_column, etag=group.etag
        )
        contained = ContainedImage(
            self._name(group, row, cells),
            group.uri,
            member,
            place,
            read_header,
            objects,
            (read_side(cells.get("width")), read_side(cells.get("height"))),
        )
        is_relative = self._layout.fields.is_relative
        labels = frozenset(self.classes)
        return build_contained_row(contained, self._options, labels, is_relative=is_relative)

    def _parse(self, content: Any, place: str) -> tuple[AnnotatedObject, ...] | None:
        if content is None:
            return None
        names = self._layout.classes or self._file.names or ()
        return parse_objects(content, self._layout.fields, names, place)

    def _name(self, group: _Group, row: int, cells: dict[str, Any]) -> str:
        column = self._layout.id_column
        if column is not None:
            return read_id(cells[column], column, self._place(group, row))
        stem = group.uri.rpartition("/")[2].removesuffix(".parquet")
        return f"{stem}/{group.first_row + row}"

    @staticmethod
    def _place(group: _Group, row: int) -> str:
        return f"{uris.redact_uri(group.uri)}: row {group.first_row + row}"


def _read_columns(group: _Group, names: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of a row group as values of Python."""
    if not names:
        return {}
    with storage.open_file(group.uri) as source, schema.report_damage(group.uri):
        parquet = pq.ParquetFile(source, pre_buffer=False)
        stored = parquet.schema_arrow.names
        wrong = [name for name in names if stored.count(name) != 1]
        if wrong:
            number = "several columns" if wrong[0] in stored else "no column"
            raise UnreadableDataset(
                f"{uris.redact_uri(group.uri)} has {number} {wrong[0]}, and the first file has one"
            )
        table = parquet.read_row_group(group.index, columns=list(names), use_threads=False)
        return {name: table.column(name).to_pylist() for name in names}
