"""Missed by the proposals or by the head: how many missed objects no proposal covered.

A proposal covers an object if their IoU is at least 0.5. An object is missed at a score if no true
detection (COCO's rule at IoU 0.5) of at least that score detects it. A missed object that no proposal
covers is missed by the proposals; the others are missed by the head, which saw a proposal of them: it
scored it too low, gave it another label, or placed its box badly.

A perfect head detects each object that a proposal covers once, at the top score, and nothing else. Its
precision is 1 up to the share c of covered objects and 0 behind, so its AP50 is the share of COCO's 101
recalls that are at most c; its mAP50 is the mean over classes with objects. Box regression can move a box
onto an object that no proposal covers, so a real head may detect more than these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.estimate import Estimate, divide
from pipeline.analysis.match_outcomes import find_objects
from pipeline.analysis.matching import Matches
from pipeline.analysis.object_sizes import SIZES, classify_sizes
from pipeline.analysis.score_levels import COARSE, LevelCounts

if TYPE_CHECKING:
    from pipeline.analysis.resampling import Resampler

_COLUMNS = 3  # objects; covered at 0.5; covered at 0.7
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class MissedObjects:
    """The objects of one class and size, and why some are missed."""

    label: str | None
    """None for all classes together."""
    size: str | None
    """`small`, `medium` or `large` by COCO's areas; None for all sizes together."""
    objects: int
    """Objects that count: neither difficult nor crowds."""
    missed: int
    """Objects without a true detection of at least the score."""
    scored_low: int
    """Those of them that have a true detection of a lower score."""
    missed_by_proposals: int | None
    """Missed objects that no proposal covers; None without proposals."""
    missed_by_head: int | None
    """Missed objects that a proposal covers; None without proposals."""
    proposal_share: Estimate
    """Of the missed objects, the share that no proposal covers."""
    recall: Estimate
    """The share of the objects that are not missed."""
    proposal_recall50: Estimate
    """The share of the objects that a proposal covers at IoU 0.5."""
    proposal_recall70: Estimate
    """The same at IoU 0.7."""


@dataclass(frozen=True)
class PerfectHead:
    """AP that a perfect head would reach on these proposals; None without proposals or objects."""

    map50: float | None
    """The mean over classes of AP at IoU 0.5."""
    map70: float | None
    """The same at IoU 0.7."""
    ap50_per_class: dict[str, float | None]


@dataclass(frozen=True)
class MissAnalysis:
    """Why objects are missed, in total, per class and per size."""

    score: float
    """The lowest score that counts."""
    overall: MissedObjects
    per_class: tuple[MissedObjects, ...]
    per_size: tuple[MissedObjects, ...]
    per_class_and_size: tuple[MissedObjects, ...]
    """Those with objects."""
    perfect_head: PerfectHead | None
    """None without proposals."""


class MissCounts:
    """Accepts matches in any order and grouping; the score is chosen at the end.

    Args:
        classes: the labels, in the order of `class_id`.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        cells = len(classes) * len(SIZES)
        self._detected = LevelCounts(_COLUMNS, COARSE)
        self._undetected = np.zeros((cells, _COLUMNS), np.int64)
        self._unknown = 0
        """Objects of which it is unknown whether a proposal covers them."""

    def update(self, matches: Matches) -> None:
        """Add the matches of some images."""
        objects, cell, values = _describe_objects(matches)
        self._unknown += int((matches.covered50[objects] < 0).sum())
        is_detected = matches.is_detection[objects]
        flags = values @ (1 << np.arange(_COLUMNS))
        self._detected.update(
            cell[is_detected], matches.score[objects[is_detected]], flags[is_detected]
        )
        np.add.at(self._undetected, cell[~is_detected], values[~is_detected])

    def merge(self, other: MissCounts) -> None:
        """Add the counts of other images."""
        self._detected.merge(other._detected)
        self._undetected += other._undetected
        self._unknown += other._unknown

    def compute(self, score: float, resampler: Resampler | None = None) -> MissAnalysis:
        """Compute the counts at a score.

        Args:
            score: the lowest score that counts; it is lowered to the next of `score_levels.COARSE`.
            resampler: gives the rates their intervals.
        """
        detected = self._sum(score)
        sums = np.concatenate(
            [self._sum(-np.inf) + self._undetected, detected, self._undetected], 1
        )
        names = _list_figures(self.classes)
        figures = _combine_cells(sums)
        rates = _estimate(figures, len(sums), score, resampler)
        has_proposals = self._unknown == 0
        rows = [
            _build_row(name, counts, estimates, has_proposals)
            for name, counts, estimates in zip(names, figures, rates, strict=True)
        ]
        sizes, classes = len(SIZES), len(self.classes)
        ends = np.cumsum([1, classes, sizes])
        return MissAnalysis(
            score,
            rows[0],
            tuple(rows[1 : ends[1]]),
            tuple(rows[ends[1] : ends[2]]),
            tuple(row for row in rows[ends[2] :] if row.objects),
            _rate_perfect_head(self.classes, figures[1 : ends[1]]) if has_proposals else None,
        )

    def _sum(self, score: float) -> NDArray[np.int64]:
        cells, counts = self._detected.sum_groups(score)
        sums = np.zeros_like(self._undetected)
        sums[cells] = counts
        return sums


def _describe_objects(
    matches: Matches,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
    """The rows that stand for objects `(G,)`, their cells of class and size, and their counts `(G, 3)`."""
    objects = np.flatnonzero(find_objects(matches))
    width = matches.object_x2[objects].astype(np.float64) - matches.object_x1[objects]
    height = matches.object_y2[objects].astype(np.float64) - matches.object_y1[objects]
    cell = matches.class_id[objects].astype(np.int64) * len(SIZES) + classify_sizes(width * height)
    values = np.ones((len(objects), _COLUMNS), np.int8)
    values[:, 1] = matches.covered50[objects] == 1
    values[:, 2] = matches.covered70[objects] == 1
    return objects, cell, values


def _list_figures(classes: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """The class and size of every row of the result: all, each class, each size, each cell."""
    return [
        (None, None),
        *((label, None) for label in classes),
        *((None, size) for size in SIZES),
        *((label, size) for label in classes for size in SIZES),
    ]


def _combine_cells(sums: NDArray[Any]) -> NDArray[Any]:
    """The sums of every row of the result, `(F, ...)`, from those of the cells."""
    by_class = sums.reshape(-1, len(SIZES), *sums.shape[1:])
    return np.concatenate(
        [sums.sum(axis=0, keepdims=True), by_class.sum(axis=1), by_class.sum(axis=0), sums]
    )


def _select_ratios(sums: Any) -> list[tuple[Any, Any]]:
    """The numerators and denominators of the four rates, from the nine sums of each figure."""
    objects, covered50, covered70, detected, detected_covered = sums[:5]
    missed = objects - detected
    return [
        (missed - (covered50 - detected_covered), missed),
        (detected, objects),
        (covered50, objects),
        (covered70, objects),
    ]


def _estimate(
    figures: NDArray[np.int64], cells: int, score: float, resampler: Resampler | None
) -> list[tuple[Estimate, ...]]:
    pairs = _select_ratios(figures.T)
    if resampler is None:
        columns = [[divide(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]
        return list(zip(*columns, strict=True))
    matches = resampler.matches
    objects, cell, values = _describe_objects(matches)
    is_detected = matches.is_detection[objects] & (matches.score[objects] >= np.float32(score))
    drawn = resampler.resample_sums(
        cell,
        resampler.image[objects],
        np.concatenate([values, values * is_detected[:, None]], axis=1),
        cells,
    )
    resampled = _select_ratios([_combine_cells(column) for column in drawn])
    columns = [
        resampler.summarize_ratios(*pair, *drawn_pair)
        for pair, drawn_pair in zip(pairs, resampled, strict=True)
    ]
    return list(zip(*columns, strict=True))


def _build_row(
    name: tuple[str | None, str | None],
    counts: NDArray[np.int64],
    rates: tuple[Estimate, ...],
    has_proposals: bool,
) -> MissedObjects:
    objects, covered, _, detected, detected_covered = (int(value) for value in counts[:5])
    undetected = int(counts[6])
    missed = objects - detected
    by_head = covered - detected_covered
    share, recall, recall50, recall70 = rates
    if not has_proposals:
        share = recall50 = recall70 = Estimate(None)
    return MissedObjects(
        *name,
        objects=objects,
        missed=missed,
        scored_low=missed - undetected,
        missed_by_proposals=missed - by_head if has_proposals else None,
        missed_by_head=by_head if has_proposals else None,
        proposal_share=share,
        recall=recall,
        proposal_recall50=recall50,
        proposal_recall70=recall70,
    )


def _rate_perfect_head(classes: Sequence[str], figures: NDArray[np.int64]) -> PerfectHead:
    objects, covered50, covered70 = figures[:, :3].T
    aps = [
        [_compute_perfect_ap(int(c), int(n)) for c, n in zip(covered, objects, strict=True)]
        for covered in (covered50, covered70)
    ]
    means = []
    for values in aps:
        defined = [value for value in values if value is not None]
        means.append(sum(defined) / len(defined) if defined else None)
    return PerfectHead(means[0], means[1], dict(zip(classes, aps[0], strict=True)))


def _compute_perfect_ap(covered: int, objects: int) -> float | None:
    if objects == 0:
        return None
    return float((covered / objects >= _RECALLS).mean()) if covered else 0.0


def build_miss_table(analysis: MissAnalysis) -> pa.Table:
    """One row per class and size; null stands for all together."""
    counts = ("objects", "missed", "scored_low", "missed_by_proposals", "missed_by_head")
    rates = ("proposal_share", "recall", "proposal_recall50", "proposal_recall70")
    rows = [
        {
            "label": row.label,
            "size": row.size,
            **{name: getattr(row, name) for name in counts},
            **{name: getattr(row, name).value for name in rates},
            **{f"{name}_low": getattr(row, name).low for name in rates},
            **{f"{name}_high": getattr(row, name).high for name in rates},
        }
        for row in (
            analysis.overall,
            *analysis.per_class,
            *analysis.per_size,
            *analysis.per_class_and_size,
        )
    ]
    return pa.Table.from_pylist(
        rows,
        pa.schema(
            [
                ("label", pa.string()),
                ("size", pa.string()),
                *((name, pa.int64()) for name in counts),
                *((name + end, pa.float64()) for name in rates for end in ("", "_low", "_high")),
            ]
        ),
    )
