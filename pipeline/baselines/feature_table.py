"""Columns of stored features, one row per image, and of the maps that SPPnet stores.

A part has `image_id`, `width`, `height`, `status`, `error_type` and `error_message` as proposals have, and
the columns below. A failed image has nulls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import schema
from pipeline.errors import UnreadableDataset

MAP = pa.struct(
    [
        pa.field("rows", pa.int32()),
        pa.field("columns", pa.int32()),
        pa.field("values", pa.large_binary()),
    ]
)
"""A feature map: float32, little-endian, by channel, row and column."""


def build_feature_schema(width: int) -> pa.Schema:
    """The columns of stored features.

    - `boxes`: the windows, proposals before objects, in pixels of the image.
    - `labels`: 0 for a proposal; an object's class, counted from 1.
    - `vectors`: their features, `width` floats each.
    """
    return pa.schema(
        [
            *_COMMON,
            pa.field("boxes", pa.list_(pa.list_(pa.float32(), 4))),
            pa.field("labels", pa.list_(pa.int32())),
            pa.field("vectors", pa.list_(pa.list_(pa.float32(), width))),
        ]
    )


_COMMON = [field for field in schema.PROPOSALS if field.name != "boxes"]

MAPS = pa.schema([*_COMMON, pa.field("maps", pa.list_(MAP))])
"""The columns of stored maps: one per scale."""


@dataclass(frozen=True)
class ImageFeatures:
    """The windows of one image and their features."""

    boxes: NDArray[np.float32]
    """`(N, 4)` in pixels of the image: proposals, then objects."""
    labels: NDArray[np.int32]
    """`(N,)`: 0 for a proposal, else the object's class counted from 1."""
    vectors: NDArray[np.float32]
    """`(N, D)`."""


def build_feature_columns(
    images: Sequence[ImageFeatures | None], width: int
) -> dict[str, pa.Array]:
    """The columns of features; None stands for a failed image."""
    present = [image for image in images if image is not None]
    counts = [0 if image is None else len(image.labels) for image in images]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    missing = pa.array([image is None for image in images], pa.bool_())
    labels = np.concatenate([np.zeros(0, np.int32), *(image.labels for image in present)])
    vectors = np.concatenate(
        [np.zeros((0, width), np.float32), *(image.vectors for image in present)]
    )
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
    return {
        "boxes": schema.build_box_column(
            [None if image is None else image.boxes for image in images]
        ),
        "labels": pa.ListArray.from_arrays(offsets, pa.array(labels, pa.int32()), mask=missing),
        "vectors": pa.ListArray.from_arrays(offsets, values, mask=missing),
    }


def read_features(table: pa.Table, uri: str) -> list[ImageFeatures | None]:
    """The features of each image of a part; None for a failed image.

    Args:
        table: a part, as `shards.Parts.read` returns it.
        uri: the part, for messages.

    Raises:
        UnreadableDataset: the columns do not belong together, or a value is not finite.
    """
    columns = table.combine_chunks()
    boxes = schema.split_box_column(columns["boxes"])
    labels, vectors = (columns[name].combine_chunks() for name in ("labels", "vectors"))
    if not pa.types.is_list(vectors.type) or not pa.types.is_fixed_size_list(
        vectors.type.value_type
    ):
        raise UnreadableDataset(f"{uri}: the column vectors is {vectors.type}, expected features")
    width = vectors.type.value_type.list_size
    flat = vectors.flatten().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    flat_labels = labels.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
    total = sum(map(len, boxes))
    if len(flat) != total or len(flat_labels) != total or not np.isfinite(flat).all():
        raise UnreadableDataset(
            f"{uri} is damaged: {total} windows have {len(flat)} vectors and {len(flat_labels)} labels, or "
            "a vector is not finite"
        )
    images: list[ImageFeatures | None] = []
    first = 0
    for own_boxes, status in zip(boxes, columns["status"].to_pylist(), strict=True):
        end = first + len(own_boxes)
        images.append(
            ImageFeatures(own_boxes, flat_labels[first:end], flat[first:end])
            if status == "ok"
            else None
        )
        first = end
    return images


def build_map_column(images: Sequence[Sequence[NDArray[np.float32]] | None]) -> pa.Array:
    """The column of maps from each image's arrays `(C, h, w)`; None stands for a failed image."""
    rows = [
        None
        if maps is None
        else [
            {"rows": m.shape[1], "columns": m.shape[2], "values": m.astype("<f4").tobytes()}
            for m in maps
        ]
        for maps in images
    ]
    return pa.array(rows, MAPS.field("maps").type)


def read_maps(table: pa.Table, channels: int, uri: str) -> list[list[NDArray[np.float32]] | None]:
    """The maps `(C, h, w)` of each image of a part; None for a failed image.

    Raises:
        UnreadableDataset: a map has another number of values.
    """
    images: list[list[NDArray[np.float32]] | None] = []
    for maps in table["maps"].to_pylist():
        try:
            images.append(
                maps
                and [
                    np.frombuffer(m["values"], "<f4").reshape(channels, m["rows"], m["columns"])
                    for m in maps
                ]
            )
        except (ValueError, TypeError) as error:
            raise UnreadableDataset(f"{uri} is damaged: {error}") from error
    return images
