from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pipeline import schema

ROWS = st.lists(
    st.one_of(
        st.none(),
        st.integers(0, 5).flatmap(
            lambda n: hnp.arrays(np.float32, (n, 4), elements=st.floats(-1e6, 1e6, width=32))
        ),
    ),
    max_size=8,
)


def _check(found: list[NDArray[np.float32]], expected: list[NDArray[np.float32] | None]) -> None:
    assert len(found) == len(expected)
    for got, wanted in zip(found, expected, strict=True):
        assert got.dtype == np.float32
        filled = np.empty((0, 4), np.float32) if wanted is None else wanted
        np.testing.assert_array_equal(got, filled)
        assert got.shape == filled.shape


@given(ROWS)
def test_box_lists_round_trip(rows: list[NDArray[np.float32] | None]) -> None:
    column = schema.box_lists(rows)
    assert column.type == schema.PROPOSALS.field("boxes").type
    assert column.is_null().to_pylist() == [row is None for row in rows]
    _check(schema.box_arrays(column), rows)


@given(ROWS, st.data())
def test_slices_and_chunks(rows: list[NDArray[np.float32] | None], data: st.DataObject) -> None:
    column = schema.box_lists(rows)
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    _check(schema.box_arrays(column.slice(start, stop - start)), rows[start:stop])
    chunked = pa.chunked_array([column.slice(start), column.slice(0, start)], column.type)
    _check(schema.box_arrays(chunked), rows[start:] + rows[:start])
    _check(
        schema.box_arrays(chunked.slice(start, stop - start)),
        (rows[start:] + rows[:start])[start:stop],
    )


def test_an_empty_table_has_no_arrays() -> None:
    assert schema.box_arrays(schema.PROPOSALS.empty_table().column("boxes")) == []


def test_other_float_types_are_stored_as_float32() -> None:
    column = schema.box_lists([np.array([[1, 2, 3, 4.5]], np.float64)])
    assert column.to_pylist() == [[[1, 2, 3, 4.5]]]


def test_metadata_round_trip() -> None:
    first = schema.with_metadata(schema.MANIFEST, {"classes": ["ä", "b"]})
    both = schema.with_metadata(first, {"category_ids": [3, 1]})
    assert schema.metadata_value(both, "classes") == ["ä", "b"]
    assert schema.metadata_value(both, "category_ids") == [3, 1]
    assert schema.metadata_value(schema.MANIFEST, "classes") is None
