"""Flags, ids and numbers as datasets write them: one reader of each for all sources.

Labelling tools write the same flag as 0, "0", false, "False", null or not at all, and the same id as 7, 7.0
or "7". A value that none of these readers knows is an error, never a guess.
"""

from __future__ import annotations

import math
import re
from typing import Any

from pipeline.errors import UnreadableDataset

_TRUE = frozenset({"1", "1.0", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "0.0", "false", "f", "no", "n", "off"})
_ABSENT = frozenset({"", "null", "none", "nan", "n/a", "na"})
_UNSET = frozenset({"unspecified", "unknown", "undefined"})
_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?|nan", re.IGNORECASE | re.ASCII
)
_WHOLE = re.compile(r"([+-]?)0*(\d+)(\.0*)?", re.ASCII)
_LONGEST = 400
"""Characters of the longest text that can be a number."""


def is_absent(value: Any) -> bool:
    """Whether a value means that the field is not there: null, NaN, or blank text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_flag(value: Any, field: str, where: str) -> bool | None:
    """A flag: False if it is absent, None if the tool says that nobody set it (`Unspecified`).

    Args:
        value: from JSON or XML.
        field: its name, for errors.
        where: the file and place that errors name.

    Raises:
        UnreadableDataset: it is neither 0, 1, a word for true or false, nor absent.
    """
    if is_absent(value):
        return False
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _UNSET:
            return None
        if word in _TRUE:
            return True
        if word in _FALSE or word in _ABSENT:
            return False
    raise UnreadableDataset(
        f"{where}: field {field} is {value!r:.60}, expected 0 or 1, or true or false"
    )


def read_id(value: Any, field: str, where: str) -> str:
    """An id as text, alike for 7, 7.0 and "7"; a text such as "007" or "a" stays as it is.

    Raises:
        UnreadableDataset: it is absent, neither a whole number nor a text, or cannot be stored as UTF-8.
    """
    if is_absent(value):
        raise UnreadableDataset(f"{where}: field {field} is missing or empty")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        text = check_text(value, field, where)
        whole = re.fullmatch(r"(-?(?:0|[1-9]\d*))\.0+", text, re.ASCII)
        return whole[1] if whole else text
    raise UnreadableDataset(
        f"{where}: field {field} is {value!r:.60}, expected an integer or a text"
    )


def read_whole(value: Any, field: str, where: str) -> int:
    """A whole number, such as a category id, from 7, 7.0, "7" or "007".

    Raises:
        UnreadableDataset: it is absent or not a whole number of at most 64 bits.
    """
    text = read_id(value, field, where)
    match = _WHOLE.fullmatch(text) if len(text) <= _LONGEST else None
    number = int(match[1] + match[2]) if match else 2**63
    if not -(2**63) <= number < 2**63:
        raise UnreadableDataset(f"{where}: field {field} is {value!r:.60}, expected an integer")
    return number


def read_number(value: Any, field: str, where: str) -> float:
    """A number from JSON or from decimal text; it may be infinite or NaN.

    Raises:
        UnreadableDataset: it is no number; booleans and texts such as "1_0" are none.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, str):
        value = value.strip()
        is_number = len(value) <= _LONGEST and _NUMBER.fullmatch(value) is not None
    if not is_number:
        raise UnreadableDataset(f"{where}: field {field} is {value!r:.60}, not a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check_text(value: Any, field: str, where: str) -> str:
    """A text without blanks around it that can be stored.

    Raises:
        UnreadableDataset: it is absent, not a text, or holds half a character (a lone surrogate).
    """
    if is_absent(value):
        raise UnreadableDataset(f"{where}: field {field} is missing or empty")
    if not isinstance(value, str):
        raise UnreadableDataset(f"{where}: field {field} is {value!r:.60}, expected a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UnreadableDataset(
            f"{where}: field {field} is {value!a:.60}, which is not valid Unicode"
        ) from error
    return value.strip()
