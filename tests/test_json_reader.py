"""Whatever bytes a JSON file holds, the reader returns values of the expected types or raises InvalidJson."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.json_reader import InvalidJson, JsonFields, as_fields, parse_fields, parse_json

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_every_json_value_is_parsed(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary() | st.text(st.characters(), max_size=40))
def test_bytes_that_are_not_json_are_invalid_json(data: bytes | str) -> None:
    with contextlib.suppress(InvalidJson):  # any other error fails the test
        parse_json(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"a": [' * 50_000, "nested too deep"),
        (b"", "Expecting value"),
        (b'{"a": "\xff"}', "byte 7 is not utf-8"),
        (b"1" * 5000, "4300 digits"),
        (rb'["\ud800"]', r"half a character: '\\ud800'"),
        (b'["\xed\xa0\x80"]', r"half a character: '\\ud800'"),
    ],
)
def test_the_message_says_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(InvalidJson, match=message):
        parse_json(data)


def test_an_escaped_pair_is_a_character_and_a_half_is_allowed_on_request() -> None:
    assert parse_json(rb'["\ud83d\ude00"]') == ["\U0001f600"]
    assert parse_json(rb'["\ud800"]', allow_surrogates=True) == ["\ud800"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_half_a_character_is_found_in_every_encoding(encoding: str) -> None:
    with pytest.raises(InvalidJson, match="half a character"):
        parse_json(r'["\ud800"]'.encode(encoding))


@pytest.mark.parametrize("data", [b"[]", b"null", b'"a"', b"3"])
def test_fields_must_be_of_an_object(data: bytes) -> None:
    with pytest.raises(InvalidJson, match="expected an object"):
        parse_fields(data)


READERS: dict[str, tuple[Callable[[JsonFields], Any], list[Any], list[Any]]] = {
    "text": (lambda f: f.read_text("x"), ["", "a"], [None, 1, True, ["a"], {}]),
    "flag": (lambda f: f.read_flag("x"), [True, False], [None, 0, 1, "no", "true", []]),
    "integer": (
        lambda f: f.read_integer("x"),
        [0, 7, 2**63 - 1],
        [None, True, -1, 1.0, 1e400, 2**63, 10**400, "7", [7]],
    ),
    "number": (
        lambda f: f.read_number("x"),
        [0, -1, 2.5],
        [None, True, float("nan"), float("inf"), 10**400, "2.5"],
    ),
    "texts": (lambda f: f.read_texts("x"), [[], ["a", "b"]], ["ab", [1], [None], {"a": 1}, None]),
    "numbers": (
        lambda f: f.read_numbers("x", 2),
        [[1, 2.5]],
        [[1], [1, 2, 3], [1, None], [1, float("nan")], [1, "2"], [1, True], "12", None],
    ),
    "list": (lambda f: f.read_list("x"), [[], [1]], [None, {}, "ab"]),
    "object": (lambda f: f.read_object("x").values, [{}, {"a": 1}], [None, [], "ab"]),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_field_has_the_type_that_it_is_read_as(kind: str) -> None:
    read, accepted, rejected = READERS[kind]
    for value in accepted:
        assert read(JsonFields({"x": value})) == value
    for value in rejected:
        with pytest.raises(InvalidJson, match=r"^x is .*expected"):
            read(JsonFields({"x": value}))
    with pytest.raises(InvalidJson, match="it lacks x"):
        read(JsonFields({"y": 1}))


def test_an_absent_field_has_its_default_and_a_wrong_one_has_not() -> None:
    assert JsonFields({}).read_integer("x", default=None) is None
    with pytest.raises(InvalidJson, match="x is null, expected an integer of at least 0"):
        JsonFields({"x": None}).read_integer("x", default=3)


def test_a_message_names_the_path_of_the_field_and_shortens_its_value() -> None:
    weights = as_fields({"weights": {"bytes": "1" * 100}}).read_object("weights")
    with pytest.raises(InvalidJson) as caught:
        weights.read_integer("bytes")
    assert str(caught.value) == (
        f'weights.bytes is "{"1" * 56}..., expected an integer of at least 0'
    )
