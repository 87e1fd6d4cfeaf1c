"""Names of files from image ids, which may hold anything: escaped as in a URL where a file cannot have it."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

from pipeline.errors import UnreadableDataset

LONGEST_NAME = 255
"""Bytes of a file's name on common file systems."""
_ROOM = 8
"""Of them, kept for the ending."""


def name_file(image_id: str) -> str:
    r"""The path, without an ending, of an image's file: its id, with `/` between folders.

    Control and format characters, `%`, `\`, folders `.` and `..`, and blanks at the end of a name become
    `%XX`; if a name between two slashes is empty, all slashes do. Different ids have different paths, and
    `urllib.parse.unquote` gives the id again.

    Raises:
        UnreadableDataset: a name is longer than file systems allow.
    """
    parts = image_id.split("/")
    if not all(parts):
        parts = [image_id]
    names = [_escape_part(part) for part in parts]
    longest = max(names, key=lambda name: len(name.encode()))
    if len(longest.encode()) > LONGEST_NAME - _ROOM:
        raise UnreadableDataset(
            f"image {image_id!r:.100}... needs a file name of {len(longest.encode())} bytes; file systems "
            f"allow {LONGEST_NAME}"
        )
    return "/".join(names)


def _escape_part(part: str) -> str:
    if part in (".", ".."):
        return part.replace(".", "%2E")
    inner = part.strip()
    start = part.index(inner) if inner else len(part)
    return "".join(
        letter
        if _is_plain(letter) and start <= index < start + len(inner)
        else quote(letter, safe="")
        for index, letter in enumerate(part)
    )


def _is_plain(letter: str) -> bool:
    is_control = unicodedata.category(letter).startswith("C") or letter in "\u2028\u2029"
    return not is_control and letter not in "%\\/"
