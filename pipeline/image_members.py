"""Images inside other files: a span of bytes in a tar file, or a row of a Parquet file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import schema, uris
from pipeline.errors import UnreadableDataset

COLUMNS = tuple(field.name for field in schema.MEMBERS)
"""The columns of a manifest that say where images lie in the files that their URIs name."""


@dataclass(frozen=True)
class Member:
    """Where an image lies in the file that its URI names, or why there is no image."""

    offset: int | None = None
    """First byte of the image in an uncompressed tar file."""
    length: int | None = None
    """Bytes of the image."""
    header_checksum: int | None = None
    """That of the image's tar header, which covers its name, size and time."""
    row: int | None = None
    """Row of a Parquet file, counted from 0 over all its row groups."""
    image_column: str | None = None
    """The column of that file, with a dot before a field of a struct: `image.bytes`."""
    etag: str | None = None
    """What identified the file's content when the manifest was made; None if the store says nothing."""
    failure: str | None = None
    """Why the dataset has no image here, such as a download that failed."""

    @property
    def is_span(self) -> bool:
        """Whether the image is a span of bytes."""
        return self.offset is not None

    @property
    def span(self) -> tuple[int, int]:
        """First byte of the image in a tar file, and the byte behind it."""
        assert self.offset is not None, "the image is no span of bytes"
        return self.offset, self.offset + (self.length or 0)

    @property
    def identity(self) -> bytes:
        """What shard keys hash of the member: other bytes or another state of the file are another image."""
        values = (
            self.offset,
            self.length,
            self.header_checksum,
            self.row,
            self.image_column,
            self.etag,
            self.failure,
        )
        return repr(values).encode("utf-8", "backslashreplace")

    def describe(self) -> str:
        """The place in words, behind the file's URI in messages and reports."""
        if self.failure is not None:
            return "no image"
        if self.is_span:
            first, end = self.span
            return f"bytes {first} to {end - 1}"
        return f"row {self.row}"


def read_members(table: pa.Table | pa.RecordBatch, uri: str, first_row: int) -> list[Member | None]:
    """The member of each row of a manifest; None for an image that is a file of its own.

    Args:
        table: rows with the columns `COLUMNS`, or without any of them.
        uri: the manifest, for messages.
        first_row: the manifest's row of the first of them, for messages.

    Raises:
        UnreadableDataset: a row says half of what it must, or has a negative number.
    """
    if not set(COLUMNS) <= set(table.schema.names):
        return [None] * table.num_rows
    columns = [table.column(name).to_pylist() for name in COLUMNS]
    return [
        _build_member(values, uri, first_row + index)
        for index, values in enumerate(zip(*columns, strict=True))
    ]


def _build_member(values: Sequence[Any], uri: str, row: int) -> Member | None:
    member = Member(*values)
    if member == Member():
        return None
    numbers = (member.offset, member.length, member.header_checksum, member.row)
    is_span = None not in (member.offset, member.length, member.header_checksum)
    is_cell = member.row is not None and member.image_column is not None
    places = is_span + is_cell + (member.failure is not None)
    is_half = (not is_span and numbers[:3] != (None, None, None)) or (member.row is None) != (
        member.image_column is None
    )
    if places != 1 or is_half or any(number is not None and number < 0 for number in numbers):
        stated = ", ".join(
            f"{name} {value!r:.60}"
            for name, value in zip(COLUMNS, values, strict=True)
            if value is not None
        )
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: row {row} has {stated}; expected offset, length and "
            "header_checksum, row and image_column, or a failure, and no negative number"
        )
    return member


def build_columns(members: Sequence[Member | None]) -> dict[str, pa.Array]:
    """The columns `COLUMNS` of a manifest."""
    return {
        field.name: pa.array(
            [None if member is None else getattr(member, field.name) for member in members],
            field.type,
        )
        for field in schema.MEMBERS
    }
