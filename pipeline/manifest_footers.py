"""The footer of a manifest's Parquet file: columns, classes, and how its images are decoded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema, storage, uris
from pipeline.errors import UnreadableDataset
from pipeline.imaging import Decoding, Exif, Truncated
from pipeline.manifest_files import FILES_KEY, FilePlace, parse_place
from pipeline.row_counts import count_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ManifestFooter:
    """What the footer of one file says."""

    rows: int
    classes: tuple[str, ...] | None
    category_ids: tuple[int, ...] | None
    decoding: Decoding
    is_federated: bool
    """Whether the file has the columns of `schema.FEDERATED`."""
    has_members: bool
    """Whether the file has the columns of `schema.MEMBERS`."""
    place: FilePlace | None = None
    """Which of several files it is; None for one that stands alone."""


def read_footer(path: str) -> ManifestFooter:
    """Check the columns of one file and read its footer.

    Raises:
        UnreadableDataset: the file is damaged or newer, columns are missing or have a wrong type, or the
            metadata does not hold what belongs there.
    """
    with storage.open_file(path) as source, schema.report_damage(path):
        parquet = pq.ParquetFile(source)
        file_schema, rows = parquet.schema_arrow, count_rows(parquet, path)
        stated_place = (parquet.metadata.metadata or {}).get(FILES_KEY.encode())
    schema.check_version(file_schema, path, schema.MEMBERS_VERSION)
    _check_columns(path, file_schema)
    if _has_lost_metadata(file_schema):
        log.warning(
            "%s has lost the metadata that prepare writes: another program wrote it. Its images are decoded "
            "as stored; if it comes from prepare --exif apply or --truncated accept, copy the metadata too "
            "(docs/datasets.md)",
            uris.redact_uri(path),
        )
    classes = _read_list(path, file_schema, "classes", str)
    if classes is not None and len(set(classes)) < len(classes):
        raise UnreadableDataset(f"{uris.redact_uri(path)} lists a class twice: {classes!r:.200}")
    categories = _read_list(path, file_schema, "category_ids", int)
    return ManifestFooter(
        rows,
        None if classes is None else tuple(classes),
        None if categories is None else tuple(categories),
        _read_decoding(path, file_schema),
        all(field.name in file_schema.names for field in schema.FEDERATED),
        _has_members(path, file_schema),
        _read_place(path, stated_place),
    )


def _read_place(path: str, stated: bytes | None) -> FilePlace | None:
    try:
        return parse_place(stated)
    except UnreadableDataset as error:
        raise UnreadableDataset(f"{uris.redact_uri(path)}: {error}") from error


def _has_members(path: str, file_schema: pa.Schema) -> bool:
    """Whether images lie inside other files. Other programs may have dropped the version, not the columns."""
    version = schema.read_metadata(file_schema, schema.VERSION_KEY)
    missing = [field.name for field in schema.MEMBERS if field.name not in file_schema.names]
    if version is None:
        return not missing
    if version != schema.MEMBERS_VERSION:
        return False
    if missing:
        raise UnreadableDataset(
            f"{uris.redact_uri(path)} has no column {missing[0]}, which says where an image lies in its "
            "file: copy all columns of the manifest that prepare wrote"
        )
    return True


def _has_lost_metadata(file_schema: pa.Schema) -> bool:
    """Whether a file has the columns that prepare writes, and none of its metadata."""
    metadata = file_schema.metadata or {}
    keys = (schema.VERSION_KEY, "classes", "exif", "truncated")
    has_columns = set(schema.MANIFEST.names) <= set(file_schema.names)
    return has_columns and not any(key.encode() in metadata for key in keys)


def _read_decoding(path: str, file_schema: pa.Schema) -> Decoding:
    return Decoding(
        _read_choice(path, file_schema, "exif", get_args(Exif)),
        _read_choice(path, file_schema, "truncated", get_args(Truncated)),
    )


def _read_choice(path: str, file_schema: pa.Schema, key: str, choices: Sequence[str]) -> Any:
    """One of the choices; the first if the file does not state it."""
    value = _read_value(path, file_schema, key)
    if value is None:
        return choices[0]
    if value not in choices:
        raise UnreadableDataset(
            f"{uris.redact_uri(path)}: the schema's metadata {key!r} is {value!r:.60}, "
            f"expected {' or '.join(choices)}"
        )
    return value


def _read_value(path: str, file_schema: pa.Schema, key: str) -> Any:
    try:
        return schema.read_metadata(file_schema, key)
    except UnreadableDataset as error:
        raise UnreadableDataset(f"{uris.redact_uri(path)}: {error}") from error


def _read_list(path: str, file_schema: pa.Schema, key: str, kind: type) -> Any:
    values = _read_value(path, file_schema, key)
    if values is not None and not _is_list_of(values, kind):
        raise UnreadableDataset(
            f"{uris.redact_uri(path)}: the schema's metadata {key!r} is {values!r:.60}, expected a list of "
            + ("names" if kind is str else "numbers")
        )
    return values


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _check_columns(uri: str, file_schema: pa.Schema) -> None:
    repeated = [name for name in schema.MANIFEST.names if file_schema.names.count(name) > 1]
    if repeated:
        raise UnreadableDataset(f"{uris.redact_uri(uri)} has several columns {repeated[0]}")
    for name in ("image_id", "uri"):
        if name not in file_schema.names:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)} has no column {name}; a manifest has the columns "
                f"{', '.join(schema.MANIFEST.names)}, and this file has {', '.join(file_schema.names)}"
            )
        if not _is_text(file_schema.field(name).type):
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


def _is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts in any of Arrow's forms; categories of other tools are dictionaries."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_list_of_structs(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return bool(pa.types.is_struct(kind.value_type))
