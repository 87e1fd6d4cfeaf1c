"""The files of a large manifest: their names, and what each says of the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.json_reader import InvalidJson, parse_json

FIRST_NAME = "manifest.parquet"
"""The only file of a folder, or its first."""
FILES_KEY = "files"
"""Metadata of a file that is one of several."""
_LATER_NAME = re.compile(r"manifest_(\d{5,})\.parquet")


@dataclass(frozen=True)
class FilePlace:
    """Which of the files of a manifest one is."""

    index: int
    """From 0."""
    count: int
    """Files of the manifest."""
    rows: int
    """Rows of all files."""


def build_name(index: int) -> str:
    """The name of the file at an index; the names sort in the order of the files."""
    return f"manifest_{index:05d}.parquet" if index else FIRST_NAME


def is_later_name(name: str) -> bool:
    """Whether a name is that of a second or later file."""
    return _LATER_NAME.fullmatch(name) is not None


def parse_place(stated: bytes | None) -> FilePlace | None:
    """The place that a file's metadata states as JSON, or None if it states none.

    Raises:
        UnreadableDataset: it is no place.
    """
    if stated is None:
        return None
    try:
        value: Any = parse_json(stated)
    except InvalidJson:
        value = stated
    names = ("index", "count", "rows")
    stated_numbers = [value.get(name) for name in names] if isinstance(value, dict) else []
    numbers = [number for number in stated_numbers if type(number) is int and number >= 0]
    if len(numbers) < len(names):
        raise UnreadableDataset(
            f"the metadata {FILES_KEY!r} is {value!r:.60}, expected the numbers {', '.join(names)}"
        )
    return FilePlace(*numbers)


def check_complete(uri: str, places: Sequence[FilePlace | None], rows: int) -> None:
    """Reject a manifest of which some files are missing, or belong to another one.

    Args:
        uri: the manifest, for messages.
        places: what each of its files states.
        rows: the rows of all its files.

    Raises:
        UnreadableDataset: the files are not those of one manifest.
    """
    stated = {(place.count, place.rows) for place in places if place is not None}
    if not stated:
        return
    count, total = max(stated)
    indices = sorted(place.index for place in places if place is not None)
    if len(stated) == 1 and None not in places and indices == list(range(count)) and rows == total:
        return
    where = uris.redact_uri(uri)
    if len(places) == 1 and count > 1:
        raise UnreadableDataset(
            f"{where} is one of the {count} files of a manifest: pass their folder. If you filtered it, "
            f"remove the key {FILES_KEY!r} from the metadata of its schema"
        )
    raise UnreadableDataset(
        f"{where} holds {len(places)} files with {rows} rows, expected {count} files with {total} rows: the "
        "job that wrote them was stopped, or files of several manifests are mixed; run prepare again"
    )
