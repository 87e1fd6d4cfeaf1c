"""Columns of other programs' Parquet files are cast to their schema's type, or rejected by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.errors import UnreadableDataset
from pipeline.table_checks import PART, cast_table, require_columns

BOXES = [[0.0, 0.0, 10.0, 20.0], [5.0, 5.0, 9.0, 9.0]]
FLOAT = pa.float32()
FIXED, VARIABLE = pa.list_(pa.list_(FLOAT, 4)), pa.list_(pa.list_(FLOAT))
URI = "/out/part.parquet"


def make_table(**columns: Any) -> pa.Table:
    return pa.table({"image_id": ["a", "b"], **columns})


@pytest.mark.parametrize(
    "kind",
    [
        FIXED,
        VARIABLE,
        pa.large_list(pa.list_(FLOAT, 4)),
        pa.large_list(pa.large_list(pa.float64())),
        pa.list_(pa.list_(pa.float64(), 4)),
        pa.list_(pa.list_(pa.int64())),
    ],
    ids=str,
)
def test_box_lists_of_other_types_are_cast(kind: pa.DataType) -> None:
    table = make_table(boxes=pa.array([None, BOXES], kind))
    for rows in (table, pa.concat_tables([table, table]).slice(1, 2)):
        column = cast_table(rows, PART, URI)["boxes"]
        assert column.type == schema.PROPOSALS.field("boxes").type
        expected = [[] if boxes is None else boxes for boxes in rows["boxes"].to_pylist()]
        assert [boxes.tolist() for boxes in schema.split_box_column(column)] == expected


@pytest.mark.parametrize(
    ("kind", "boxes", "message"),
    [
        (FIXED, [BOXES[0], None], "row 1 (image 'b'): a box is null"),
        (VARIABLE, [BOXES[0], None], "row 1 (image 'b'): a box is null"),
        (FIXED, [[0, 0, None, 4]], "row 1 (image 'b'): a box has a null number"),
        (VARIABLE, [BOXES[0], [0, None, 3, 4]], "row 1 (image 'b'): a box has a null number"),
        (VARIABLE, [[*box, 0.5] for box in BOXES], "expected list<item: fixed_size_list"),
        (VARIABLE, [BOXES[0], [*BOXES[1], 0.5]], "expected list<item: fixed_size_list"),
        (VARIABLE, [box[:3] for box in BOXES], "expected list<item: fixed_size_list"),
        (pa.list_(pa.list_(FLOAT, 2)), [[0, 1]], "expected list<item: fixed_size_list"),
        (pa.list_(FLOAT), [0, 0, 1, 1], "column boxes is list<item: float>, expected"),
        (
            pa.list_(pa.list_(pa.string())),
            [["0", "0", "1", "1"]],
            "is list<item: list<item: string>>",
        ),
        (
            pa.list_(pa.list_(pa.bool_())),
            [[False, False, True, True]],
            "is list<item: list<item: bool>>",
        ),
        (FIXED, [BOXES[0], [float("nan")] * 4], "row 1 (image 'b'): a box is (nan, nan, nan, nan)"),
        (FIXED, [[0, 0, float("inf"), 4]], "a box is (0, 0, inf, 4)"),
        (FIXED, [[float("-inf"), 0, 4, 4]], "a box is (-inf, 0, 4, 4)"),
        (pa.list_(pa.list_(pa.float64())), [[0, 0, 1e300, 4]], "a box is (0, 0, inf, 4)"),
        (FIXED, [[3, 0, 1, 4]], "a box is (3, 0, 1, 4)"),
        (FIXED, [[3, 0, 3, 4]], "a box is (3, 0, 3, 4)"),
    ],
)
def test_box_lists_that_are_no_boxes_are_named(
    kind: pa.DataType, boxes: list[Any], message: str
) -> None:
    table = make_table(boxes=pa.array([[] if kind == FIXED else None, boxes], kind))
    with pytest.raises(UnreadableDataset) as caught:
        cast_table(table, PART, URI)
    assert str(caught.value).startswith(f"{URI}: column boxes")
    assert message in str(caught.value)


OBJECT = {"label": "cat", "x1": 0.0, "y1": 0.0, "x2": 4.0, "y2": 4.0}
FLAGS = {"difficult": False, "crowd": None}
DETECTION = {**OBJECT, "label_id": 0, "score": 0.5}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x1": None}, "row 1 (image 'b'): a x1 is null"),
        ({"label": None}, "row 1 (image 'b'): a label is null"),
        ({"x2": float("nan")}, "a box is (0, 0, nan, 4)"),
        ({"y2": float("inf")}, "a box is (0, 0, 4, inf)"),
        ({"y1": 4.0}, "a box is (0, 4, 4, 4)"),
        ({"x1": 9.0}, "a box is (9, 0, 4, 4)"),
    ],
)
@pytest.mark.parametrize("name", ["objects", "detections"])
def test_objects_and_detections_without_a_box_are_named(
    name: str, changes: dict[str, Any], message: str
) -> None:
    good = {**OBJECT, **FLAGS} if name == "objects" else DETECTION
    target = schema.MANIFEST if name == "objects" else PART
    lists = pa.array([[good, good], [good, good | changes]], target.field(name).type)
    with pytest.raises(UnreadableDataset) as caught:
        cast_table(make_table(**{name: lists}), target, URI)
    assert str(caught.value).startswith(f"{URI}: column {name}, row 1 (image 'b'): ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("element", "message"),
    [
        ({k: v for k, v in DETECTION.items() if k != "score"}, "expected list<item: struct<label"),
        (DETECTION | {"score": "0.5"}, "expected list<item: struct<label"),
        (DETECTION | {"score": float("nan")}, "a score is not a finite number"),
        (DETECTION | {"score": None}, "a score is null"),
        (DETECTION | {"label_id": 0.5}, "truncated"),
        (None, "an element is null"),
    ],
)
def test_detections_of_another_form_are_named(element: Any, message: str) -> None:
    inferred = pa.array([[], [element if element else DETECTION]])
    kind = inferred.type if element else schema.DETECTIONS.field("detections").type
    if element and element.get("score", 0) is None:
        kind = schema.DETECTIONS.field("detections").type
    with pytest.raises(UnreadableDataset, match=message):
        cast_table(make_table(detections=pa.array([[], [element]], kind)), PART, URI)


@pytest.mark.parametrize(
    "ids", [pa.array(["a", "b"]).dictionary_encode(), pa.array(["a", "b"], pa.string_view())]
)
def test_categories_views_and_floats_are_cast(ids: pa.Array) -> None:
    table = pa.table({"image_id": ids, "width": [640.0, None], "more": [1, 2]})
    cast = cast_table(table, schema.MANIFEST, URI)
    assert cast.schema.field("image_id").type == pa.string()
    assert cast.to_pylist() == [
        {"image_id": "a", "width": 640, "more": 1},
        {"image_id": "b", "width": None, "more": 2},
    ]


BAD_UTF8 = pa.array([b"ok", b"\xff\xfe"], pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("image_id", pa.array([0, 1]), "column image_id is int64, expected string"),
        ("image_id", pa.array(["a", None]), "column image_id, row 1 (image None): it is null"),
        ("status", BAD_UTF8, "Invalid UTF8"),
        ("status", pa.array(["ok", "fine"]), "row 1: 'fine', expected ok or failed"),
        ("width", pa.array([5, 0]), "row 1: 0 pixels, expected at least 1"),
        ("height", pa.array([-5, 5]), "row 0: -5 pixels, expected at least 1"),
        ("width", pa.array([5.5, 5.0]), "truncated"),
        ("width", pa.array([2**40, 5]), "column width is int64, expected int32"),
        ("width", pa.array(["5", "6"]), "column width is string, expected int32"),
    ],
)
def test_values_of_the_wrong_kind_are_named(name: str, column: pa.Array, message: str) -> None:
    with pytest.raises(UnreadableDataset) as caught:
        cast_table(pa.table({name: column}), PART, URI)
    assert message in str(caught.value)


def test_a_row_with_status_ok_has_a_list() -> None:
    boxes = pa.array([None, [BOXES[0]]], FIXED)
    fine = make_table(status=["failed", "ok"], boxes=boxes)
    assert cast_table(fine, PART, URI).num_rows == 2
    with pytest.raises(
        UnreadableDataset, match="row 0 has status ok, but its list of boxes is null"
    ):
        cast_table(make_table(status=["ok", "ok"], boxes=boxes), PART, URI)


def test_metadata_and_empty_tables_stay() -> None:
    empty = schema.add_metadata(schema.DETECTIONS, {"classes": ["cat"]}).empty_table()
    assert cast_table(empty, PART, URI).schema.equals(empty.schema, check_metadata=True)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(
        UnreadableDataset, match=r"part\.parquet has no column status; it has image_id"
    ):
        require_columns(make_table(), ["image_id", "status"], URI)


def test_boxes_that_were_not_checked_are_not_split() -> None:
    for column in (pa.array([[BOXES[0], None]], FIXED), pa.array([BOXES], VARIABLE)):
        with pytest.raises(AssertionError):
            schema.split_box_column(column)


@pytest.mark.parametrize("read", [lambda c: c, lambda c: c.slice(1, 1)])
def test_boxes_of_a_part_keep_their_images(read: Callable[[pa.Array], pa.Array]) -> None:
    rows = [np.array([BOXES[0]], np.float32), np.array(BOXES, np.float32)]
    table = make_table(boxes=schema.build_box_column(rows))
    for actual, expected in zip(
        schema.split_box_column(read(cast_table(table, PART, URI)["boxes"])),
        read(pa.array([0, 1])).to_pylist(),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, rows[expected])


@pytest.mark.parametrize("name", ["image_id", "error_message"])
def test_a_repeated_column_is_named(name: str) -> None:
    table = schema.PROPOSALS.empty_table()
    repeated = table.append_column(schema.PROPOSALS.field(name), table.column(name))
    with pytest.raises(UnreadableDataset, match=f"several columns {name}"):
        cast_table(repeated, schema.PROPOSALS, "part.parquet")
