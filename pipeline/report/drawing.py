"""What is drawn on the images that galleries chose: boxes with their roles, and the region to show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.gallery import Crop, DrawnBox, Role

DRAWN_COLUMNS = (
    "row",
    "kind",
    "label",
    "score",
    "x1",
    "y1",
    "x2",
    "y2",
    "rank",
    "iou",
    "object_index",
    "object_x1",
    "object_y1",
    "object_x2",
    "object_y2",
    "object_difficult",
    "object_crowd",
    "nearest_index",
    "nearest_label",
    "nearest_iou",
    "true_all",
    "ignored_all",
)
"""The columns of the matches table that boxes are drawn from."""

THUMBNAIL_SIDE = 360
"""Pixels of a thumbnail's longer side."""
SMALLEST_SHOWN = 56
"""Pixels that the longer side of a gallery's box must have in a thumbnail of the whole image."""
_SURROUNDINGS = 4.0
"""Sides of a crop in longer sides of the box that it shows."""
_ASPECT = 4 / 3
"""Width by height of a crop, as the pages show it."""
_SMALLEST_CROP = 64


@dataclass(frozen=True)
class MatchBoxes:
    """One row of the matches table, as the boxes that it stands for."""

    detection: DrawnBox | None
    object: DrawnBox | None
    """The object that the row stands for: the detected one of a true detection, or that of an object row."""
    object_index: int | None
    """Of that object, among the image's objects."""
    nearest_index: int | None
    """The object of any class that a detection overlaps most; None if it overlaps none."""
    nearest_label: str | None
    nearest_iou: float | None


_PlainRow = tuple[int, MatchBoxes, DrawnBox | None, DrawnBox | None]
"""A row's place, the row, and its object and detection as they are drawn if they are not in focus."""


@dataclass(frozen=True)
class _PlainBoxes:
    """The boxes of an image for one lowest score."""

    by_row: list[_PlainRow]
    sorted: tuple[DrawnBox, ...]


@dataclass(frozen=True)
class ImageBoxes:
    """All rows of one image, in the order of the matches table."""

    rows: tuple[MatchBoxes, ...]

    def draw(
        self, position: int, min_score: float, is_object: bool = False
    ) -> tuple[DrawnBox, ...]:
        """List the boxes of a gallery's item, those in focus last, so that they lie on top.

        Args:
            position: the row that the gallery shows; -1 for the image as a whole.
            min_score: the lowest score of other detections.
            is_object: whether the gallery shows the row's object rather than its detection.
        """
        focus_object = self._find_object(position)
        if focus_object is None and not 0 <= position < len(self.rows):
            return self._list_boxes(min_score).sorted
        boxes: list[DrawnBox] = []
        for index, row, drawn_object, detection in self._list_boxes(min_score).by_row:
            if drawn_object is not None:
                is_focus = row.object is focus_object
                boxes.append(replace(drawn_object, is_focus=True) if is_focus else drawn_object)
            if index == position and row.detection is not None:
                is_low = detection is None
                role = "ignored" if is_low and is_object else row.detection.role
                boxes.append(replace(row.detection, role=role, is_focus=not is_object))
            elif detection is not None:
                boxes.append(detection)
        return tuple(sorted(boxes, key=_order_for_drawing))

    def _list_boxes(self, min_score: float) -> _PlainBoxes:
        """What is drawn if nothing is in focus; many galleries show the same image."""
        if min_score not in self._plain:
            rows = [_draw_row(index, row, min_score) for index, row in enumerate(self.rows)]
            boxes = [box for _, _, *own in rows for box in own if box is not None]
            ordered = tuple(sorted(boxes, key=_order_for_drawing))
            self._plain[min_score] = _PlainBoxes(rows, ordered)
        return self._plain[min_score]

    @cached_property
    def _plain(self) -> dict[float, _PlainBoxes]:
        return {}

    def find_focus(self, position: int) -> tuple[DrawnBox, ...]:
        """The boxes that a gallery's item must show well; none for the image as a whole."""
        if not 0 <= position < len(self.rows):
            return ()
        boxes = (self.rows[position].detection, self._find_object(position))
        return tuple(box for box in boxes if box is not None)

    def describe(self, position: int, min_score: float, is_object: bool = False) -> str:
        """What the gallery says about a row beside its label and score; arguments as for `draw`."""
        if not 0 <= position < len(self.rows):
            return ""
        row = self.rows[position]
        if row.detection is None:
            return ""
        score = row.detection.score or 0.0
        if is_object:
            name = "detected with score" if score >= min_score else "best detection has only score"
            return f"{name} {score:.2f}"
        if row.detection.role != "false":
            return ""
        if row.nearest_iou is None:
            return "overlaps no object"
        return f"IoU {row.nearest_iou:.2f} with the nearest object, {row.nearest_label}"

    def _find_object(self, position: int) -> DrawnBox | None:
        """The object that a row stands for, or that its detection overlaps most."""
        if not 0 <= position < len(self.rows):
            return None
        chosen = self.rows[position]
        if chosen.object is not None:
            return chosen.object
        for row in self.rows:
            if row.object_index is not None and row.object_index == chosen.nearest_index:
                return row.object
        return None


def _draw_row(index: int, row: MatchBoxes, min_score: float) -> _PlainRow:
    is_high = row.detection is not None and (row.detection.score or 0.0) >= min_score
    drawn_object = row.object
    if drawn_object is not None and row.detection is not None and not is_high:
        drawn_object = replace(drawn_object, role="missed")
    return index, row, drawn_object, row.detection if is_high else None


def _order_for_drawing(box: DrawnBox) -> tuple[bool, bool, float]:
    return box.is_focus, box.score is not None, box.score or 0.0


def read_image_boxes(table: pa.Table, rows: Iterable[int]) -> dict[int, ImageBoxes]:
    """Read the boxes of some images from a matches part.

    Args:
        table: the part, with DRAWN_COLUMNS.
        rows: the images' rows in the manifest; one without rows in the part has no boxes.
    """
    chosen = sorted(set(rows))
    is_chosen = pc.is_in(table.column("row"), value_set=pa.array(chosen, pa.int64()))
    boxes: dict[int, list[MatchBoxes]] = {row: [] for row in chosen}
    for values in table.select(DRAWN_COLUMNS).filter(is_chosen).to_pylist():
        boxes[values["row"]].append(_read_boxes(values))
    return {row: ImageBoxes(tuple(image_boxes)) for row, image_boxes in boxes.items()}


def _read_boxes(row: Mapping[str, Any]) -> MatchBoxes:
    nearest = (row["nearest_index"], row["nearest_label"], row["nearest_iou"])
    if row["kind"] != "detection":
        role: Role = "missed" if row["kind"] == "missed" else "ignored"
        return MatchBoxes(None, _read_object(row, role), row["object_index"], *nearest)
    role = _find_role(row)
    corners = [row[name] for name in ("x1", "y1", "x2", "y2")]
    x1, y1, x2, y2 = corners
    detection = DrawnBox(role, row["label"], x1, y1, x2, y2, row["score"], row["iou"])
    if role != "true":
        return MatchBoxes(detection, None, None, *nearest)
    return MatchBoxes(detection, _read_object(row, "truth"), row["object_index"], *nearest)


def _find_role(row: Mapping[str, Any]) -> Role:
    if row["true_all"] is None:
        return "detected"
    if row["true_all"] & 1:
        return "true"
    return "ignored" if row["ignored_all"] & 1 or row["rank"] >= 100 else "false"


def _read_object(row: Mapping[str, Any], role: Role) -> DrawnBox:
    is_ignored = row["object_difficult"] or row["object_crowd"]
    corners = [row[f"object_{name}"] for name in ("x1", "y1", "x2", "y2")]
    return DrawnBox("ignored" if is_ignored else role, row["label"], *corners)


def choose_crop(focus: Sequence[DrawnBox], width: int, height: int) -> Crop:
    """Choose the region of an image to show: all of it, or the surroundings of a small box.

    Args:
        focus: the boxes to show.
        width: of the image, in pixels.
        height: of the image.
    """
    whole = Crop(0, 0, width, height, is_whole=True)
    if not focus:
        return whole
    left, top = min(box.x1 for box in focus), min(box.y1 for box in focus)
    right, bottom = max(box.x2 for box in focus), max(box.y2 for box in focus)
    smallest = min(max(box.x2 - box.x1, box.y2 - box.y1) for box in focus)
    if smallest * THUMBNAIL_SIDE >= SMALLEST_SHOWN * max(width, height):
        return whole
    side = max(_SURROUNDINGS * max(right - left, bottom - top), _SMALLEST_CROP)
    if side >= max(width, height):
        return whole
    crop_width = min(width, round(side * _ASPECT**0.5))
    crop_height = min(height, round(side / _ASPECT**0.5))
    return Crop(
        _place((left + right) / 2, crop_width, width),
        _place((top + bottom) / 2, crop_height, height),
        crop_width,
        crop_height,
    )


def _place(centre: float, length: int, limit: int) -> int:
    """Where a stretch of this length around a centre begins, moved inside 0 to `limit`."""
    return int(min(max(0, round(centre - length / 2)), limit - length))
