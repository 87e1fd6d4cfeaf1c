"""Matches as a table and back: `build_matches` for the images of a shard, and `read_matches`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema, uris
from pipeline.analysis.detection_arrays import flatten_detections, flatten_ground_truth
from pipeline.analysis.federation import excuse_detections
from pipeline.analysis.manifest_join import JoinedBatch, find_labelled
from pipeline.analysis.matching import ERRORS, KINDS, Matches, add_coverage, match_images
from pipeline.errors import UnreadableDataset
from pipeline.table_checks import cast_table, require_columns

_LABEL_COLUMNS = {"label": "class_id", "nearest_label": "nearest_class_id"}
_NAME_COLUMNS = {"kind": KINDS, "error": ERRORS}
_ALWAYS = ("image_id", "row", "shard", "kind", "label")
_DETECTION_COLUMNS = ("score", "x1", "y1", "x2", "y2", "rank", "iou")
_OF_ANNOTATED = (
    *(f"{prefix}_{name}" for prefix in ("true", "ignored") for name in schema.AREA_RANGES),
    "voc",
)
_OF_OBJECT = (
    *(f"object_{name}" for name in ("x1", "y1", "x2", "y2", "difficult", "crowd")),
    "object_index",
    "iou",
)


def build_matches(
    batch: JoinedBatch,
    classes: Sequence[str],
    shard: int,
    proposals: Iterable[NDArray[np.float32]] | None = None,
) -> pa.Table:
    """Match the detections of consecutive images, such as a shard's, with their objects.

    Args:
        batch: the images' columns `image_id` and `detections`, and their rows of the manifest.
        classes: the labels in order, first the manifest's. Labels that are not among them come after.
        shard: ordinal of the shard.
        proposals: each image's boxes `(N, 4)`, of which one is in memory at a time; without them it is
            unknown what they cover.

    Returns:
        A table of `schema.MATCHES` with the metadata `classes`.

    Raises:
        UnreadableDataset: an object of a class that is not among `classes`.
    """
    classes = extend_classes(classes, batch.results.column("detections"))
    matches = match_batch(batch, classes, proposals)
    image_ids = batch.results.column("image_id").combine_chunks()
    return build_match_table(matches, image_ids, batch.first_row, shard, classes)


def extend_classes(classes: Sequence[str], detections: pa.ChunkedArray) -> tuple[str, ...]:
    """The classes and, after them, the sorted labels of the detections that are not among them."""
    return (*classes, *sorted(set(list_labels(detections)) - set(classes)))


def list_labels(detections: pa.ChunkedArray) -> list[str]:
    """The labels of a column of detections, each once."""
    labels: list[str] = pc.unique(detections.combine_chunks().flatten().field("label")).to_pylist()
    return labels


def match_batch(
    batch: JoinedBatch,
    classes: Sequence[str],
    proposals: Iterable[NDArray[np.float32]] | None = None,
) -> Matches:
    """The matches of a batch; detections with labels that are not among `classes` are left out."""
    detections = flatten_detections(batch.results.column("detections"), classes)
    ground_truth = flatten_ground_truth(batch.manifest.column("objects"), classes)
    excuses = excuse_detections(batch.manifest, ground_truth, detections, classes)
    is_listed = detections.class_id >= 0
    if not is_listed.all():
        detections = detections[is_listed]
        excuses = None if excuses is None else excuses[is_listed]
    matches = match_images(
        ground_truth,
        detections,
        len(batch.results),
        first_row=batch.first_row,
        is_annotated=find_labelled(batch),
        excuses=excuses,
    )
    if proposals is None:
        return matches
    return add_coverage(matches, ground_truth, proposals, batch.first_row)


def build_match_table(
    matches: Matches, image_ids: pa.Array, first_row: int, shard: int, classes: Sequence[str]
) -> pa.Table:
    """The matches as a table of `schema.MATCHES`.

    Args:
        matches: of consecutive images.
        image_ids: the images' ids.
        first_row: the first image's row in the manifest.
        shard: ordinal of the shard.
        classes: the labels that the matches' class ids count.
    """
    of_images = {
        "image_id": image_ids.take(pa.array(matches.row - first_row)),
        "shard": pa.array(np.full(len(matches), shard, np.int64)),
    }
    columns = [
        of_images[field.name] if field.name in of_images else _build_column(matches, field, classes)
        for field in schema.MATCHES
    ]
    target = schema.add_metadata(schema.MATCHES, {"classes": list(classes)})
    return pa.Table.from_arrays(columns, schema=target)


def _build_column(matches: Matches, field: pa.Field, classes: Sequence[str]) -> pa.Array:
    name = field.name
    if name in _LABEL_COLUMNS or name in _NAME_COLUMNS:
        names = _NAME_COLUMNS.get(name, classes)
        positions = np.ascontiguousarray(getattr(matches, _LABEL_COLUMNS.get(name, name)))
        return pa.array(list(names), pa.string()).take(pa.array(positions, mask=positions < 0))
    values = np.ascontiguousarray(getattr(matches, name))
    is_null = _find_null(matches, name)
    if is_null is not None and pa.types.is_boolean(field.type):
        values = values == 1
    return pa.array(values, field.type, mask=is_null)


def _find_null(matches: Matches, name: str) -> NDArray[np.bool_] | None:
    """Which rows `(R,)` have no value in a column."""
    if name in _ALWAYS:
        return None
    if name in _OF_ANNOTATED:
        return ~(matches.is_annotated & matches.is_detection)
    if name in _DETECTION_COLUMNS and name != "iou":
        return ~matches.is_detection
    if name in _OF_OBJECT:
        is_null = matches.object_index < 0
        return is_null | ~matches.is_detection if name == "iou" else is_null
    if name == "nearest_iou":
        return matches.nearest_index < 0
    values: NDArray[Any] = getattr(matches, name)
    return values < 0


def read_matches(table: pa.Table, uri: str = "the table") -> Matches:
    """The matches of a table of `schema.MATCHES`, whose metadata names the classes.

    Columns may be missing; those of the result are filled with what stands for null.

    Args:
        table: as `build_matches` returns it, or any of its columns with its metadata.
        uri: the file, for messages.

    Raises:
        UnreadableDataset: a column of another type, a label that the metadata does not list, or no `classes`.
    """
    table = cast_table(require_columns(table, ["kind"], uri), schema.MATCHES, uri)
    classes = read_match_classes(table.schema, uri)
    columns = {
        field.name: _read_column(table, field.name, classes, uri)
        for field in fields(Matches)
        if field.name != "is_annotated"
    }
    is_object = columns["kind"] != 0
    is_annotated = np.ones(len(table), np.bool_)
    judged = [name for name in _OF_ANNOTATED if name in table.column_names]
    if judged:
        is_annotated = is_object | _to_numpy(pc.is_valid(table.column(judged[0])))
    return Matches(is_annotated=is_annotated, **columns)


def read_match_classes(match_schema: pa.Schema, uri: str) -> tuple[str, ...]:
    """The classes that a table of matches names in its metadata.

    Raises:
        UnreadableDataset: there are none.
    """
    classes = schema.read_classes(match_schema, uri)
    if classes is None:
        raise UnreadableDataset(
            f"{uris.redact_uri(uri)} has no metadata 'classes': it is not a table of matches, or another "
            "program rewrote it"
        )
    return classes


def _read_column(table: pa.Table, name: str, classes: Sequence[str], uri: str) -> NDArray[Any]:
    by_position = {position: label for label, position in _LABEL_COLUMNS.items()}
    stored = by_position.get(name, name)
    dtype = np.int32 if name in by_position else _DTYPES[name]
    missing = _MISSING.get(name, np.nan if dtype == np.float32 else 0 if dtype in _ZEROS else -1)
    if stored not in table.column_names:
        return np.full(len(table), missing, dtype)
    column = table.column(stored)
    if name in by_position or name in _NAME_COLUMNS:
        names = pa.array(list(_NAME_COLUMNS.get(name, classes)), pa.string())
        positions = pc.index_in(column, value_set=names)
        if positions.null_count != column.null_count:
            raise UnreadableDataset(
                f"{uris.redact_uri(uri)}: column {stored} has a value that is not among "
                f"{', '.join(names.to_pylist())}"
            )
        column = positions
    elif pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(missing, column.type))
    return _to_numpy(column).astype(dtype, copy=False)


_MISSING = {"voc": 0}
_ZEROS = (np.bool_, np.int16)
_DTYPES: dict[str, Any] = {
    **{
        field.name: np.dtype(field.type.to_pandas_dtype())
        for field in schema.MATCHES
        if not pa.types.is_string(field.type)
    },
    "kind": np.dtype(np.int8),
    "error": np.dtype(np.int8),
    "voc": np.dtype(np.int8),
    "covered50": np.dtype(np.int8),
    "covered70": np.dtype(np.int8),
}


def _to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    values: NDArray[Any] = column.to_numpy()
    return values
