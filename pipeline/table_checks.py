"""Tables as they are read: each column cast to its schema's type, each value checked, or a named error.

Parquet files come from other programs too, which store lists, texts and numbers in other types, or hold
values that no reader expects: a null box would shift all boxes behind it into the wrong images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema, uris
from pipeline.errors import UnreadableDataset

_CORNERS = ("x1", "y1", "x2", "y2")


def cast_table(table: pa.Table, target: pa.Schema, uri: str, *, first_row: int = 0) -> pa.Table:
    """The table with its columns cast to the types of `target` and their values checked.

    Columns that `target` does not have stay as they are, and so does the schema's metadata.

    Args:
        table: any columns.
        target: the expected types, and which columns may be null.
        uri: the file, for messages.
        first_row: the number of the table's first row in the file, for messages.

    Raises:
        UnreadableDataset: a column of another kind, or a value that does not belong into it; names the
            file, the column and, for a value, the row. Also a column that is there twice.
    """
    names = table.schema.names
    repeated = [name for name in target.names if names.count(name) > 1]
    if repeated:
        raise UnreadableDataset(f"{uris.redact_uri(uri)} has several columns {repeated[0]}")
    for index, name in enumerate(names):
        if name not in target.names:
            continue
        field = target.field(name)
        column = _cast_column(table.column(index), field, uri)
        fault = _find_null(column, field) or _VALUE_CHECKS.get(name, _accept)(column)
        if fault is not None:
            row, text = fault
            where = f"row {first_row + row}{_name_image(table, row)}"
            raise UnreadableDataset(f"{uris.redact_uri(uri)}: column {name}, {where}: {text}")
        table = table.set_column(index, field, column)
    ok_without_boxes = _find_ok_without_list(table)
    if ok_without_boxes is not None:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: row {first_row + ok_without_boxes} has status ok, but its list of "
            "boxes is null"
        )
    return table


def _name_image(table: pa.Table, row: int) -> str:
    if "image_id" not in table.schema.names:
        return ""
    try:
        return f" (image {table.column('image_id')[row].as_py()!r:.200})"
    except UnicodeDecodeError:
        return ""


def require_columns(table: pa.Table, names: Sequence[str], uri: str) -> pa.Table:
    """The table, if it has all these columns.

    Raises:
        UnreadableDataset: one is missing.
    """
    missing = [name for name in names if name not in table.schema.names]
    if missing:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} has no column {missing[0]}; it has {', '.join(table.schema.names)}"
        )
    return table


def _cast_column(column: pa.ChunkedArray, field: pa.Field, uri: str) -> pa.ChunkedArray:
    if not _is_convertible(column.type, field.type):
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: column {field.name} is {column.type}, expected {field.type}"
        )
    try:
        column.validate(full=True)  # UTF-8, and offsets of lists
        return column if column.type == field.type else column.cast(field.type)
    except (pa.ArrowException, ValueError) as error:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)}: column {field.name} is {column.type}, expected {field.type}: "
            f"{str(error).splitlines()[0]}"
        ) from error


_CONVERTIBLE = (
    (pa.types.is_string, (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
    (pa.types.is_floating, (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal)),
    (pa.types.is_integer, (pa.types.is_integer, pa.types.is_floating)),
    (pa.types.is_boolean, (pa.types.is_boolean,)),
)
"""The types whose values may become a type's. Pandas stores integers with nulls as floats."""


def _is_convertible(actual: pa.DataType, target: pa.DataType) -> bool:
    """Whether values of a type are of the same kind as the target's: a text of digits is no number."""
    if pa.types.is_dictionary(actual):  # pandas' and Polars' categories
        return _is_convertible(actual.value_type, target)
    if pa.types.is_null(actual):
        return True
    if pa.types.is_struct(target):
        return pa.types.is_struct(actual) and all(
            actual.get_field_index(child.name) >= 0
            and _is_convertible(actual.field(child.name).type, child.type)
            for child in target
        )
    for is_target, kinds in _CONVERTIBLE:
        if is_target(target):
            return any(is_kind(actual) for is_kind in kinds)
    return _is_list(actual) and _is_convertible(actual.value_type, target.value_type)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


Fault = tuple[int, str]
"""A row, and what is wrong in it."""


def _accept(column: pa.ChunkedArray) -> Fault | None:  # noqa: ARG001
    return None


def _find_null(column: pa.ChunkedArray, field: pa.Field) -> Fault | None:
    if field.nullable or column.null_count == 0:
        return None
    return pc.index(pc.is_null(column), True).as_py(), "it is null"


def _find_ok_without_list(table: pa.Table) -> int | None:
    """The first row whose image is done, but has no list of boxes."""
    names = [name for name in ("boxes", "detections") if name in table.schema.names]
    if "status" not in table.schema.names or not names or table.column(names[0]).null_count == 0:
        return None
    is_ok = pc.equal(table.column("status"), "ok")
    row: int = pc.index(pc.and_(is_ok, pc.is_null(table.column(names[0]))), True).as_py()
    return row if row >= 0 else None


def _check_status(column: pa.ChunkedArray) -> Fault | None:
    row = pc.index(pc.is_in(column, value_set=pa.array(["ok", "failed"])), False).as_py()
    return None if row < 0 else (row, f"{column[row].as_py()!r:.60}, expected ok or failed")


def _check_side(column: pa.ChunkedArray) -> Fault | None:
    row = pc.index(pc.less(column, 1), True).as_py()
    return None if row < 0 else (row, f"{column[row].as_py()} pixels, expected at least 1")


def _check_box_lists(column: pa.ChunkedArray) -> Fault | None:
    """Lists of boxes `(N, 4)`: without nulls, finite, and each with an area."""
    rows = _combine(column)
    boxes = rows.flatten()
    if boxes.null_count:
        return _locate(rows, ~_find_valid(boxes), "a box is null")
    numbers = boxes.flatten()
    if numbers.null_count:
        is_null: NDArray[np.bool_] = np.any(~_find_valid(numbers).reshape(-1, 4), axis=1)
        return _locate(rows, is_null, "a box has a null number")
    return _check_corners(rows, _to_numpy(numbers).reshape(-1, 4))


def _check_objects(column: pa.ChunkedArray) -> Fault | None:
    return _check_structs(column, ("label",))


def _check_detections(column: pa.ChunkedArray) -> Fault | None:
    fault = _check_structs(column, ("label", "label_id", "score"))
    if fault is None:
        rows = _combine(column)
        is_wrong = ~np.isfinite(_to_numpy(rows.flatten().field("score")))
        fault = _locate(rows, is_wrong, "a score is not a finite number")
    return fault


def _check_structs(column: pa.ChunkedArray, names: tuple[str, ...]) -> Fault | None:
    rows = _combine(column)
    structs = rows.flatten()
    if structs.null_count:
        return _locate(rows, ~_find_valid(structs), "an element is null")
    for name in (*names, *_CORNERS):
        values = structs.field(name)
        if values.null_count:
            return _locate(rows, ~_find_valid(values), f"a {name} is null")
    corners = np.stack([_to_numpy(structs.field(name)) for name in _CORNERS], axis=1)
    return _check_corners(rows, corners)


def _check_corners(rows: pa.ListArray, boxes: NDArray[np.float32]) -> Fault | None:
    with np.errstate(invalid="ignore", over="ignore"):
        sides = boxes[:, 2:] - boxes[:, :2]  # not finite if a corner is not
        is_right = (sides > 0) & (sides < np.inf)
    is_wrong: NDArray[np.bool_] = np.any(~is_right, axis=1)
    if not is_wrong.any():
        return None
    box = ", ".join(f"{side:g}" for side in boxes[int(is_wrong.argmax())])
    return _locate(
        rows, is_wrong, f"a box is ({box}), expected finite x1, y1, x2, y2 with x2 > x1 and y2 > y1"
    )


def _locate(rows: pa.ListArray, is_wrong: NDArray[np.bool_], text: str) -> Fault | None:
    """The row of the first wrong element, counted over the elements of all lists."""
    if not is_wrong.any():
        return None
    return pc.list_parent_indices(rows)[int(is_wrong.argmax())].as_py(), text


def _combine(column: pa.ChunkedArray) -> Any:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _find_valid(values: pa.Array) -> NDArray[np.bool_]:
    return _to_numpy(values.is_valid())


def _to_numpy(values: pa.Array) -> NDArray[Any]:
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array


_VALUE_CHECKS: Mapping[str, Callable[[pa.ChunkedArray], Fault | None]] = {
    "status": _check_status,
    "width": _check_side,
    "height": _check_side,
    "boxes": _check_box_lists,
    "objects": _check_objects,
    "detections": _check_detections,
}

PART = pa.schema({field.name: field for field in (*schema.PROPOSALS, *schema.DETECTIONS)}.values())
"""The columns of all parts: proposals and detections agree on those that they share."""
