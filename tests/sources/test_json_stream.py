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


def read(data: bytes, *lists: str) -> tuple[Any, list[tuple[str, Any]]]:
    elements: list[tuple[str, Any]] = []
    stream = JsonStream(io.BytesIO(data))
    fields = stream.read_fields(lists, lambda name, value: elements.append((name, value)))
    return fields, elements


def test_lists_are_passed_on_by_element() -> None:
    data = b' {"a": [1, {"b": []}], "info": {"c": [2]}, "n": null, "e": [ ]} \n'
    fields, elements = read(data, "a", "e")
    assert fields == {"a": 2, "info": {"c": [2]}, "n": None, "e": 0}
    assert elements == [("a", 1), ("a", {"b": []})]


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
    assert [element for _, element in elements] == [value, value]


RECORD = st.dictionaries(
    st.text('a":}, {\\', max_size=3),
    st.integers() | st.floats() | st.text('":}, {[]\\é', max_size=4) | st.lists(st.floats()),
    max_size=3,
)


@given(st.lists(RECORD, min_size=1), st.integers(4, 40), st.sampled_from([None, 0, 1]))
def test_elements_parsed_together_are_those_of_the_standard_library(
    records: list[Any], chunk: int, indent: int | None
) -> None:
    text = json.dumps({"a": records, "b": [{"c": 1}], "d": 1}, indent=indent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "CHUNK", chunk)
        patch.setattr(json_stream, "_FEWEST", 1)
        fields, elements = read(text.encode(), "a", "b")
    assert fields == {"a": len(records), "b": 1, "d": 1}
    present = json.dumps([element for _, element in elements])
    assert present == json.dumps([*records, {"c": 1}])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"b": 1, "b": 2}', "'b' occurs twice"),
        ('{"b" : 1, "b": 2}', "'b' occurs twice"),
        ('{"b": 1, "b" \n : 2}', "'b' occurs twice"),
        ('{"b": {"c": 1, "c": 1}}', "'c' occurs twice"),
        ('{"b": [{"c": 1, "c": 1}]}', "'c' occurs twice"),
        ('{"b": "a\\": ", "c": 1, "c": 2}', "'c' occurs twice"),
        ('{"b": 01}', "Expecting ',' delimiter at character 18"),
    ],
)
def test_faults_among_elements_parsed_together(
    record: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "_FEWEST", 1)
    with pytest.raises(InvalidJson, match=message):
        read(f'{{"a": [{{}}, {record}, {{"b": 1}}]}}'.encode(), "a")


def test_large_integers_stay_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_FEWEST", 1)
    _, elements = read(b'{"a": [{"id": 100000000000000000001}, {"id": 1}, {"id": 2}]}', "a")
    assert elements[0][1] == {"id": 100000000000000000001}


def test_almost_all_elements_are_parsed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = 0
    original = JsonStream._read_value

    def count(self: JsonStream) -> Any:
        nonlocal one_by_one
        one_by_one += 1
        return original(self)

    monkeypatch.setattr(JsonStream, "_read_value", count)
    record = {"id": 1, "url": "http://x/{a}, {b}", "segmentation": {"counts": "x", "size": [1, 2]}}
    _, elements = read(json.dumps({"a": [record] * 4000, "b": [record] * 4000}).encode(), "a", "b")
    assert [element for _, element in elements] == [record] * 8000
    assert one_by_one < 100


def test_not_a_number_is_one() -> None:
    _, elements = read(b'{"a": [NaN, -Infinity]}', "a")
    assert math.isnan(elements[0][1])
    assert elements[1][1] == -math.inf


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
