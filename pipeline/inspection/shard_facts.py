"""The images and boxes of one shard as arrays, from its manifest rows and signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import UnreadableDataset
from pipeline.inspection.near_duplicates import FLAT_CONTRAST
from pipeline.inspection.suspicious_boxes import Flags, find_suspicious_boxes

MANIFEST_COLUMNS = ("image_id", "width", "height", "objects")
SIGNATURE_COLUMNS = (
    "image_id",
    "width",
    "height",
    "status",
    "error_type",
    "brightness",
    "contrast",
)
"""The columns that facts are read from."""

BLACK = 10.0
"""Images of less mean brightness, of 255, and little contrast are all black."""
LONG_ASPECT = 4.0
"""Images with one side this many times the other, or more, are odd."""
SHORT_SIDE = 32
"""Images with a shorter side are odd."""

IMAGE_KINDS = {
    "failed": (
        "unreadable images",
        "Missing, damaged, or of another size than their annotations state.",
    ),
    "black": ("black images", "Nearly all pixels are black."),
    "flat": ("images of one colour", "Nearly all pixels have one brightness, but are not black."),
    "long": ("very long images", "One side is at least 4 times the other."),
    "small": ("very small images", "A side is shorter than 32 pixels."),
}
"""Titles and meanings of what may be wrong with an image."""


@dataclass(frozen=True)
class ShardFacts:
    """N images and their B boxes."""

    first_row: int
    image_ids: list[str]
    sizes: NDArray[np.int64]
    """`(N, 2)` width and height in pixels; 0 if unknown."""
    failure: list[str | None]
    """Of each image the kind of error; None if it can be read."""
    image_flags: Flags
    """By kind of `IMAGE_KINDS`, `(N,)`."""
    is_annotated: NDArray[np.bool_]
    """`(N,)`"""
    object_counts: NDArray[np.int64]
    """`(N,)`"""
    boxes: NDArray[np.float32]
    """`(B, 4)`, image by image."""
    label: NDArray[np.int64]
    """`(B,)` position among the classes."""
    image: NDArray[np.int64]
    """`(B,)` position of the box's image among the N."""
    position: NDArray[np.int64]
    """`(B,)` position of the box among those of its image."""
    is_ignored: NDArray[np.bool_]
    """`(B,)` difficult objects and crowds."""
    box_flags: Flags
    """By kind of `suspicious_boxes.KINDS`, `(B,)`."""


def read_shard_facts(
    rows: pa.Table, signatures: pa.Table, first_row: int, classes: Sequence[str]
) -> ShardFacts:
    """Read the facts of a shard.

    Args:
        rows: its rows of the manifest, with MANIFEST_COLUMNS.
        signatures: its part, with SIGNATURE_COLUMNS.
        first_row: the first of them in the manifest.
        classes: all labels that occur.

    Raises:
        UnreadableDataset: an object has another label.
    """
    column = rows["objects"].combine_chunks()
    counts = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False)).astype(np.int64)
    flat = column.flatten()
    corners = [flat.field(n).to_numpy(zero_copy_only=False) for n in ("x1", "y1", "x2", "y2")]
    boxes = np.stack(corners, axis=1).astype(np.float32, copy=False)
    label = _number_labels(flat.field("label").to_pylist(), classes)
    difficult, crowd = (
        flat.field(name).fill_null(False).to_numpy(zero_copy_only=False).astype(bool)
        for name in ("difficult", "crowd")
    )
    image = np.repeat(np.arange(len(rows)), counts)
    starts = np.cumsum(counts) - counts
    sizes = _read_sizes(rows, signatures)
    failure = [
        kind or "error" if status == "failed" else None
        for status, kind in zip(
            signatures["status"].to_pylist(), signatures["error_type"].to_pylist(), strict=True
        )
    ]
    return ShardFacts(
        first_row=first_row,
        image_ids=rows["image_id"].to_pylist(),
        sizes=sizes,
        failure=failure,
        image_flags=_flag_images(signatures, sizes),
        is_annotated=column.is_valid().to_numpy(zero_copy_only=False),
        object_counts=counts,
        boxes=boxes,
        label=label,
        image=image,
        position=np.arange(len(boxes)) - np.repeat(starts, counts),
        is_ignored=difficult | crowd,
        box_flags=find_suspicious_boxes(boxes, label, image, sizes, crowd),
    )


def _number_labels(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    number = {name: index for index, name in enumerate(classes)}
    unknown = next((label for label in labels if label not in number), None)
    if unknown is not None:
        raise UnreadableDataset(
            f"an object is of class {unknown!r:.200}, which the manifest does not list"
        )
    return np.array([number[label] for label in labels], np.int64)


def _read_sizes(rows: pa.Table, signatures: pa.Table) -> NDArray[np.int64]:
    """The sizes of the images themselves; of those that cannot be read, what the manifest states."""
    sides = []
    for name in ("width", "height"):
        own, stated = (
            table[name].combine_chunks().fill_null(0).to_numpy(zero_copy_only=False)
            for table in (signatures, rows)
        )
        sides.append(np.where(own > 0, own, stated))
    return np.stack(sides, axis=1).astype(np.int64)


def _flag_images(signatures: pa.Table, sizes: NDArray[np.int64]) -> Flags:
    brightness, contrast = (
        signatures[name].combine_chunks().to_numpy(zero_copy_only=False).astype(np.float64)
        for name in ("brightness", "contrast")
    )
    is_failed = np.array([status == "failed" for status in signatures["status"].to_pylist()], bool)
    is_flat = ~is_failed & (contrast < FLAT_CONTRAST)
    is_black = is_flat & (brightness < BLACK)
    shorter, longer = sizes.min(axis=1), sizes.max(axis=1)
    return {
        "failed": is_failed,
        "black": is_black,
        "flat": is_flat & ~is_black,
        "long": (shorter > 0) & (longer >= LONG_ASPECT * shorter),
        "small": (shorter > 0) & (shorter < SHORT_SIDE),
    }
