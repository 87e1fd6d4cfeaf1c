"""What a source's datasets come to once they are a manifest, and what must hold of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from pipeline.manifest_writer import write_manifest
from pipeline.manifests import open_manifest
from pipeline.sources.dataset import Dataset
from pipeline.sources.options import SourceOptions
from pipeline.sources.tally import Tally

OPTIONS = SourceOptions(max_invalid=1.0, check_sizes=True)
"""One bad image of a small dataset is more than 5 %; here it is to be left out and counted."""
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class SourceAnswer:
    """The manifest that `prepare` would write."""

    rows: list[dict[str, Any]]
    classes: tuple[str, ...] | None
    tally: Tally

    @property
    def skipped(self) -> int:
        """Images, boxes and files that the tally counts as left out or repaired."""
        tally = self.tally
        return tally.invalid_images + tally.repairs.total() + tally.files_left_out.total()


class ExpectedObject(NamedTuple):
    """An object as an input states it, before it is clipped."""

    label: str
    box: tuple[float, float, float, float] | None
    """Half open; None if the input leaves it to the reader."""
    difficult: bool
    crowd: bool


def build_manifest(dataset: Dataset, folder: Path) -> SourceAnswer:
    """Write the dataset's manifest into the folder and read it back."""
    uri = str(folder / "manifest.parquet")
    write_manifest(uri, dataset.rows, dataset.classes, dataset.category_ids)
    manifest = open_manifest(uri)
    rows = manifest.read(0, manifest.rows).to_pylist()
    return SourceAnswer(rows, manifest.classes, dataset.tally)


def find_fault_in_rows(
    rows: Sequence[dict[str, Any]], classes: Sequence[str] | None, *, sized: bool = True
) -> str | None:
    """What is wrong with rows of a manifest, whatever they were made from.

    Args:
        rows: the columns of `schema.MANIFEST`.
        classes: the labels; None allows any.
        sized: no row may lack its size.
    """
    ids = [row["image_id"] for row in rows]
    if None in ids or len(set(ids)) < len(ids):
        return f"the image ids are not unique: {ids}"
    for row in rows:
        name, sides = f"image {row['image_id']!r:.60}", (row["width"], row["height"])
        if not row["uri"]:
            return f"{name} has no URI"
        if (sized and None in sides) or any(side is not None and side < 1 for side in sides):
            return f"{name} is {sides[0]}x{sides[1]}"
        for item in row["objects"] or ():
            fault = find_fault_in_box([item[corner] for corner in ("x1", "y1", "x2", "y2")], *sides)
            if fault is not None:
                return f"{name}: {fault}"
            if classes is not None and item["label"] not in classes:
                return f"{name}: the label {item['label']!r:.60} is not among {classes}"
    return None


def find_fault_in_box(
    box: Sequence[float | None], width: float | None = None, height: float | None = None
) -> str | None:
    """Why corners are no box of positive area inside an image of this size, as far as it is known."""
    if any(side is None or not math.isfinite(side) for side in box):
        return f"the box {box} is not finite"
    x1, y1, x2, y2 = (float(side or 0) for side in box)
    if not (x2 > x1 and y2 > y1):
        return f"the box {box} has no positive area"
    beyond_x = width is not None and (x1 < -_TOLERANCE or x2 > width + _TOLERANCE)
    beyond_y = height is not None and (y1 < -_TOLERANCE or y2 > height + _TOLERANCE)
    return f"the box {box} reaches out of {width}x{height}" if beyond_x or beyond_y else None


def find_wrong_size(row: dict[str, Any]) -> str | None:
    """Whether a row's size is another than that of its image."""
    with Image.open(row["uri"]) as image:
        if image.size != (row["width"], row["height"]):
            return f"{row['uri']} is {image.size}, its row says {row['width']}x{row['height']}"
    return None


def find_wrong_objects(row: dict[str, Any], expected: Sequence[ExpectedObject]) -> str | None:
    """Whether a row's objects are not those that the input states, clipped to the image."""
    clipped = [
        (item, item.box and clip(item.box, row["width"], row["height"])) for item in expected
    ]
    inside = [(item, box) for item, box in clipped if box is not None or item.box is None]
    objects = row["objects"] or []
    if len(objects) != len(inside) and all(item.box is not None for item in expected):
        return f"image {row['image_id']!r} has {len(objects)} objects, the input {len(inside)}"
    for stored, (item, box) in zip(objects, inside, strict=False):
        corners = [stored[corner] for corner in ("x1", "y1", "x2", "y2")]
        if box is not None and any(
            abs(a - b) > _TOLERANCE + 1e-6 * abs(b) for a, b in zip(corners, box, strict=True)
        ):
            return f"image {row['image_id']!r} has the box {corners}, the input {item.box}"
        flags = (stored["label"], stored["difficult"], stored["crowd"])
        if flags != (item.label, item.difficult, item.crowd):
            return f"image {row['image_id']!r} has {flags}, the input {item}"
    return None


def clip(
    box: tuple[float, float, float, float], width: float, height: float
) -> tuple[float, float, float, float] | None:
    """The part of a box that is inside an image; None if there is none, or the box is inverted."""
    if not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
        return None
    x1, y1, x2, y2 = max(0.0, box[0]), max(0.0, box[1]), min(width, box[2]), min(height, box[3])
    return (x1, y1, x2, y2) if x2 - x1 > _TOLERANCE and y2 - y1 > _TOLERANCE else None


def is_true_word(value: Any) -> bool:
    """Whether a flag as tools write it says yes."""
    if isinstance(value, str):
        return value.strip().lower() in ("1", "1.0", "true", "t", "yes", "y", "on")
    return isinstance(value, bool | int | float) and value == 1
