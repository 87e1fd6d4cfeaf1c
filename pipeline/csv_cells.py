"""Cells of CSV files: texts that no spreadsheet takes for a formula.

A spreadsheet runs a cell that begins with =, +, -, @, a tab or a line end as a formula, though it is quoted.
Such a text gets an apostrophe in front, and so does one that begins with an apostrophe: a reader that removes
one leading apostrophe of a text has the original.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_LEADERS = tuple("=+-@\t\r\n'＝＋－＠")
"""First characters that are escaped; spreadsheets treat the last four, of full width, like the first."""


_SPECIAL = re.compile(r'[,"\r\n]')


def escape_cell(text: str) -> str:
    """The text with an apostrophe in front if it begins like a formula, or with an apostrophe."""
    return f"'{text}" if text.startswith(_LEADERS) else text


def format_rows(rows: Iterable[Sequence[object]]) -> bytes:
    r"""Rows of CSV by RFC 4180, as UTF-8; lines end in \n, None is an empty cell, and an empty text is `""`.

    Python's own writer leaves a carriage return unquoted if lines end in \n.

    Args:
        rows: numbers, and texts that went through `escape_cell`.
    """
    return "".join(f"{','.join(map(_format_cell, row))}\n" for row in rows).encode()


def _format_cell(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    return text if text and not _SPECIAL.search(text) else '"' + text.replace('"', '""') + '"'
