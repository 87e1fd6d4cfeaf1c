"""The nested columns as flat arrays: one row per object or per detection, with its image's index.

Classes are matched by name: `class_id` is the label's position in a list of classes, or -1 if the label
is not in the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import UnreadableDataset

_CORNERS = ("x1", "y1", "x2", "y2")


@dataclass(frozen=True)
class GroundTruthArrays:
    """The G annotated objects of consecutive images."""

    image: NDArray[np.int64]
    """`(G,)` index of the object's image, in the order of the images."""
    class_id: NDArray[np.int64]
    """`(G,)`"""
    boxes: NDArray[np.float64]
    """`(G, 4)` x1, y1, x2, y2 in pixels."""
    difficult: NDArray[np.bool_]
    """`(G,)` counts neither as an object nor, if detected, as a false detection."""
    crowd: NDArray[np.bool_]
    """`(G,)` a region of many objects; ignored likewise, however many detections are inside it."""


@dataclass(frozen=True)
class DetectionArrays:
    """The D detections in consecutive images."""

    image: NDArray[np.int64]
    """`(D,)` index of the detection's image."""
    class_id: NDArray[np.int64]
    """`(D,)`"""
    scores: NDArray[np.float32]
    """`(D,)`"""
    boxes: NDArray[np.float64]
    """`(D, 4)` x1, y1, x2, y2 in pixels."""

    def __getitem__(self, mask: NDArray[np.bool_]) -> DetectionArrays:
        """Select the detections where the mask `(D,)` is true."""
        return DetectionArrays(
            self.image[mask], self.class_id[mask], self.scores[mask], self.boxes[mask]
        )


def flatten_ground_truth(objects: pa.ChunkedArray, classes: Sequence[str]) -> GroundTruthArrays:
    """Flatten a manifest's `objects` column; images without a list have no objects.

    Raises:
        UnreadableDataset: an object of a class that is not among `classes`.
    """
    image, structs = _flatten_lists(objects, schema.OBJECT)
    class_id = _look_up_classes(structs.field("label"), classes)
    if (class_id < 0).any():
        label = structs.field("label")[int(class_id.argmin())].as_py()
        raise UnreadableDataset(
            f"an object has class {label!r}, which is not among the manifest's classes: "
            f"{', '.join(classes)}"
        )
    return GroundTruthArrays(
        image,
        class_id,
        _stack_corners(structs),
        _read_flags(structs.field("difficult")),
        _read_flags(structs.field("crowd")),
    )


def flatten_detections(column: pa.ChunkedArray, classes: Sequence[str]) -> DetectionArrays:
    """Flatten an output's `detections` column; failed images have no detections."""
    image, structs = _flatten_lists(column, schema.DETECTION)
    scores = structs.field("score").to_numpy(zero_copy_only=False)
    return DetectionArrays(
        image,
        _look_up_classes(structs.field("label"), classes),
        scores.astype(np.float32, copy=False),
        _stack_corners(structs),
    )


def _flatten_lists(
    column: pa.ChunkedArray, element_type: pa.StructType
) -> tuple[NDArray[np.int64], Any]:
    """Return the index of each element's row, and the elements as one struct array."""
    rows = column.combine_chunks()
    if isinstance(rows, pa.ChunkedArray):  # an empty column stays chunked
        return np.empty(0, np.int64), pa.array([], element_type)
    image = pc.list_parent_indices(rows).to_numpy(zero_copy_only=False)
    return image.astype(np.int64, copy=False), rows.flatten()


def _look_up_classes(labels: pa.Array, classes: Sequence[str]) -> NDArray[np.int64]:
    positions = pc.index_in(labels, value_set=pa.array(list(classes), labels.type))
    class_ids: NDArray[np.int64] = (
        pc.fill_null(positions, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    return class_ids


def _stack_corners(structs: pa.StructArray) -> NDArray[np.float64]:
    corners = [structs.field(name).to_numpy(zero_copy_only=False) for name in _CORNERS]
    return np.stack(corners, axis=1).astype(np.float64)


def _read_flags(column: pa.Array) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = pc.fill_null(column, False).to_numpy(zero_copy_only=False)
    return flags
