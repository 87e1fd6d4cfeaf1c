from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import UnreadableDataset

ROWS = st.lists(
    st.one_of(
        st.none(),
        st.integers(0, 5).flatmap(
            lambda n: hnp.arrays(np.float32, (n, 4), elements=st.floats(-1e6, 1e6, width=32))
        ),
    ),
    max_size=8,
)


def _check(boxes: list[NDArray[np.float32]], rows: list[NDArray[np.float32] | None]) -> None:
    assert len(boxes) == len(rows)
    for actual, row in zip(boxes, rows, strict=True):
        assert actual.dtype == np.float32
        expected = np.empty((0, 4), np.float32) if row is None else row
        np.testing.assert_array_equal(actual, expected)
        assert actual.shape == expected.shape


@given(ROWS)
def test_boxes_survive_the_way_to_a_column_and_back(rows: list[NDArray[np.float32] | None]) -> None:
    column = schema.build_box_column(rows)
    assert column.type == schema.PROPOSALS.field("boxes").type
    assert column.is_null().to_pylist() == [row is None for row in rows]
    _check(schema.split_box_column(column), rows)


@given(ROWS, st.data())
def test_slices_and_chunks_of_a_box_column_are_split(
    rows: list[NDArray[np.float32] | None], data: st.DataObject
) -> None:
    column = schema.build_box_column(rows)
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    _check(schema.split_box_column(column.slice(start, stop - start)), rows[start:stop])
    chunked = pa.chunked_array([column.slice(start), column.slice(0, start)], column.type)
    _check(schema.split_box_column(chunked), rows[start:] + rows[:start])
    _check(
        schema.split_box_column(chunked.slice(start, stop - start)),
        (rows[start:] + rows[:start])[start:stop],
    )


def test_an_empty_box_column_has_no_arrays() -> None:
    assert schema.split_box_column(schema.PROPOSALS.empty_table().column("boxes")) == []


def test_other_float_types_are_stored_as_float32() -> None:
    column = schema.build_box_column([np.array([[1, 2, 3, 4.5]], np.float64)])
    assert column.to_pylist() == [[[1, 2, 3, 4.5]]]


def test_metadata_values_are_added_and_read() -> None:
    first = schema.add_metadata(schema.MANIFEST, {"classes": ["ä", "b"]})
    both = schema.add_metadata(first, {"category_ids": [3, 1]})
    assert schema.read_metadata(both, "classes") == ["ä", "b"]
    assert schema.read_metadata(both, "category_ids") == [3, 1]
    assert schema.read_metadata(schema.MANIFEST, "classes") is None


def test_metadata_holds_the_schema_version() -> None:
    assert schema.read_metadata(schema.add_metadata(schema.PROPOSALS, {}), "schema_version") == 1


@pytest.mark.parametrize("version", [None, b"0", b"1"])
def test_files_of_this_version_and_of_releases_before_versions_are_read(
    version: bytes | None,
) -> None:
    metadata = {} if version is None else {b"schema_version": version}
    schema.check_version(schema.PROPOSALS.with_metadata(metadata), "/out/part.parquet")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (b"2", "/out/part.parquet has schema version 2, and this release reads versions up to 1"),
        (b"1.5", "/out/part.parquet has schema version 1.5, and this release"),
        (b'"new"', "/out/part.parquet has schema version 'new', and this release"),
        (b"v2", "/out/part.parquet: the schema's metadata 'schema_version' is not JSON"),
        (b"[" * 100_000, "/out/part.parquet: the schema's metadata 'schema_version' is not JSON"),
        (b"\xff", "/out/part.parquet: the schema's metadata 'schema_version' is not JSON"),
        (b"true", "/out/part.parquet has schema version True, and this release"),
    ],
)
def test_a_newer_schema_is_rejected_by_name(version: bytes, message: str) -> None:
    newer = schema.PROPOSALS.with_metadata({b"schema_version": version})
    with pytest.raises(UnreadableDataset) as caught:
        schema.check_version(newer, "/out/part.parquet")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "stored", [b'[{"a": 1}]', b'{"cat": 0}', b'"cat"', b'["cat", "cat"]', b"[", b"[1]"]
)
def test_classes_that_are_no_list_of_names_are_rejected_with_the_uri(stored: bytes) -> None:
    damaged = schema.DETECTIONS.with_metadata({b"classes": stored})
    with pytest.raises(UnreadableDataset, match=r"^/a/part: the schema's metadata 'classes' is "):
        schema.read_classes(damaged, "/a/part")


def test_classes_are_read_in_order() -> None:
    stored = schema.add_metadata(schema.DETECTIONS, {"classes": ["dog", "cat"]})
    assert schema.read_classes(stored, "/a/part") == ("dog", "cat")
    assert schema.read_classes(schema.DETECTIONS, "/a/part") is None
