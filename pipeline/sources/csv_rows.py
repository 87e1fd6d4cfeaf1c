"""Rows of a CSV file with their line numbers, read as a stream."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from pipeline import storage, uris
from pipeline.errors import UnreadableDataset


def read_csv_rows(uri: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line in which each row ends, and its cells; blank lines are left out.

    Args:
        uri: UTF-8 with or without a byte order mark, with commas, by RFC 4180, in any store.

    Raises:
        UnreadableDataset: it is not UTF-8, or not CSV; names the line.
        StorageError: it cannot be read.
    """
    where = uris.redact_uri(uri)
    with storage.open_file(uri) as file:
        reader = csv.reader(_decode(file))
        try:
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
        except UnicodeDecodeError as error:
            raise UnreadableDataset(
                f"{where}, behind line {reader.line_num}: byte {error.object[error.start]:#04x} is not "
                "UTF-8; save the file as UTF-8"
            ) from error
        except csv.Error as error:
            raise UnreadableDataset(
                f"{where}, line {reader.line_num} is not CSV: {error}"
            ) from error


def _decode(file: Any) -> Iterator[str]:
    return iter(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""))
