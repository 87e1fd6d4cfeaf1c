"""Texts as terminals and logs may show them: names from datasets command no terminal and forge no line."""

from __future__ import annotations

import logging
import unicodedata


def escape_unprintable(text: str) -> str:
    r"""The text with every character that does not print as an escape, such as `\n`, `\x1b` and `\u202e`.

    These are control characters (line ends too), format characters such as those that turn the direction of
    writing, and halves of characters, which no encoding can write. Blanks of all kinds stay.
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_printable(letter) else _escape(letter) for letter in text)


def _is_printable(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def describe_in_one_line(error: Exception) -> str:
    """What a job prints for an error that the user can act on."""
    return escape_unprintable("error: " + " ".join(str(error).split("\n")))


class LineFormatter(logging.Formatter):
    """Formats every log record as one line; only a traceback has more."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the name is logging's)
        """The record's line, escaped."""
        return escape_unprintable(super().formatMessage(record))
