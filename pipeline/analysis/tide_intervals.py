"""TIDE's gains over resamples of the images: AP50 with each oracle as one rule of `resampled_precision`.

A rule judges the detections as the oracle leaves them: those that vanish are ignored, those that it corrects
are true. An oracle that drops missed objects leaves the detections and has fewer objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.intervals import average_defined, score_class, split_weights
from pipeline.analysis.match_outcomes import find_counted, find_missed, find_objects, find_true
from pipeline.analysis.matching import ERRORS, Matches
from pipeline.analysis.resampling import Resampler
from pipeline.analysis.tide import (
    BKG,
    BOTH,
    CLS,
    DUPE,
    LOC,
    MISS,
    TideErrors,
    find_corrected,
)

_BASE, _FP = 0, 6
_RULE_OF_ERROR = {CLS: 1, LOC: 2, BOTH: 3, DUPE: 4, BKG: 5}
_ALL_RULES = (1 << 7) - 1


class _Judged(NamedTuple):
    """Detections as the oracles judge them, best first within a class."""

    class_id: NDArray[np.int64]
    image: NDArray[np.int64]
    true: NDArray[np.uint16]
    """Bit r: true by rule r."""
    ignored: NDArray[np.uint16]


def resample_gains(resampler: Resampler, classes: int) -> dict[str, NDArray[np.float64]]:
    """Compute the gains of the mean AP50 over the classes with objects, by the names of `tide.ErrorGains`.

    Args:
        resampler: the images and their weights.
        classes: the number of classes.

    Returns:
        `(1 + R,)` of each name: of the sample itself, then of each resample; NaN without objects.
    """
    judged = _judge(resampler.matches, resampler.image)
    aps = np.stack(list(_score_classes(resampler, judged, classes)))
    is_defined = ~np.isnan(aps[:, :1])
    # A class that has objects, but none that its oracle leaves, has an AP of 0, as in `tide`.
    means = average_defined(np.where(is_defined, np.nan_to_num(aps), np.nan))
    names = (*(ERRORS[error] for error in _RULE_OF_ERROR), "fp", "miss", "fn")
    return {
        name: np.maximum(mean - means[_BASE], 0.0)
        for name, mean in zip(names, means[1:], strict=True)
    }


def estimate_gains(
    resampler: Resampler, tide: TideErrors, classes: int
) -> dict[str, tuple[float, float]]:
    """Estimate the intervals of the gains over all images, by their names; none without objects."""
    resampled = resample_gains(resampler, classes)
    values = np.array([getattr(tide.dap, name) for name in resampled], np.float64)  # None is NaN
    estimates = resampler.summarize(values, np.stack(list(resampled.values())))
    return {
        name: (max(0.0, estimate.low), max(0.0, estimate.high))
        for name, estimate in zip(resampled, estimates, strict=True)
        if estimate.low is not None and estimate.high is not None
    }


def _judge(matches: Matches, image: NDArray[np.int64]) -> _Judged:
    is_true = find_true(matches)
    counted = np.flatnonzero(find_counted(matches))
    is_false = ~is_true[counted]
    true = np.where(is_false, 0, _ALL_RULES)
    ignored = np.where(is_false, 1 << _FP, 0)
    corrected, labels = find_corrected(matches, find_counted(matches) & ~is_true)
    is_corrected = np.zeros(len(matches), np.bool_)
    is_corrected[corrected] = True
    for error, rule in _RULE_OF_ERROR.items():
        of_error = is_false & (matches.error[counted] == error)
        is_right = of_error & is_corrected[counted] & (error == LOC)
        true[is_right] |= 1 << rule
        ignored[of_error & ~is_right] |= 1 << rule
    # A `cls` detection that is corrected counts under the object's label, and by its own rule alone.
    is_moved = matches.error[corrected] == CLS
    moved = corrected[is_moved]
    rows = np.concatenate([counted, moved])
    class_id = np.concatenate([matches.class_id[counted], labels[is_moved]]).astype(np.int64)
    own = 1 << _RULE_OF_ERROR[CLS]
    true = np.concatenate([true, np.full(len(moved), own)])
    ignored = np.concatenate([ignored, np.full(len(moved), _ALL_RULES & ~own)])
    order = np.lexsort((-matches.score[rows], class_id))
    return _Judged(
        class_id[order],
        image[rows[order]],
        true[order].astype(np.uint16),
        ignored[order].astype(np.uint16),
    )


def _score_classes(
    resampler: Resampler, judged: _Judged, classes: int
) -> Iterator[NDArray[np.float64]]:
    """Yield the AP50 of each class, `(9, 1 + R)`: as it is, then with each oracle."""
    matches = resampler.matches
    blocks = split_weights(resampler.weights)
    ends = np.searchsorted(judged.class_id, np.arange(classes + 1))
    is_missed = find_missed(matches)
    is_unexplained = is_missed & (matches.error == MISS)
    remaining = [
        np.flatnonzero(find_objects(matches) & ~dropped)
        for dropped in (np.zeros_like(is_missed), is_unexplained, is_missed)
    ]
    for k in range(classes):
        own = slice(ends[k], ends[k + 1])
        images, true, ignored = judged.image[own], judged.true[own], judged.ignored[own]
        objects = [resampler.image[rows[matches.class_id[rows] == k]] for rows in remaining]
        columns = resampler.weights.shape[1]
        first = score_class(images, true, ignored, objects[0], blocks)[: _FP + 1, :columns]
        base = np.uint16(1 << _BASE)
        fewer = [
            score_class(images, true & base, ignored & base, left, blocks)[:1, :columns]
            for left in objects[1:]
        ]
        yield np.concatenate([first, *fewer])
