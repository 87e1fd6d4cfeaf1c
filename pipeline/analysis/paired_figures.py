"""Figures of two runs over the same images with paired intervals, and the images that changed.

Both runs are resampled with the same weights (`resampling`), so an interval is that of the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.changed_images import ERROR_KINDS
from pipeline.analysis.intervals import resample_precision
from pipeline.analysis.match_outcomes import find_counted, find_objects, find_true
from pipeline.analysis.matching import ERRORS
from pipeline.analysis.object_sizes import SIZES, classify_sizes
from pipeline.analysis.resampled_precision import COCO_RULES
from pipeline.analysis.resampling import CONFIDENCE, Resampler

FIGURES = ("coco_ap", "coco_ap50", "coco_ap75", "ap11", "ap_area")
"""The figures of `resample_figures`, in their order."""


@dataclass(frozen=True)
class ScoreDifference:
    """One figure of both runs; None if no object counts."""

    first: float | None
    second: float | None
    difference: float | None
    """The second minus the first."""
    low: float | None
    """The 2.5th percentile of the difference over the resamples."""
    high: float | None
    """The 97.5th percentile."""


Resampled = NDArray[np.float64]
"""`(F, 1 + R)` figures of all images, then of each resample."""


def resample_figures(resampler: Resampler, classes: int) -> NDArray[np.float64]:
    """Compute FIGURES of the mean over classes, then of each class: `(5, 1 + classes, 1 + R)`."""
    figures = resample_precision(resampler, classes)
    chosen = np.stack(
        [
            figures[:, :COCO_RULES].mean(axis=1),
            *(figures[:, index] for index in (0, 5, COCO_RULES, COCO_RULES + 1)),
        ]
    )
    is_defined = ~np.isnan(chosen)
    count = is_defined.sum(axis=1, keepdims=True)
    total = np.where(is_defined, chosen, 0.0).sum(axis=1, keepdims=True)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.concatenate([mean, chosen], axis=1)


def resample_recall(resampler: Resampler, score: float) -> Resampled:
    """Compute recall at a score by COCO's sizes of objects, `(3, 1 + R)`; NaN without objects."""
    matches = resampler.matches
    rows = np.flatnonzero(find_objects(matches))
    width = matches.object_x2[rows].astype(np.float64) - matches.object_x1[rows]
    height = matches.object_y2[rows].astype(np.float64) - matches.object_y1[rows]
    is_detected = find_true(matches)[rows] & (matches.score[rows] >= np.float32(score))
    flags = np.stack([is_detected, np.ones_like(is_detected)], axis=1)
    detected, objects = resampler.resample_sums(
        classify_sizes(width * height), resampler.image[rows], flags, len(SIZES)
    )
    return np.where(objects > 0, detected / np.maximum(objects, 1e-9), np.nan)


def resample_errors(resampler: Resampler, score: float) -> Resampled:
    """Count the errors of each of ERROR_KINDS at a score, `(7, 1 + R)`."""
    matches = resampler.matches
    is_high = matches.score >= np.float32(score)
    is_true = find_true(matches)
    is_false = find_counted(matches) & ~is_true & is_high
    flags = [is_false]
    flags += [is_false & (matches.error == index) for index in range(len(ERRORS) - 1)]
    flags.append(find_objects(matches) & ~(is_true & is_high))
    kinds, rows = np.nonzero(np.stack(flags))
    (counts,) = resampler.resample_sums(
        kinds, resampler.image[rows], np.ones((len(rows), 1)), len(ERROR_KINDS)
    )
    return counts


def count_image_errors(resampler: Resampler, score: float) -> dict[int, int]:
    """Count false detections and missed objects at a score by the image's row in the manifest."""
    matches = resampler.matches
    is_high = matches.score >= np.float32(score)
    is_true = find_true(matches)
    is_error = find_counted(matches) & ~is_true & is_high
    is_error |= find_objects(matches) & ~(is_true & is_high)
    rows, counts = np.unique(matches.row[is_error], return_counts=True)
    return dict(zip(rows.tolist(), counts.tolist(), strict=True))


def subtract(first: Resampled, second: Resampled) -> list[ScoreDifference]:
    """The differences of figures `(F, 1 + R)` with their intervals."""
    tail = 100 * (1 - CONFIDENCE) / 2
    summaries = []
    for one, other in zip(first, second, strict=True):
        differences = (other - one)[1:]
        defined = differences[~np.isnan(differences)]
        if np.isnan(one[0]) or np.isnan(other[0]) or defined.size == 0:
            summaries.append(ScoreDifference(None, None, None, None, None))
            continue
        low, high = np.percentile(defined, [tail, 100 - tail])
        values = (one[0], other[0], other[0] - one[0], low, high)
        summaries.append(ScoreDifference(*map(float, values)))
    return summaries


def rank_changes(
    first: dict[int, int], second: dict[int, int], listed: int
) -> tuple[Sequence[tuple[int, int, int]], Sequence[tuple[int, int, int]], int, int]:
    """Rank the images by how many errors fewer or more the second run makes.

    Returns:
        Row, errors of the first and of the second run of the images that got better, and of those that got
        worse, the most changed first; then how many got better and worse.
    """
    changes = [
        (row, first.get(row, 0), second.get(row, 0)) for row in sorted(first.keys() | second.keys())
    ]
    better = sorted((c for c in changes if c[2] < c[1]), key=lambda c: (c[2] - c[1], c[0]))
    worse = sorted((c for c in changes if c[2] > c[1]), key=lambda c: (c[1] - c[2], c[0]))
    return better[:listed], worse[:listed], len(better), len(worse)
