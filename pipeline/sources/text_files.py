"""Text files of annotations: UTF-8 with or without a byte order mark, lines that end in LF, CRLF or CR."""

from __future__ import annotations

import re

from pipeline import storage, uris
from pipeline.errors import UnreadableDataset

LARGEST_LABELS = 100_000_000
"""Bytes of the largest text file of one image, one list or one set of classes that is read."""


def read_lines(uri: str) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, without blanks around them, with their numbers from 1.

    Raises:
        UnreadableDataset: it is not UTF-8.
        StorageError: the file cannot be read.
    """
    text = decode_text(storage.read(uri, LARGEST_LABELS), uris.redact_uri(uri))
    lines = ((number, line.strip()) for number, line in enumerate(re.split("\r\n?|\n", text), 1))
    return [(number, line) for number, line in lines if line]


def decode_text(data: bytes, where: str) -> str:
    """The text of UTF-8 bytes.

    Raises:
        UnreadableDataset: they are not UTF-8; names the first wrong byte and its line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnreadableDataset(
            f"{where}, line {line}: byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error
