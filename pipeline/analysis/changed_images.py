"""The images on which two runs differ, by class, type of error, size, and cell of the confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.confusion import ConfusionCounts, find_undetected
from pipeline.analysis.match_outcomes import find_counted, find_objects, find_true
from pipeline.analysis.matching import ERRORS, Matches
from pipeline.analysis.object_sizes import SIZES, classify_sizes

LISTED = 24
"""Images that are listed of each group."""
ERROR_KINDS = ("false", *ERRORS[:-1], "missed")
"""Kinds of errors that are counted: all false detections, those of TIDE's types, missed objects."""

GroupKind = Literal["class", "error", "size", "cell"]
Cell = tuple[int, int]
"""Classes of the object and of the detection in the confusion matrix; K is the background."""


@dataclass(frozen=True)
class ImageChange:
    """An image on which the runs make another number of errors: false detections and missed objects."""

    image_id: str
    row: int
    """In the manifest."""
    first: int
    second: int


@dataclass(frozen=True)
class ChangedGroup:
    """The images on which the number of some errors differs."""

    kind: GroupKind
    position: int
    """Of the class, of the kind among ERROR_KINDS, of the size among SIZES, or of the cell."""
    images: int
    """How many images differ."""
    changes: NDArray[np.int64]
    """`(N, 3)` row in the manifest, errors of the first and of the second run; the largest changes first."""


def find_changed_groups(
    runs: Sequence[tuple[Matches, float]], classes: Sequence[str], cells: Sequence[Cell]
) -> list[ChangedGroup]:
    """Find the images that differ, by group; groups without such images are left out.

    Args:
        runs: the matches of both runs over the same images, and the lowest score that counts in each.
        classes: the labels, in the order of `class_id`.
        cells: the cells of the confusion matrix that are groups.
    """
    pieces = [
        [np.concatenate(arrays) for arrays in zip(*_list_errors(*run, classes, cells), strict=True)]
        for run in runs
    ]
    rows = np.unique(np.concatenate([row for _, row in pieces]))
    codes = [group * len(rows) + np.searchsorted(rows, row) for group, row in pieces]
    differing, inverse = np.unique(np.concatenate(codes), return_inverse=True)
    first, second = (
        np.bincount(part, minlength=len(differing)) for part in np.split(inverse, [len(codes[0])])
    )
    is_changed = first != second
    differing, first, second = differing[is_changed], first[is_changed], second[is_changed]
    group, image = np.divmod(differing, max(len(rows), 1))
    order = np.lexsort((image, -np.abs(second - first), group))
    group, changes = group[order], np.stack([rows[image], first, second], axis=1)[order]
    names = _name_groups(len(classes), len(cells))
    groups = []
    for own in np.unique(group).tolist():
        start, end = np.searchsorted(group, [own, own + 1])
        listed = changes[start : min(end, start + LISTED)].astype(np.int64)
        kind, position = names[own]
        groups.append(ChangedGroup(kind, position, int(end - start), listed))
    return groups


def _name_groups(classes: int, cells: int) -> list[tuple[GroupKind, int]]:
    return [
        *(("class", k) for k in range(classes)),
        *(("error", k) for k in range(len(ERROR_KINDS))),
        *(("size", k) for k in range(len(SIZES))),
        *(("cell", k) for k in range(cells)),
    ]


def _list_errors(
    matches: Matches, score: float, classes: Sequence[str], cells: Sequence[Cell]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the group and the image's row of each error, of each kind of group."""
    is_high = matches.score >= np.float32(score)
    is_true = find_true(matches)
    is_false = find_counted(matches) & ~is_true & is_high
    is_missed = find_objects(matches) & ~(is_true & is_high)
    rows = np.flatnonzero(is_false | is_missed)
    yield matches.class_id[rows].astype(np.int64), matches.row[rows]
    first = len(classes)
    kinds = [
        is_false,
        *(is_false & (matches.error == k) for k in range(len(ERRORS) - 1)),
        is_missed,
    ]
    for kind, is_error in enumerate(kinds):
        rows = np.flatnonzero(is_error)
        yield np.full(len(rows), first + kind), matches.row[rows]
    rows = np.flatnonzero(is_missed)
    width, height = (
        getattr(matches, f"object_{axis}2")[rows].astype(np.float64)
        - getattr(matches, f"object_{axis}1")[rows]
        for axis in ("x", "y")
    )
    first += len(ERROR_KINDS)
    yield first + classify_sizes(width * height).astype(np.int64), matches.row[rows]
    yield _list_cells(matches, score, classes, cells, first + len(SIZES))


def _list_cells(
    matches: Matches, score: float, classes: Sequence[str], cells: Sequence[Cell], first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The group and the row of each detection and undetected object in one of the cells."""
    side = len(classes) + 1
    numbers = np.full(side * side, -1)
    numbers[[row * side + column for row, column in cells]] = first + np.arange(len(cells))
    position, cell_row = ConfusionCounts(classes).assign(matches)
    is_high = matches.score[position] >= np.float32(score)
    position, cell_row = position[is_high], cell_row[is_high]
    undetected = find_undetected(matches, position[cell_row < len(classes)])
    groups = numbers[
        np.concatenate(
            [
                cell_row * side + matches.class_id[position],
                matches.class_id[undetected].astype(np.int64) * side + len(classes),
            ]
        )
    ]
    rows = matches.row[np.concatenate([position, undetected])]
    return groups[groups >= 0], rows[groups >= 0]
