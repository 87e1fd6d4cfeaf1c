"""Texts from datasets as a terminal and a log show them."""

from __future__ import annotations

import logging

import pytest

from pipeline.printable import LineFormatter, describe_in_one_line, escape_unprintable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café 猫 a\u3000b\xa0c", "café 猫 a\u3000b\xa0c"),
        ("\x1b]0;title\x07dog", "\\x1b]0;title\\x07dog"),
        ("dog\n12:00:00 all images done", "dog\\n12:00:00 all images done"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("a\u2028b\r\tc\x9b2J", "a\\u2028b\\r\\tc\\x9b2J"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_what_does_not_print_is_escaped(text: str, shown: str) -> None:
    assert escape_unprintable(text) == shown
    shown.encode()


def test_a_log_record_is_one_line_and_its_traceback_follows() -> None:
    formatter = LineFormatter("%(message)s")
    record = logging.LogRecord("x", logging.INFO, "", 0, "class %s", ("a\nb\x1b[2J",), None)
    assert formatter.format(record) == "class a\\nb\\x1b[2J"
    record.exc_text = "Traceback:\n  line"
    assert formatter.format(record) == "class a\\nb\\x1b[2J\nTraceback:\n  line"


def test_an_error_is_one_line() -> None:
    assert describe_in_one_line(ValueError("a\nb\x07")) == "error: a b\\x07"
