"""Confusion matrix with background: which label the detections give to objects of each class.

Each detection of at least a score belongs to the object, of whatever label, that it overlaps most, if their
IoU reaches a threshold. Of an object's detections the best scored one is matched with it: the cell
(object's label, detection's label). All other detections are in the row of the background, objects without
detection in the column of the background. Difficult objects and crowds have no cells, and neither have the
detections that belong to them or are inside a crowd of their label, or that a federated annotation cannot
judge.

An object is the only one that its detections can be matched with; other tools (hotcoco, ultralytics) let
the detection that loses an object take another one that it overlaps less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.estimate import Estimate, divide
from pipeline.analysis.match_outcomes import find_excused, find_objects, has_bit
from pipeline.analysis.matching import Matches
from pipeline.analysis.score_levels import COARSE, LevelCounts

if TYPE_CHECKING:
    from pipeline.analysis.resampling import Resampler


_MOST_INTERVALS = 1000


@dataclass(frozen=True)
class ConfusionCell:
    """One cell that is not 0."""

    object: str | None
    """Label of the objects; None is the background: detections without an object."""
    detection: str | None
    """Label of the detections; None is the background: objects without a detection."""
    count: int
    share: Estimate
    """Of the row: of the label's objects, or of the detections without an object. The 1,000 largest cells
    have intervals."""


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often detections of one label show objects of another."""

    classes: tuple[str, ...]
    iou: float
    """The lowest IoU of a detection with its object."""
    score: float
    """The lowest score of a detection that counts."""
    cells: tuple[ConfusionCell, ...]
    """By object's label and detection's label in the order of `classes`, the background last."""

    def to_array(self) -> NDArray[np.int64]:
        """Return the counts `(K + 1, K + 1)`: rows are objects, columns detections, the background last."""
        positions = {name: index for index, name in enumerate(self.classes)}
        array = np.zeros((len(self.classes) + 1,) * 2, np.int64)
        for cell in self.cells:
            row = len(self.classes) if cell.object is None else positions[cell.object]
            column = len(self.classes) if cell.detection is None else positions[cell.detection]
            array[row, column] = cell.count
        return array


class AssignedDetections(NamedTuple):
    """The detections that have a cell, at any score."""

    position: NDArray[np.int64]
    """`(N,)` in the matches."""
    row: NDArray[np.int64]
    """`(N,)` class of the matched object, K for the background."""


class ConfusionCounts:
    """Accepts matches in any order and grouping of whole images.

    Args:
        classes: the labels, in the order of `class_id`.
        iou: the lowest IoU of a detection with its object.
        score: the lowest of a level of `score_levels.COARSE`, from which detections count; None keeps the
            counts of all levels, so that the score can be chosen at the end.
    """

    def __init__(
        self, classes: Sequence[str], iou: float = 0.5, score: float | None = None
    ) -> None:
        self.classes = tuple(classes)
        self.iou = iou
        self.score = score
        self._levels = LevelCounts(1, COARSE)
        self._objects = np.zeros(len(classes), np.int64)

    @property
    def _side(self) -> int:
        return len(self.classes) + 1

    def update(self, matches: Matches) -> None:
        """Add the matches of some images."""
        assigned = self.assign(matches)
        cells = assigned.row * self._side + matches.class_id[assigned.position]
        scores = matches.score[assigned.position]
        if self.score is not None:
            is_above = scores >= np.float32(self.score)
            cells, scores = cells[is_above], np.full(int(is_above.sum()), self.score, np.float32)
        self._levels.update(cells, scores, np.ones_like(cells))
        labels = matches.class_id[find_objects(matches)]
        self._objects += np.bincount(labels, minlength=len(self.classes))

    def merge(self, other: ConfusionCounts) -> None:
        """Add the counts of other images."""
        self._levels.merge(other._levels)
        self._objects += other._objects

    def assign(self, matches: Matches) -> AssignedDetections:
        """Find the detections that have a cell, and the row of the matrix that each belongs to."""
        is_overlapping = matches.nearest_iou >= self.iou  # False for NaN
        is_candidate = matches.is_annotated & matches.is_detection
        is_candidate &= is_overlapping | ~has_bit(matches.ignored_all, 0)
        is_candidate &= ~find_excused(matches)
        candidates = np.flatnonzero(is_candidate)
        row = np.full(len(matches), len(self.classes), np.int64)
        near = np.flatnonzero(is_candidate & is_overlapping)
        if len(near):
            keys = _key_objects(matches.row[near], matches.nearest_index[near])
            best_first = np.lexsort((-matches.score[near], keys))
            _, firsts = np.unique(keys[best_first], return_index=True)
            winners = near[best_first[firsts]]
            row[winners] = matches.nearest_class_id[winners]
            stays = ~_find_ignored(matches, near)
            is_candidate[near] = stays
            candidates = np.flatnonzero(is_candidate)
        return AssignedDetections(candidates, row[candidates])

    def compute(self, score: float, resampler: Resampler | None = None) -> ConfusionMatrix:
        """Compute the matrix of the detections of at least a score.

        Args:
            score: the lowest score that counts; it is lowered to the next of `score_levels.COARSE`.
            resampler: gives the shares their intervals.
        """
        assert self.score is None or self.score == score
        keys, counts = self._levels.sum_groups(score)
        matrix = np.zeros((self._side, self._side), np.int64)
        matrix.flat[keys] = counts[:, 0]
        matrix[:-1, -1] = self._objects - matrix[:-1, :-1].sum(axis=1)
        rows, columns = np.nonzero(matrix)
        totals = matrix.sum(axis=1)
        shares = [divide(matrix[i, j], totals[i]) for i, j in zip(rows, columns, strict=True)]
        if resampler is not None:
            largest = np.argsort(-matrix[rows, columns], kind="stable")[:_MOST_INTERVALS]
            own = self._resample(matrix, rows[largest], columns[largest], score, resampler)
            for place, share in zip(largest.tolist(), own, strict=True):
                shares[place] = share
        names = [*self.classes, None]
        return ConfusionMatrix(
            self.classes,
            self.iou,
            score,
            tuple(
                ConfusionCell(names[i], names[j], int(matrix[i, j]), share)
                for i, j, share in zip(rows, columns, shares, strict=True)
            ),
        )

    def _resample(
        self,
        matrix: NDArray[np.int64],
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        score: float,
        resampler: Resampler,
    ) -> list[Estimate]:
        matches = resampler.matches
        assigned = self.assign(matches)
        is_above = matches.score[assigned.position] >= np.float32(score)
        position, row = assigned.position[is_above], assigned.row[is_above]
        figure_of_cell = np.full(matrix.size, -1)
        figure_of_cell[rows * self._side + columns] = np.arange(len(rows))
        cell = figure_of_cell[row * self._side + matches.class_id[position]]
        has_figure = cell >= 0
        (hits,) = resampler.resample_sums(
            cell[has_figure],
            resampler.image[position[has_figure]],
            np.ones((int(has_figure.sum()), 1)),
            len(rows),
        )
        objects = np.flatnonzero(find_objects(matches))
        is_background = row == len(self.classes)
        (totals,) = resampler.resample_sums(
            np.concatenate([matches.class_id[objects], row[is_background]]),
            resampler.image[np.concatenate([objects, position[is_background]])],
            np.ones((len(objects) + int(is_background.sum()), 1)),
            self._side,
        )
        is_object = row < len(self.classes)
        (detected,) = resampler.resample_sums(
            row[is_object],
            resampler.image[position[is_object]],
            np.ones((int(is_object.sum()), 1)),
            self._side,
        )
        is_missed = columns == len(self.classes)
        hits[is_missed] = totals[rows[is_missed]] - detected[rows[is_missed]]
        return resampler.summarize_ratios(
            matrix[rows, columns], matrix.sum(axis=1)[rows], hits, totals[rows]
        )


def find_undetected(matches: Matches, detected: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the rows that stand for objects in the background's column.

    Args:
        matches: of whole images.
        detected: positions of the detections that have the cell of an object.
    """
    winners = _key_objects(matches.row[detected], matches.nearest_index[detected])
    objects = np.flatnonzero(find_objects(matches))
    keys = _key_objects(matches.row[objects], matches.object_index[objects])
    return objects[~np.isin(keys, winners)]


def _key_objects(row: NDArray[np.int64], index: NDArray[np.int32]) -> NDArray[np.int64]:
    return row << 20 | index


def _find_ignored(matches: Matches, near: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some detections belong to an object that does not count."""
    ignored = np.flatnonzero(
        matches.is_annotated
        & ~matches.is_detection
        & (matches.object_difficult | matches.object_crowd)
    )
    keys = _key_objects(matches.row[ignored], matches.object_index[ignored])
    wanted = _key_objects(matches.row[near], matches.nearest_index[near])
    return np.isin(wanted, keys)


def build_confusion_table(matrix: ConfusionMatrix) -> pa.Table:
    """One row per cell that is not 0; a null label is the background."""
    return pa.Table.from_pylist(
        [
            {
                "object": cell.object,
                "detection": cell.detection,
                "count": cell.count,
                "share": cell.share.value,
                "low": cell.share.low,
                "high": cell.share.high,
            }
            for cell in matrix.cells
        ],
        pa.schema(
            [
                ("object", pa.string()),
                ("detection", pa.string()),
                ("count", pa.int64()),
                *((name, pa.float64()) for name in ("share", "low", "high")),
            ]
        ),
    )
