"""The galleries of the cells of the confusion matrix, by the rule of `analysis.confusion`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from pipeline.analysis.confusion import AssignedDetections, ConfusionCounts, find_undetected
from pipeline.report.match_rows import MatchRows
from pipeline.report.plan import Categories, Category, GalleryPlan, Split

BACKGROUND = -1
"""Position of the background among the rows and columns of the matrix."""

_ITEMS_OF_A_CELL = 36


def name_cell(object_class: int, detection_class: int) -> str:
    """The key of the gallery of a cell."""
    names = ["none" if k == BACKGROUND else str(k) for k in (object_class, detection_class)]
    return f"confusion-{names[0]}-{names[1]}"


class _Cells(Sequence[Category]):
    """The cells with detections, row by row; made one by one, since their number is classes squared."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes

    def __len__(self) -> int:
        return (len(self.classes) + 1) ** 2

    @overload
    def __getitem__(self, index: int) -> Category: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Category]: ...
    def __getitem__(self, index: int | slice) -> Category | Sequence[Category]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row, column = divmod(index, len(self.classes) + 1)
        label = self.classes[column]
        if row == len(self.classes):
            return Category(
                name_cell(BACKGROUND, column),
                f"{label} detected where nothing is",
                "detections",
                "Detections that overlap no object enough, or one that a better detection has.",
            )
        own = row == column
        title = (
            f"{label} detected as {label}" if own else f"{self.classes[row]} detected as {label}"
        )
        description = "The best detection of each object, of whatever class."
        return Category(name_cell(row, column), title, "detections", description)


def build_confusion_splits(plan: GalleryPlan) -> tuple[Split, Split]:
    """The cells with detections, and the objects without one."""
    detected = Split(
        "confusion",
        _Cells(plan.classes),
        _assign_cells,
        is_by_class=False,
        capacity=_ITEMS_OF_A_CELL,
    )
    undetected = Split(
        "confusion-missed",
        tuple(
            Category(
                name_cell(k, BACKGROUND),
                f"{label} without a detection of any class",
                "objects",
            )
            for k, label in enumerate(plan.classes)
        ),
        _assign_undetected,
        is_by_class=False,
        capacity=_ITEMS_OF_A_CELL,
    )
    return detected, undetected


def _assign_cells(rows: MatchRows, plan: GalleryPlan) -> Categories:
    side = len(plan.classes) + 1
    assigned = _assign(rows, plan)
    row_of_class = np.append(rows.class_positions, side - 1)
    cells = np.full(len(rows.score), -1)
    cells[assigned.position] = row_of_class[assigned.row] * side + rows.class_id[assigned.position]
    return cells


def _assign_undetected(rows: MatchRows, plan: GalleryPlan) -> Categories:
    assigned = _assign(rows, plan)
    is_winner = assigned.row < len(rows.part_classes)
    undetected = find_undetected(rows.matches, assigned.position[is_winner])
    classes = np.full(len(rows.score), -1)
    classes[undetected] = rows.class_id[undetected]
    return classes


def _assign(rows: MatchRows, plan: GalleryPlan) -> AssignedDetections:
    """The detections of at least the report's score that have a cell."""
    counts = ConfusionCounts(rows.part_classes, plan.confusion_iou)
    position, row = counts.assign(rows.matches)
    is_counted = rows.score[position] >= plan.min_score
    return AssignedDetections(position[is_counted], row[is_counted])
