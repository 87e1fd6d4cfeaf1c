from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.json_reader import InvalidJson
from pipeline.sources import json_stream
from pipeline.sources.json_stream import JsonStream


def read(data: bytes, *lists: str) -> tuple[Any, list[tuple[str, int, Any]]]:
    elements: list[tuple[str, int, Any]] = []
    stream = JsonStream(io.BytesIO(data))
    fields = stream.read_fields(
        lists, lambda name, index, value, _: elements.append((name, index, value))
    )
    return fields, elements


def test_lists_are_passed_on_by_element() -> None:
    data = b' {"a": [1, {"b": []}], "info": {"c": [2]}, "n": null, "e": [ ]} \n'
    fields, elements = read(data, "a", "e")
    assert fields == {"a": 2, "info": {"c": [2]}, "n": None, "e": 0}
    assert elements == [("a", 0, 1), ("a", 1, {"b": []})]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda value: st.lists(value) | st.dictionaries(st.text(), value),
        max_leaves=12,
    ),
    st.integers(1, 9),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_any_cut_into_chunks_gives_the_same(value: Any, chunk: int, encoding: str) -> None:
    text = json.dumps({"first": [value, value], "other": value}, ensure_ascii=False)
    before, json_stream.CHUNK = json_stream.CHUNK, chunk + 3
    try:
        fields, elements = read(text.encode(encoding, "surrogatepass"), "first")
    finally:
        json_stream.CHUNK = before
    assert fields == {"first": 2, "other": value}
    assert [element for _, _, element in elements] == [value, value]


def test_repeated_elements_have_one_hash() -> None:
    hashes: list[int] = []
    stream = JsonStream(io.BytesIO(b'{"a": [{"x": 1}, {"x": 2}, {"x": 1}]}'))
    stream.read_fields(["a"], lambda *call: hashes.append(call[3]))
    assert hashes[0] == hashes[2] != hashes[1]


def test_not_a_number_is_one() -> None:
    _, elements = read(b'{"a": [NaN, -Infinity]}', "a")
    assert math.isnan(elements[0][2])
    assert elements[1][2] == -math.inf


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value at character 0"),
        (b"{", "a field's name is expected at character 1"),
        (b'{"a" 1}', ": is expected at character 5, and there is '1'"),
        (b'{"a": [1 2]}', r", or \] is expected at character 9"),
        (b'{"a": [1', ", or .*the end of the file"),
        (b'{"a": [{"b": }]}', "Expecting value at character 13"),
        (b'{"a": []} x', "more behind its end"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a": [{"b": 1, "b": 1}]}', "'b' occurs twice"),
        (b'{"a": ["\xff"]}', "it is not utf-8"),
        (b'{"a": [' + b"[" * 100_000, "nested too deep"),
    ],
)
def test_faults_name_their_place(data: bytes, message: str) -> None:
    with pytest.raises(InvalidJson, match=message):
        read(data, "a")


@pytest.mark.parametrize(("data", "value"), [(b"[1]", []), (b" 7", 7), (b'"x"', "x")])
def test_other_values_are_returned(data: bytes, value: Any) -> None:
    assert read(data, "a") == (value, [])
