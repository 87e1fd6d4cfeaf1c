"""Calibration: whether a score of s means that a share s of such detections is true.

Detections are binned by score in ten bins of equal width; the expected calibration error (ECE) is the mean
over detections of the gap between a bin's mean score and its share of true detections (Naeini et al., AAAI
2015). True is COCO's rule at IoU 0.5; ignored detections do not count. Only detections that the detector
kept are seen, so the curve says nothing about scores under its lowest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.analysis.estimate import UNDEFINED, Estimate, divide
from pipeline.analysis.match_outcomes import find_counted, find_true
from pipeline.analysis.matching import Matches

if TYPE_CHECKING:
    from pipeline.analysis.resampling import Resampler

BINS = 10
_SCALE = 2**30  # scores are summed as integers, so that the order of the parts does not matter


@dataclass(frozen=True)
class CalibrationBin:
    """The detections whose scores are from `low` to below `high`; the last bin includes 1."""

    low: float
    high: float
    detections: int
    mean_score: float | None
    true_share: Estimate
    """The share of true detections."""


@dataclass(frozen=True)
class ClassCalibration:
    """One class, or all classes together."""

    label: str | None
    """None for all classes together."""
    detections: int
    ece: Estimate
    """Expected calibration error."""
    mce: float | None
    """Maximum calibration error: the largest gap of a bin."""
    bins: tuple[CalibrationBin, ...]
    """Those with detections."""


@dataclass(frozen=True)
class Calibration:
    """Reliability over the score, of all classes together and per class."""

    overall: ClassCalibration
    per_class: tuple[ClassCalibration, ...]


class CalibrationCounts:
    """Accepts matches in any order and grouping.

    Args:
        classes: the labels, in the order of `class_id`.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._sums = np.zeros((len(classes), BINS, 3), np.int64)  # detections, true, scores

    def update(self, matches: Matches) -> None:
        """Add the matches of some images."""
        rows = np.flatnonzero(find_counted(matches))
        cell = matches.class_id[rows] * BINS + find_bins(matches.score[rows])
        scores = np.rint(_clip(matches.score[rows]) * _SCALE)
        # Sums of whole numbers below 2^53 are exact in float64, so the order does not matter.
        for column, weights in enumerate((None, find_true(matches)[rows], scores)):
            sums = np.bincount(cell, weights, minlength=self._sums[:, :, 0].size)
            self._sums[:, :, column] += sums.astype(np.int64).reshape(self._sums.shape[:2])

    def merge(self, other: CalibrationCounts) -> None:
        """Add the counts of other images."""
        self._sums += other._sums

    def compute(self, resampler: Resampler | None = None) -> Calibration:
        """Compute the curves, with intervals if there is a resampler."""
        sums = np.concatenate([self._sums.sum(axis=0, keepdims=True), self._sums])
        shares, errors = _estimate(sums, resampler)
        names: list[str | None] = [None, *self.classes]
        rows = tuple(
            _summarize_class(name, class_sums, shares[k * BINS : (k + 1) * BINS], errors[k])
            for k, (name, class_sums) in enumerate(zip(names, sums, strict=True))
        )
        return Calibration(rows[0], rows[1:])


def _clip(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.clip(scores.astype(np.float64), 0.0, 1.0)


def find_bins(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the bin of each score `(D,)`, from 0 to BINS - 1."""
    return np.minimum((_clip(scores) * BINS).astype(np.int64), BINS - 1)


def _estimate(
    sums: NDArray[np.int64], resampler: Resampler | None
) -> tuple[list[Estimate], list[Estimate]]:
    """The share of true detections of each class and bin, and the ECE of each class."""
    count, true, score = np.moveaxis(sums, 2, 0)
    if resampler is None:
        shares = [divide(t, n) for t, n in zip(true.ravel(), count.ravel(), strict=True)]
        values = _compute_ece(count, true, score / _SCALE)
        return shares, [UNDEFINED if np.isnan(v) else Estimate(float(v)) for v in values]
    matches = resampler.matches
    rows = np.flatnonzero(find_counted(matches))
    bins = find_bins(matches.score[rows])
    values = np.stack(
        [np.ones(len(rows)), find_true(matches)[rows], _clip(matches.score[rows])], axis=1
    )
    figures = (matches.class_id[rows] + 1) * BINS + bins
    drawn = resampler.resample_sums(figures, resampler.image[rows], values, count.size)
    stacked = np.stack([column.reshape(*count.shape, -1) for column in drawn])
    stacked[:, 0] = stacked[:, 1:].sum(axis=1)
    flat = stacked.reshape(3, count.size, -1)
    shares = resampler.summarize_ratios(true.ravel(), count.ravel(), flat[1], flat[0])
    resampled = _compute_ece(*stacked.swapaxes(2, 3))
    return shares, resampler.summarize(_compute_ece(count, true, score / _SCALE), resampled)


def _compute_ece(
    count: NDArray[np.floating] | NDArray[np.int64],
    true: NDArray[np.floating] | NDArray[np.int64],
    score: NDArray[np.floating],
) -> NDArray[np.float64]:
    """ECE from sums by bin, which is the last axis; NaN without detections."""
    total = count.sum(axis=-1)
    gaps = np.abs(score - true).sum(axis=-1)
    return np.where(total > 0, gaps / np.maximum(total, 1), np.nan)


def _summarize_class(
    label: str | None, sums: NDArray[np.int64], shares: list[Estimate], ece: Estimate
) -> ClassCalibration:
    bins = tuple(
        CalibrationBin(index / BINS, (index + 1) / BINS, int(n), float(score / _SCALE / n), share)
        for index, ((n, _, score), share) in enumerate(zip(sums, shares, strict=True))
        if n
    )
    gaps = [
        abs(one.mean_score - (one.true_share.value or 0.0))
        for one in bins
        if one.mean_score is not None
    ]
    return ClassCalibration(label, int(sums[:, 0].sum()), ece, max(gaps, default=None), bins)


def build_calibration_table(calibration: Calibration) -> pa.Table:
    """One row per class and bin; `label` is null for all classes together."""
    rows = [
        {
            "label": row.label,
            "bin_low": one.low,
            "bin_high": one.high,
            "detections": one.detections,
            "mean_score": one.mean_score,
            "true_share": one.true_share.value,
            "low": one.true_share.low,
            "high": one.true_share.high,
            "ece": row.ece.value,
            "ece_low": row.ece.low,
            "ece_high": row.ece.high,
        }
        for row in (calibration.overall, *calibration.per_class)
        for one in row.bins
    ]
    bins = ("bin_low", "bin_high", "mean_score", "true_share", "low", "high")
    numbers = (*bins, "ece", "ece_low", "ece_high")
    return pa.Table.from_pylist(
        rows,
        pa.schema(
            [
                ("label", pa.string()),
                ("detections", pa.int64()),
                *((name, pa.float64()) for name in numbers),
            ]
        ),
    )
