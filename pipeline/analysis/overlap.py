"""Best overlaps of objects with their image's first n proposals, and the scores computed from them.

An object's overlap under a budget of n boxes is its best IoU with the image's first n proposals.
Recall is the share of objects with an overlap of at least a threshold; average recall is its mean over
IoU 0.50:0.05:0.95 (Hosang et al., PAMI 2016); ABO is the mean overlap over a class's objects and MABO the
mean of ABO over classes (Uijlings et al., IJCV 2013, section 5.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry

BUDGETS: tuple[int | None, ...] = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, None)
"""Numbers of best boxes that are scored; None means all."""

THRESHOLDS = np.arange(50, 100, 5) / 100
"""0.50, 0.55, ... 0.95."""

_AT_70 = 4

_SIDES = (32, 96)  # COCO's small, medium, large
_SHARES = (0.01, 0.1)  # of the image's area

SIZES = (
    "small, < 32² pixels",
    "medium, < 96² pixels",
    "large, ≥ 96² pixels",
    "< 1 % of image",
    "1-10 % of image",
    "≥ 10 % of image",
)


@dataclass(frozen=True)
class RecallPoint:
    """Recall of some objects within a budget of boxes per image; None if there are no objects."""

    boxes: int | None
    """The budget; None means all boxes."""
    recall50: float | None
    recall70: float | None
    average_recall: float | None
    """Mean recall over IoU 0.50:0.05:0.95."""
    best_overlap: float | None
    """Mean best IoU: ABO if the objects are of one class."""
    by_threshold: tuple[float, ...]
    """Recall at IoU 0.50, 0.55, ... 0.95."""


@dataclass(frozen=True)
class GroupRecall:
    """The objects of one class or of one size."""

    name: str
    objects: int
    curve: tuple[RecallPoint, ...]
    """One point for each of BUDGETS."""


def compute_best_overlaps(
    objects: NDArray[np.floating],
    proposals: NDArray[np.floating],
    budgets: tuple[int | None, ...] = BUDGETS,
) -> NDArray[np.float64]:
    """Compute each object's best IoU with the first n proposals, for every budget n.

    Args:
        objects: `(G, 4)`.
        proposals: `(N, 4)`, best first.
        budgets: numbers of proposals; None means all.

    Returns:
        float64 `(G, len(budgets))`.
    """
    if len(objects) == 0 or len(proposals) == 0:
        return np.zeros((len(objects), len(budgets)))
    last = [min(budget or len(proposals), len(proposals)) for budget in budgets]
    best = np.zeros((len(objects), len(budgets)))
    running, start = np.zeros(len(objects)), 0
    for stop in sorted(set(last)):  # each proposal is compared once
        overlaps, _ = geometry.find_best_overlaps(
            objects.astype(np.float64), proposals[start:stop].astype(np.float64)
        )
        running, start = np.maximum(running, overlaps), stop
        best[:, [index for index, end in enumerate(last) if end == stop]] = running[:, None]
    return best


class OverlapSums:
    """Sums over the objects of each of several groups."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.objects = np.zeros(len(names), np.int64)
        self.overlap_sums = np.zeros((len(names), len(BUDGETS)))
        self.hits = np.zeros((len(names), len(BUDGETS), len(THRESHOLDS)), np.int64)

    def add(self, group: NDArray[np.int64], overlaps: NDArray[np.float64]) -> None:
        """Add objects with their group `(G,)`, -1 for none, and their best overlaps `(G, budgets)`."""
        group, overlaps = group[group >= 0], overlaps[group >= 0]
        np.add.at(self.objects, group, 1)
        np.add.at(self.overlap_sums, group, overlaps)
        np.add.at(self.hits, group, overlaps[:, :, None] >= THRESHOLDS)

    def summarize_groups(self) -> tuple[GroupRecall, ...]:
        """Return each group's curve."""
        return tuple(
            GroupRecall(name, int(count), _build_curve(int(count), hits, overlap_sums))
            for name, count, hits, overlap_sums in zip(
                self.names, self.objects, self.hits, self.overlap_sums, strict=True
            )
        )

    def summarize_all(self) -> tuple[RecallPoint, ...]:
        """Return the curve of all groups' objects together."""
        count = int(self.objects.sum())
        return _build_curve(count, self.hits.sum(axis=0), self.overlap_sums.sum(axis=0))

    def average_groups(self) -> tuple[float | None, ...]:
        """Return, for each budget, the mean over groups of their mean overlap: MABO if they are classes."""
        has_objects = self.objects > 0
        if not has_objects.any():
            return (None,) * len(BUDGETS)
        means = (self.overlap_sums[has_objects] / self.objects[has_objects, None]).mean(axis=0)
        return tuple(means.tolist())


def assign_size_groups(
    areas: NDArray[np.float64], image_area: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions in SIZES, absolute and relative `(G,)`, of objects with some areas `(G,)`.

    The relative position is -1 if the image's area is NaN.
    """
    absolute = np.searchsorted(np.square(_SIDES), areas, side="right")
    if np.isnan(image_area):
        return absolute, np.full(len(areas), -1)
    relative = np.searchsorted(_SHARES, areas / image_area, side="right")
    return absolute, len(_SIDES) + 1 + relative


def _build_curve(
    objects: int, hits: NDArray[np.int64], overlap_sums: NDArray[np.float64]
) -> tuple[RecallPoint, ...]:
    if objects == 0:
        return tuple(RecallPoint(budget, None, None, None, None, ()) for budget in BUDGETS)
    recall = hits / objects
    return tuple(
        RecallPoint(
            boxes=budget,
            recall50=float(recall[index, 0]),
            recall70=float(recall[index, _AT_70]),
            average_recall=float(recall[index].mean()),
            best_overlap=float(overlap_sums[index] / objects),
            by_threshold=tuple(recall[index].tolist()),
        )
        for index, budget in enumerate(BUDGETS)
    )
