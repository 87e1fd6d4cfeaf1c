"""The nested columns as flat arrays: one row per object or per detection, with its image's index.

Classes are matched by name: `class_id` is the position of the label in the list of classes given, -1
where the label is not in it.
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
class GroundTruth:
    """The G annotated objects of a run of images."""

    image: NDArray[np.int64]
    """`(G,)` index of the object's image, in the order of the images."""
    class_id: NDArray[np.int64]
    """`(G,)`"""
    boxes: NDArray[np.float64]
    """`(G, 4)` x1, y1, x2, y2 in pixels."""
    difficult: NDArray[np.bool_]
    """`(G,)` neither counted as an object nor, if found, as a false detection."""
    crowd: NDArray[np.bool_]
    """`(G,)` a region of many objects; ignored likewise, however many detections lie in it."""


@dataclass(frozen=True)
class Detections:
    """The D detections in a run of images."""

    image: NDArray[np.int64]
    """`(D,)` index of the detection's image."""
    class_id: NDArray[np.int64]
    """`(D,)`"""
    scores: NDArray[np.float32]
    """`(D,)`"""
    boxes: NDArray[np.float64]
    """`(D, 4)` x1, y1, x2, y2 in pixels."""

    def __getitem__(self, mask: NDArray[np.bool_]) -> Detections:
        """Those where the mask `(D,)` is true."""
        return Detections(
            self.image[mask], self.class_id[mask], self.scores[mask], self.boxes[mask]
        )


def ground_truth(objects: pa.ChunkedArray, classes: Sequence[str]) -> GroundTruth:
    """The objects of a manifest's `objects` column; images without a list give none.

    Raises:
        UnreadableDataset: an object of a class that is not among `classes`.
    """
    image, structs = _flattened(objects, schema.OBJECT)
    class_id = _class_ids(structs.field("label"), classes)
    if (class_id < 0).any():
        label = structs.field("label")[int(class_id.argmin())].as_py()
        raise UnreadableDataset(
            f"an object is of class {label!r}, which the manifest does not list among its classes: "
            f"{', '.join(classes)}"
        )
    return GroundTruth(
        image,
        class_id,
        _boxes(structs),
        _flags(structs.field("difficult")),
        _flags(structs.field("crowd")),
    )


def detections(column: pa.ChunkedArray, classes: Sequence[str]) -> Detections:
    """The detections of an output's `detections` column; failed images give none."""
    image, structs = _flattened(column, schema.DETECTION)
    scores = structs.field("score").to_numpy(zero_copy_only=False)
    return Detections(
        image,
        _class_ids(structs.field("label"), classes),
        scores.astype(np.float32, copy=False),
        _boxes(structs),
    )


def _flattened(column: pa.ChunkedArray, of: pa.StructType) -> tuple[NDArray[np.int64], Any]:
    """Index of each element's row, and the elements as one struct array."""
    rows = column.combine_chunks()
    if isinstance(rows, pa.ChunkedArray):  # an empty column stays chunked
        return np.empty(0, np.int64), pa.array([], of)
    image = pc.list_parent_indices(rows).to_numpy(zero_copy_only=False)
    return image.astype(np.int64, copy=False), rows.flatten()


def _class_ids(labels: pa.Array, classes: Sequence[str]) -> NDArray[np.int64]:
    found = pc.index_in(labels, value_set=pa.array(list(classes), labels.type))
    ids: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return ids


def _boxes(structs: pa.StructArray) -> NDArray[np.float64]:
    corners = [structs.field(name).to_numpy(zero_copy_only=False) for name in _CORNERS]
    return np.stack(corners, axis=1).astype(np.float64)


def _flags(column: pa.Array) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = pc.fill_null(column, False).to_numpy(zero_copy_only=False)
    return flags
