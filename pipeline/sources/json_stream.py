"""JSON files that are larger than memory, read one element of their lists at a time.

A value means the same here as in `json_reader`, whose limits hold for each element: NaN is a number, and a
field must not occur twice in one object. Streaming parsers such as ijson reject NaN, which Python writes, and
take the last of two equal fields. orjson does so too, but is ten times as fast as the standard library. So it
parses the elements of a list some thousands at a time. Those of which it cannot be certain that the standard
library reads them alike are read again by that, one by one.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO

import numpy as np
import orjson

from pipeline.json_reader import InvalidJson, build_object

CHUNK = 1 << 22
"""Bytes that are read at a time."""
LARGEST_ELEMENT = 1 << 28
"""Characters of the largest element: the mask of a huge image has millions."""
_BLANKS = " \t\n\r"
_BLANK = re.compile(f"[{_BLANKS}]*")
_NEXT_OBJECT = re.compile(f",[{_BLANKS}]*{{")
_BEFORE_COLON = tuple(f"{blank}:" for blank in _BLANKS)
_FEWEST = 1 << 12
"""Characters from which elements are parsed together."""
_ENDS_TRIED = 100
"""Braces, from the end of the text backwards, that may be the end of an element."""


class JsonStream:
    """A cursor over JSON text. Every fault is an `InvalidJson`, whose message does not name the file."""

    def __init__(self, file: BinaryIO) -> None:
        """Read from the start of a binary file in UTF-8, UTF-16 or UTF-32."""
        self._file = file
        first = file.read(CHUNK)
        self._codec = codecs.getincrementaldecoder(json.detect_encoding(first))("surrogatepass")
        self._decoder = json.JSONDecoder(object_pairs_hook=build_object)
        self._text = ""
        self._at = 0
        self._consumed = 0
        self._is_complete = False
        self._one_by_one_to = 0
        """Position up to which elements are not parsed together."""
        self._append(first)

    def read_fields(self, lists: Collection[str], receive: Callable[[str, Any], None]) -> Any:
        """Read an object whose large fields are lists; pass on each of their elements.

        Args:
            lists: the fields to read by element.
            receive: called with the field and the element, for each element in order.

        Returns:
            The object, in which a list of `lists` is its number of elements. A field of this name that is
            no list is there as it is. A value that is no object is returned whole, a list as `[]`.
        """
        if self._peek() != "{":
            return [] if self._peek() == "[" else self._read_value()
        fields: dict[str, Any] = {}
        for name in self._iterate_names():
            if name in fields:
                raise InvalidJson(f"field {name[:60]!r} occurs twice in one object")
            if name in lists and self._peek() == "[":
                count = 0
                for element in self.iterate_list():
                    receive(name, element)
                    count += 1
                fields[name] = ListLength(count)
            else:
                fields[name] = self._read_value()
        self.check_end()
        return fields

    def iterate_list(self) -> Iterator[Any]:
        """The elements of the list that comes next.

        Raises:
            InvalidJson: it is malformed, or no list.
        """
        self._expect("[")
        if self._peek() == "]":
            self._at += 1
            return
        while True:
            elements = self._read_elements()
            if elements:
                yield from elements
            else:
                yield self._read_value()
            if self._expect(",]") == "]":
                return

    def _read_elements(self) -> list[Any]:
        """The next elements, as far as they are in memory; none if they are to be read one by one.

        If the text up to some brace, between brackets, is a list, then this brace is the end of an element.
        """
        if self._position < self._one_by_one_to or self._peek() != "{":
            return []
        if len(self._text) - self._at < CHUNK // 2:
            self._read_more()
        end = self._find_last_end()
        if end - self._at < _FEWEST:
            return []
        # The brace may be behind the list, which then ends at the first brace before a bracket.
        for stop in (end, self._text.find("}]", self._at) + 1):
            elements = _parse_elements(self._text[self._at : stop]) if stop > self._at else None
            if elements is not None:
                self._at = stop
                return elements
        self._one_by_one_to = self._position + end - self._at
        return []

    def _find_last_end(self) -> int:
        """Where the last complete element may end, behind a brace that another object follows; or 0."""
        end = len(self._text)
        for _ in range(_ENDS_TRIED):
            end = self._text.rfind("},", self._at, end)
            if end < 0:
                return 0
            if _NEXT_OBJECT.match(self._text, end + 1):
                return end + 1
        return 0

    def is_list(self) -> bool:
        """Whether the value that comes next is a list."""
        return self._peek() == "["

    def check_end(self) -> None:
        """Reject text behind the value.

        Raises:
            InvalidJson: there is some.
        """
        if self._peek():
            raise InvalidJson(f"there is more behind its end (character {self._position})")

    @property
    def _position(self) -> int:
        return self._consumed + self._at

    def _iterate_names(self) -> Iterator[str]:
        self._expect("{")
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            if self._peek() != '"':
                raise InvalidJson(f"a field's name is expected at character {self._position}")
            name = self._read_value()
            self._expect(":")
            yield name
            if self._expect(",}") == "}":
                return

    def _peek(self) -> str:
        """The next character that is not blank; empty at the end of the file."""
        while True:
            character = self._text[self._at : self._at + 1]
            if (
                character and character not in _BLANKS
            ):  # most of the time: the rest costs twice as much
                return character
            match = _BLANK.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or not self._read_more():
                return self._text[self._at : self._at + 1]

    def _expect(self, characters: str) -> str:
        character = self._peek()
        if not character or character not in characters:
            present = f"{character!a}" if character else "the end of the file"
            raise InvalidJson(
                f"{' or '.join(characters)} is expected at character {self._position}, and there is {present}"
            )
        self._at += 1
        return character

    def _read_value(self) -> Any:
        self._peek()
        wanted = CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                raise InvalidJson("it is nested too deep") from None
            except InvalidJson:
                raise
            except json.JSONDecodeError as error:
                if self._is_complete or len(self._text) - self._at > LARGEST_ELEMENT:
                    raise InvalidJson(
                        f"{error.msg} at character {self._consumed + error.pos}"
                    ) from None
            except ValueError as error:  # an integer of thousands of digits
                raise InvalidJson(str(error)) from error
            else:
                # A number may go on behind the text that is there: 1 is the start of 1e+7.
                if end + 3 <= len(self._text) or self._is_complete:
                    self._at = end
                    return value
            # Each try reads twice as much, so that a long value takes linear time.
            self._read_until(wanted)
            wanted *= 2

    def _read_until(self, characters: int) -> None:
        while len(self._text) - self._at < characters and self._read_more():
            pass

    def _read_more(self) -> bool:
        """Whether there was more of the file to read."""
        if self._is_complete:
            return False
        self._consumed += self._at
        self._text = self._text[self._at :]
        self._at = 0
        self._append(self._file.read(CHUNK))
        return True

    def _append(self, data: bytes) -> None:
        self._is_complete = not data
        try:
            self._text += self._codec.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise InvalidJson(f"it is not {error.encoding}: {error.reason}") from error


def _parse_elements(text: str) -> list[Any] | None:
    """Objects separated by commas, or None if the standard library might read them otherwise.

    As many names as fields: no object has a field twice. A quote and a colon inside a text only make the
    names seem more.
    """
    try:
        elements: list[Any] = orjson.loads(f"[{text}]")
    except orjson.JSONDecodeError:
        return None
    if not all(type(element) is dict for element in elements):
        return None
    if any(pair in text for pair in _BEFORE_COLON) or _has_long_integer(text.encode()):
        return None
    names = text.count('":')
    if names != sum(map(len, elements)):
        inner = (v for e in elements for v in e.values() if type(v) is dict)
        if names != sum(map(len, elements)) + sum(map(len, inner)):
            return None
    return elements


def _has_long_integer(text: bytes) -> bool:
    """Whether 19 digits follow each other, which orjson may read as a float; a pattern is 50 times slower."""
    are_digits = (np.frombuffer(text, np.uint8) - np.uint8(ord("0"))) < 10
    for shift in (1, 2, 4, 8, 3):  # runs of 2, 4, 8, 16 and 19
        are_digits = are_digits[shift:] & are_digits[:-shift]
    return bool(are_digits.any())


class ListLength(int):
    """How many elements a list had that was passed on by element."""
