"""JSON from files: parsed whatever the bytes are, and read field by field with the type each must have.

Every fault is an `InvalidJson`, whose message names the field but not the file: callers turn it into the
error of what they read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""An escaped or raw half of a UTF-16 pair; escaped pairs, which are characters, match as well."""
_LARGEST_INTEGER = 2**63 - 1
_ABSENT: Any = object()


class InvalidJson(ValueError):
    """Data that is not JSON, or a field that is missing or of another type."""


def parse_json(data: bytes | str, *, allow_surrogates: bool = False) -> Any:
    """Parse JSON text.

    Args:
        data: UTF-8, UTF-16 or UTF-32 bytes, or a string.
        allow_surrogates: accept texts with half a UTF-16 pair, which cannot be stored as UTF-8.

    Raises:
        InvalidJson: malformed, not in a Unicode encoding, nested too deep, a field twice in one object,
            an integer of thousands of digits, or a text that cannot be stored.
    """
    try:
        content = json.loads(data, object_pairs_hook=build_object)
    except RecursionError:
        raise InvalidJson("it is nested too deep") from None
    except UnicodeDecodeError as error:
        raise InvalidJson(f"byte {error.start} is not {error.encoding}") from error
    except ValueError as error:
        raise InvalidJson(str(error)) from error
    if not allow_surrogates:
        _check_surrogates(data, content)
    return content


def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, if it says everything once: of two equal names the parser alone would keep the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidJson(f"field {repeated[:60]!r} occurs twice in one object")
    return content


def _check_surrogates(data: bytes | str, content: Any) -> None:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if b"\0" not in raw and not _SURROGATE.search(raw):  # UTF-16 and UTF-32 hold null bytes
        return
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidJson(
            f"a text holds half a character: {error.object[error.start :][:1]!a}"
        ) from None


def parse_fields(data: bytes | str) -> JsonFields:
    """Parse JSON text that must be an object.

    Raises:
        InvalidJson: not JSON, or another value than an object.
    """
    return as_fields(parse_json(data))


def as_fields(content: object) -> JsonFields:
    """The fields of a parsed value that must be an object.

    Raises:
        InvalidJson: another value than an object.
    """
    if not isinstance(content, dict):
        raise InvalidJson(f"it is {describe_value(content)}, expected an object")
    return JsonFields(content)


@dataclass(frozen=True)
class JsonFields:
    """The fields of a JSON object; every method raises `InvalidJson` if the field has another type.

    A tuple counts as a list, so that values which were never written can be read too.

    A `default` is for a field that may be absent; without one, the field is required.
    """

    values: Mapping[str, Any]
    path: str = ""
    """Where the object is in the outermost one, such as `weights.`."""

    def read_text(self, name: str, default: Any = _ABSENT) -> Any:
        """A string."""
        return self._read(name, "a text", lambda value: isinstance(value, str), default)

    def read_flag(self, name: str, default: Any = _ABSENT) -> Any:
        """True or false, and no number or word in their place."""
        return self._read(name, "true or false", lambda value: isinstance(value, bool), default)

    def read_integer(self, name: str, *, at_least: int = 0, default: Any = _ABSENT) -> Any:
        """An integer of at least `at_least` that fits in 64 bits."""
        expected = f"an integer of at least {at_least}"
        return self._read(name, expected, lambda value: is_integer(value, at_least), default)

    def read_number(self, name: str, default: Any = _ABSENT) -> Any:
        """A finite number, as a float."""
        value = self._read(name, "a finite number", is_finite_number, default)
        return float(value) if is_finite_number(value) else value

    def read_object(self, name: str, default: Any = _ABSENT) -> JsonFields:
        """An object, as its fields."""
        value = self._read(name, "an object", lambda value: isinstance(value, dict), default)
        return JsonFields(value, f"{self.path}{name}.")

    def read_list(self, name: str, default: Any = _ABSENT) -> Any:
        """A list of any values."""
        return self._read(name, "a list", lambda value: isinstance(value, list | tuple), default)

    def read_texts(self, name: str, default: Any = _ABSENT) -> Any:
        """A list of strings."""
        return self._read(name, "a list of texts", lambda value: _is_list_of(value, str), default)

    def read_numbers(self, name: str, count: int, default: Any = _ABSENT) -> Any:
        """A list of `count` finite numbers."""
        return self._read(
            name,
            f"a list of {count} finite numbers",
            lambda value: (
                isinstance(value, list | tuple)
                and len(value) == count
                and all(map(is_finite_number, value))
            ),
            default,
        )

    def without_nulls(self) -> JsonFields:
        """The fields that are not null, for objects in which null means absent."""
        return JsonFields({k: v for k, v in self.values.items() if v is not None}, self.path)

    def check_names(self, names: Iterable[str]) -> None:
        """Reject fields other than `names`.

        Raises:
            InvalidJson: names the first of them.
        """
        unknown = sorted(self.values.keys() - set(names))
        if unknown:
            raise InvalidJson(f"it has an unknown field {self.path}{unknown[0][:60]}")

    def _read(self, name: str, expected: str, accepts: Any, default: Any) -> Any:
        value = self.values.get(name, _ABSENT)
        if value is _ABSENT:
            if default is _ABSENT:
                raise InvalidJson(f"it lacks {self.path}{name}")
            return default
        if not accepts(value):
            raise InvalidJson(f"{self.path}{name} is {describe_value(value)}, expected {expected}")
        return value


def is_integer(value: object, at_least: int = -_LARGEST_INTEGER - 1) -> bool:
    """Whether a value is an integer, no boolean, of at least `at_least`, that fits in 64 bits."""
    return (
        isinstance(value, int)
        and not isinstance(value, bool)
        and at_least <= value <= _LARGEST_INTEGER
    )


def is_finite_number(value: object) -> bool:
    """Whether a value is a number, no boolean, that is finite as a float."""
    if isinstance(value, float):
        return math.isfinite(value)
    return is_integer(value)


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)


def describe_value(value: object) -> str:
    """A parsed value in a message, however long or deep it is."""
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, list):
        return f"a list of {len(value)}" if len(value) > 6 else _shorten(value)
    return _shorten(value)


def _shorten(value: object) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
