"""The CSV of boxes of Open Images, as a table in memory."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline import uris
from pipeline.errors import UnreadableDataset
from pipeline.sources.csv_rows import read_csv_rows
from pipeline.sources.scalars import read_number
from pipeline.sources.tally import Repair

_SIDES = ("XMin", "YMin", "XMax", "YMax")
_REQUIRED = ("ImageID", "LabelName", *_SIDES)
_FLAGS = {"0": 0, "1": 1, "-1": -1, "": 0}
"""Open Images' flags: no, yes, not known; a file without the column has none."""


@dataclass
class BoxTable:
    """All boxes of the CSV, 25 bytes each, and the images in the order of their first box."""

    images: dict[str, int] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    """Why an image is invalid, by its number."""
    labels: dict[str, int] = field(default_factory=dict)
    image_numbers: array[int] = field(default_factory=lambda: array("i"))
    label_numbers: array[int] = field(default_factory=lambda: array("i"))
    sides: array[float] = field(default_factory=lambda: array("f"))
    """Left, top, right and bottom of each box, as shares of the image's sides."""
    groups: array[int] = field(default_factory=lambda: array("b"))
    """For each box whether it is one of a group: 1 yes, 0 no, -1 not known."""

    def group_by_image(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows by image, in the file's order within one, and where each image's begin."""
        numbers = np.array(self.image_numbers, np.int32)
        counts = np.bincount(numbers, minlength=len(self.images))
        return np.argsort(numbers, kind="stable"), np.concatenate([[0], np.cumsum(counts)])


def read_boxes(uri: str, names: Mapping[str, str] | None) -> tuple[BoxTable, list[Repair]]:
    """Read the boxes of the CSV; a line that names no image is left out, as one of the repairs.

    Args:
        uri: the file, in any store.
        names: display names by label name; a line with another label makes its image invalid. None allows
            all labels.

    Raises:
        UnreadableDataset: the file is not CSV, lacks a column or is empty.
        StorageError: it cannot be read.
    """
    where = uris.redact_uri(uri)
    rows = read_csv_rows(uri)
    _, header = next(rows, (0, []))
    columns = _read_header(header, where)
    table, malformed = BoxTable(), list[Repair]()
    image_at, group_at = columns["ImageID"], columns.get("IsGroupOf")
    for number, cells in rows:
        image_id = cells[image_at].strip() if image_at < len(cells) else ""
        if not image_id:
            detail = f"{where}, line {number} has no ImageID"
            malformed.append(Repair("line", "malformed: left out", detail, is_loss=True))
            continue
        image = table.images.setdefault(image_id, len(table.images))
        place = f"{where}, line {number} (image {image_id})"
        try:
            _check_line(cells, len(header), place)
            label = _read_label(cells[columns["LabelName"]], names, place)
            sides = [_read_side(cells[columns[name]], name, place) for name in _SIDES]
            group = _read_group(cells[group_at], place) if group_at is not None else 0
        except UnreadableDataset as error:
            table.faults.setdefault(image, str(error))
            continue
        table.image_numbers.append(image)
        table.label_numbers.append(table.labels.setdefault(label, len(table.labels)))
        table.sides.extend(sides)
        table.groups.append(group)
    if not table.images:
        raise UnreadableDataset(f"{where} holds no boxes")
    return table, malformed


def _read_header(header: Sequence[str], where: str) -> dict[str, int]:
    """The place of each column."""
    columns = {name.strip(): index for index, name in enumerate(header)}
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        shown = f"its first line has {', '.join(header):.200}" if header else "the file is empty"
        raise UnreadableDataset(f"{where} has no column {', '.join(missing)}: {shown}")
    return columns


def _check_line(cells: Sequence[str], columns: int, place: str) -> None:
    if len(cells) != columns:
        raise UnreadableDataset(f"{place} has {len(cells)} columns, and the first line {columns}")


def _read_label(text: str, names: Mapping[str, str] | None, place: str) -> str:
    label = text.strip()
    if names is not None and label not in names:
        raise UnreadableDataset(
            f"{place}: LabelName {label!r:.60} is not among the {len(names)} classes"
        )
    return label


def _read_side(text: str, name: str, place: str) -> float:
    # nearly all texts are plain decimals, which need no pattern
    return (
        float(text)
        if text.isascii() and text.replace(".", "", 1).isdecimal()
        else read_number(text, name, place)
    )


def _read_group(text: str, place: str) -> int:
    if text.strip() not in _FLAGS:
        raise UnreadableDataset(f"{place}: IsGroupOf is {text!r:.60}, expected 0, 1 or -1")
    return _FLAGS[text.strip()]
