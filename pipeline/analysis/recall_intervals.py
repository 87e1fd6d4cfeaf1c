"""COCO's average recalls over resamples of the images: means over classes of ratios of sums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.match_sums import RECALL_RANKS
from pipeline.analysis.matching import AREA_LIMITS, Matches
from pipeline.analysis.ranking import IOU_THRESHOLDS
from pipeline.analysis.resampling import Resampler
from pipeline.schema import AREA_RANGES


def resample_recalls(resampler: Resampler, classes: int) -> dict[str, NDArray[np.float64]]:
    """Compute `coco_ar_1`, `_10`, `_100`, `_small`, `_medium`, `_large`.

    Args:
        resampler: the images and their weights.
        classes: the number of classes, K.

    Returns:
        `(1 + R,)` of each name: of the sample itself, then of each resample; NaN without objects.
    """
    matches = resampler.matches
    true_rows = np.flatnonzero(matches.is_detection & (matches.true_all != 0))
    hits = [
        np.bitwise_count(matches.true_all[true_rows]) * (matches.rank[true_rows] < rank)
        for rank in RECALL_RANKS
    ]
    hits += [
        np.bitwise_count(getattr(matches, f"true_{size}")[true_rows])
        * (matches.rank[true_rows] < RECALL_RANKS[-1])
        for size in AREA_RANGES[1:]
    ]
    objects = np.flatnonzero(
        matches.stands_for_object & ~matches.object_difficult & ~matches.object_crowd
    )
    is_inside = find_area_ranges(matches, objects)
    recalled = resampler.resample_sums(
        matches.class_id[true_rows], resampler.image[true_rows], np.stack(hits, axis=1), classes
    )
    wanted = resampler.resample_sums(
        matches.class_id[objects], resampler.image[objects], is_inside, classes
    )
    names = [f"coco_ar_{rank}" for rank in RECALL_RANKS]
    names += [f"coco_ar_{size}" for size in AREA_RANGES[1:]]
    denominators = [wanted[0]] * len(RECALL_RANKS) + wanted[1:]
    return {
        name: _average_ratios(above / len(IOU_THRESHOLDS), below)
        for name, above, below in zip(names, recalled, denominators, strict=True)
    }


def find_area_ranges(matches: Matches, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of AREA_RANGES the objects of some rows are in, `(N, 4)`."""
    width, height = (
        getattr(matches, f"object_{axis}2")[rows].astype(np.float64)
        - getattr(matches, f"object_{axis}1")[rows]
        for axis in ("x", "y")
    )
    areas = (width * height)[:, None]
    is_inside: NDArray[np.bool_] = (areas >= AREA_LIMITS[:, 0]) & (areas <= AREA_LIMITS[:, 1])
    return is_inside


def _average_ratios(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean ratio `(1 + R,)` of the classes `(K, 1 + R)` that have objects; NaN if none has."""
    has_objects = below > 0
    ratios = np.where(has_objects, above / np.where(has_objects, below, 1), 0.0)
    count = has_objects.sum(axis=0)
    return np.where(count > 0, ratios.sum(axis=0) / np.maximum(count, 1), np.nan)
