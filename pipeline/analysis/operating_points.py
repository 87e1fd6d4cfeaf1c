"""Precision, recall and F1 over the score, and the scores that are best for F1.

At a score s, the detections of at least s count: precision is the share of them that is true, recall the
share of the objects that one of them detects, and F1 their harmonic mean, 2 true / (detections + objects).
True and ignored are COCO's rule at IoU 0.5 for objects of all areas; ignored detections, and those of rank
100 and above, count neither way. Over all classes, the counts are summed (micro average).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.estimate import Estimate, divide
from pipeline.analysis.match_outcomes import find_counted, find_objects, find_true
from pipeline.analysis.matching import Matches
from pipeline.analysis.score_levels import COARSE, GroupCounts, LevelCounts

if TYPE_CHECKING:
    from pipeline.analysis.resampling import Resampler

_CURVE_STEPS = 50
_RATES = ("precision", "recall", "f1")
_TABLE = pa.schema(
    [
        ("label", pa.string()),
        ("point", pa.string()),
        ("score", pa.float64()),
        *((f"{rate}{end}", pa.float64()) for rate in _RATES for end in ("", "_low", "_high")),
        *((count, pa.int64()) for count in ("true", "false", "missed")),
    ]
)


@dataclass(frozen=True)
class OperatingPoint:
    """What a detector does if detections under a score are dropped."""

    score: float
    """The lowest score that counts."""
    precision: Estimate
    recall: Estimate
    f1: Estimate
    true: int
    """True detections of at least this score."""
    false: int
    """False ones."""
    missed: int
    """Objects without a true detection of at least this score."""


@dataclass(frozen=True)
class ScoreCurve:
    """Precision, recall and F1 at some scores, rising; a selection that suits a plot."""

    score: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]


@dataclass(frozen=True)
class ClassOperatingPoints:
    """One class, or all classes together."""

    label: str | None
    """None for all classes together."""
    objects: int
    """Objects that count: neither difficult nor crowds."""
    best: OperatingPoint | None
    """At the score with the highest F1, the highest of equal ones; None if nothing is true at any score."""
    at_overall: OperatingPoint | None
    """At the score that is best over all classes; None if there is none."""
    curve: ScoreCurve


@dataclass(frozen=True)
class OperatingPoints:
    """Precision, recall and F1 over the score, over all classes and per class."""

    overall: ClassOperatingPoints
    per_class: tuple[ClassOperatingPoints, ...]

    @property
    def best_score(self) -> float | None:
        """The score that is best for F1 over all classes."""
        return None if self.overall.best is None else self.overall.best.score


_TRUE, _FALSE = 1, 2  # the flags of score levels


class OperatingPointCounts:
    """Accepts matches in any order and grouping of whole images.

    Args:
        classes: the labels, in the order of `class_id`.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._levels = LevelCounts(2, COARSE)
        self._objects = np.zeros(len(classes), np.int64)

    def update(self, matches: Matches) -> None:
        """Add the matches of some images."""
        is_true, is_counted = find_true(matches), find_counted(matches)
        self._levels.update(
            matches.class_id[is_counted],
            matches.score[is_counted],
            np.where(is_true[is_counted], _TRUE, _FALSE),
        )
        labels = matches.class_id[find_objects(matches)]
        self._objects += np.bincount(labels, minlength=len(self.classes))

    def merge(self, other: OperatingPointCounts) -> None:
        """Add the counts of other images."""
        self._levels.merge(other._levels)
        self._objects += other._objects

    def find_best_score(self) -> float | None:
        """The score with the highest F1 over all classes, the highest of equal ones."""
        return _find_best(self._levels.cumulate_all(), int(self._objects.sum()))

    def compute(self, resampler: Resampler | None = None) -> OperatingPoints:
        """Compute all figures, with intervals if there is a resampler."""
        best = self.find_best_score()
        names: list[str | None] = [None, *self.classes]
        objects = [int(self._objects.sum()), *self._objects.tolist()]
        curves = [self._levels.cumulate_all()]
        curves += [self._levels.cumulate(index) for index in range(len(self.classes))]
        best_scores = [_find_best(c, n) for c, n in zip(curves, objects, strict=True)]
        at_best = _build_points(curves, objects, best_scores, resampler)
        at_overall = _build_points(curves, objects, [best] * len(names), resampler)
        rows = tuple(
            ClassOperatingPoints(name, n, own, shared, _build_curve(curve, n))
            for name, n, own, shared, curve in zip(
                names, objects, at_best, at_overall, curves, strict=True
            )
        )
        return OperatingPoints(rows[0], rows[1:])


def _find_best(curve: GroupCounts, objects: int) -> float | None:
    true, false = curve.counts.T
    if objects == 0 or not true.any():
        return None
    f1 = 2 * true / (true + false + objects)
    return float(curve.score[int(f1.argmax())])


def _build_points(
    curves: Sequence[GroupCounts],
    objects: Sequence[int],
    scores: Sequence[float | None],
    resampler: Resampler | None,
) -> list[OperatingPoint | None]:
    """The operating point of all classes together, and of each class, at its score."""
    counts = np.zeros((len(curves), 3), np.int64)  # true, false, objects
    for index, (curve, score) in enumerate(zip(curves, scores, strict=True)):
        above = 0 if score is None else int((curve.score >= np.float32(score)).sum())
        counts[index, :2] = curve.counts[above - 1] if above else 0
        counts[index, 2] = objects[index]
    if resampler is None:
        intervals = [
            (divide(t, t + f), divide(t, n), divide(2 * t, t + f + n)) for t, f, n in counts
        ]
    else:
        intervals = _resample(counts, scores, resampler)
    return [
        None if score is None else OperatingPoint(score, *estimates, int(t), int(f), int(n - t))
        for score, estimates, (t, f, n) in zip(scores, intervals, counts, strict=True)
    ]


def _resample(
    counts: NDArray[np.int64], scores: Sequence[float | None], resampler: Resampler
) -> list[tuple[Estimate, Estimate, Estimate]]:
    """Precision, recall and F1 of all classes together (figure 0) and of each class, with intervals."""
    matches = resampler.matches
    limits = np.array([np.inf if s is None else s for s in scores], np.float32)
    is_true, is_counted = find_true(matches), find_counted(matches)
    is_object = find_objects(matches)
    figures, images, sums = [], [], []
    for figure in (np.zeros_like(matches.class_id), matches.class_id + 1):
        is_above = is_counted & (matches.score >= limits[figure])
        is_relevant = is_above | is_object
        figures.append(figure[is_relevant])
        images.append(resampler.image[is_relevant])
        flags = np.stack([is_above & is_true, is_above & ~is_true, is_object], axis=1)
        sums.append(flags[is_relevant])
    true, false, objects = resampler.resample_sums(
        np.concatenate(figures), np.concatenate(images), np.concatenate(sums), len(counts)
    )
    t, f, n = counts.T
    rates = (
        resampler.summarize_ratios(t, t + f, true, true + false),
        resampler.summarize_ratios(t, n, true, objects),
        resampler.summarize_ratios(2 * t, t + f + n, 2 * true, true + false + objects),
    )
    return list(zip(*rates, strict=True))


def _build_curve(curve: GroupCounts, objects: int) -> ScoreCurve:
    """The curve at evenly spaced recalls and scores; without objects recall and F1 are 0."""
    true, false = curve.counts.T
    counted = np.maximum(true + false, 1)
    recall = true / max(objects, 1)
    chosen = np.unique(
        np.concatenate(
            [
                np.searchsorted(recall, np.arange(1, _CURVE_STEPS + 1) / _CURVE_STEPS),
                np.searchsorted(-curve.score, -np.linspace(0, 1, _CURVE_STEPS + 1), "right") - 1,
                [0, len(recall) - 1],
            ]
        )
    )
    chosen = chosen[(chosen >= 0) & (chosen < len(recall))][::-1]
    f1 = 2 * true / np.maximum(true + false + objects, 1)
    columns = (curve.score, true / counted, recall, f1)
    return ScoreCurve(*(tuple(values[chosen].astype(float).tolist()) for values in columns))


def build_operating_point_table(points: OperatingPoints) -> pa.Table:
    """The points of each class, with intervals and counts, and the scores of its curve, without.

    `label` is null for all classes together; `point` is `best`, `best_overall`, or null on the curve.
    """
    rows = [
        row
        for one in (points.overall, *points.per_class)
        for row in (*_list_points(one), *_list_curve(one))
    ]
    return pa.Table.from_pylist(rows, _TABLE)


def _list_points(row: ClassOperatingPoints) -> Iterator[dict[str, Any]]:
    for name, point in (("best", row.best), ("best_overall", row.at_overall)):
        if point is None:
            continue
        rates: dict[str, float | None] = {}
        for rate in _RATES:
            estimate: Estimate = getattr(point, rate)
            rates |= {
                rate: estimate.value,
                f"{rate}_low": estimate.low,
                f"{rate}_high": estimate.high,
            }
        counts = {"true": point.true, "false": point.false, "missed": point.missed}
        yield {"label": row.label, "point": name, "score": point.score, **rates, **counts}


def _list_curve(row: ClassOperatingPoints) -> Iterator[dict[str, Any]]:
    curve = row.curve
    for score, *rates in zip(curve.score, *(getattr(curve, name) for name in _RATES), strict=True):
        yield {"label": row.label, "score": score, **dict(zip(_RATES, rates, strict=True))}
