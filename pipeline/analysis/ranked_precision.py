"""Interpolated precision of ranked detections, bucket by bucket, in three steps with little between them.

The precision at a true detection is t / r, where it is the t-th true one among the r best that count.
Interpolated precision is the highest at this recall or a greater one (Everingham et al., IJCV 2010, section
4.2). For a bucket of the ranking it follows from the numbers of true and of counted detections before the
bucket (step one counts them), and from the highest precision behind it (step two finds it in each bucket).
Step three interpolates.

Counts and maxima are exact in whatever order buckets are done, and the one sum of floats, the area under the
curve, is summed within a bucket and then bucket by bucket in the order of the ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.ranking import RankingRows

RECALLS_101 = np.linspace(0.0, 1.0, 101)
"""COCO's recalls at which precision is averaged."""


@dataclass(frozen=True)
class TrueRanks:
    """The true detections of one bucket in V variants: all that precision needs of it."""

    ranks: NDArray[np.int32]
    """`(T,)` the rank, from 1, of each true detection among those of the bucket that count, best first;
    one variant after the other."""
    starts: NDArray[np.int64]
    """`(V + 1,)` where each variant's ranks begin; the last is T."""
    counted: NDArray[np.int64]
    """`(V,)` detections of the bucket that are not ignored."""

    @property
    def true(self) -> NDArray[np.int64]:
        """True detections of the bucket `(V,)`."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Tally:
    """True and counted detections, each `(V,)`, of the buckets before one."""

    true: NDArray[np.int64]
    counted: NDArray[np.int64]


def rank_true_detections(rows: RankingRows, variants: int) -> TrueRanks:
    """Find the true detections of a bucket whose rows are of one class and ranked."""
    candidates = np.flatnonzero(rows.true_mask)
    candidate_masks = (rows.true_mask & ~rows.ignored_mask)[candidates]
    ever_ignored = np.bitwise_or.reduce(rows.ignored_mask) if len(rows) else np.uint64(0)
    ranks, counted = [np.empty(0, np.int32)], np.full(variants, len(rows), np.int64)
    for variant in range(variants):
        bit = np.uint64(1 << variant)
        positions = candidates[(candidate_masks & bit) != 0]
        if not ever_ignored & bit:
            ranks.append((positions + 1).astype(np.int32))
            continue
        running = np.cumsum((rows.ignored_mask & bit) == 0, dtype=np.int32)
        counted[variant] = running[-1]
        ranks.append(running[positions])
    starts = np.cumsum([len(of_variant) for of_variant in ranks])
    return TrueRanks(np.concatenate(ranks), starts, counted)


def find_highest_precision(bucket: TrueRanks, before: Tally) -> NDArray[np.float64]:
    """Find the highest precision at a true detection of the bucket, `(V,)`; 0 if there is none."""
    precision = _compute_precision(bucket, before)
    spans = pairwise(bucket.starts.tolist())
    return np.array([precision[start:stop].max(initial=0.0) for start, stop in spans])


@dataclass(frozen=True)
class BucketPrecision:
    """What one bucket adds to the scores of its class, in V variants."""

    at_101: NDArray[np.float64]
    """`(V, 101)` precision at COCO's recalls that are reached in this bucket, NaN elsewhere."""
    at_11: NDArray[np.float64]
    """`(V, 11)` the same at VOC2007's recalls."""
    sums: NDArray[np.float64]
    """`(V,)` sum of the interpolated precision over the true detections."""


def interpolate_precision(
    bucket: TrueRanks,
    before: Tally,
    highest_behind: NDArray[np.float64],
    objects: NDArray[np.int64],
) -> BucketPrecision:
    """Interpolate the precision of one bucket.

    Args:
        bucket: the bucket's true detections.
        before: the sums over the buckets before it.
        highest_behind: the highest precision in the buckets behind it, `(V,)`.
        objects: objects to find in each variant, `(V,)`.
    """
    precision = _compute_precision(bucket, before)
    sums = np.zeros(len(objects))
    for variant, (start, stop) in enumerate(pairwise(bucket.starts.tolist())):
        falling = precision[start:stop]
        np.maximum.accumulate(falling[::-1], out=falling[::-1])
        np.maximum(falling, highest_behind[variant], out=falling)
        sums[variant] = falling.sum()
    return BucketPrecision(
        _pick(bucket, precision, count_needed_101(objects) - before.true[:, None] - 1),
        _pick(bucket, precision, count_needed_11(objects) - before.true[:, None] - 1),
        sums,
    )


def _pick(
    bucket: TrueRanks, precision: NDArray[np.float64], positions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Pick the precision at positions of each variant `(V, P)`; NaN for those outside the bucket."""
    picked = np.full(positions.shape, np.nan)
    is_here = (positions >= 0) & (positions < bucket.true[:, None])
    picked[is_here] = precision[(positions + bucket.starts[:-1, None])[is_here]]
    return picked


def _compute_precision(bucket: TrueRanks, before: Tally) -> NDArray[np.float64]:
    """Compute the precision `(T,)` at each true detection of a bucket."""
    true = np.arange(1, len(bucket.ranks) + 1)
    true += np.repeat(before.true - bucket.starts[:-1], bucket.true)
    counted = np.repeat(before.counted, bucket.true) + bucket.ranks
    precision: NDArray[np.float64] = true / counted
    return precision


def count_needed_101(objects: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the true detections that reach each of COCO's recalls, `(V, 101)`, at least 1.

    COCO compares t / objects with the recall as floats, and so does this: 0.29 * 100 is above 29.
    """
    total = np.maximum(objects, 1)[:, None]
    needed = np.ceil(RECALLS_101 * total).astype(np.int64)
    needed -= (needed - 1) / total >= RECALLS_101
    needed += needed / total < RECALLS_101
    return np.maximum(needed, 1)


def count_needed_11(objects: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the true detections that reach each tenth of the objects, `(V, 11)`, at least 1."""
    needed: NDArray[np.int64] = np.maximum(-(-np.arange(11) * objects[:, None] // 10), 1)
    return needed


@dataclass(frozen=True)
class ClassPrecision:
    """The scores of one class in V variants; NaN without objects."""

    precision: NDArray[np.float64]
    """`(V, 101)` interpolated precision at COCO's recalls; 0 where recall does not reach."""
    coco_ap: NDArray[np.float64]
    """`(V,)` its mean."""
    eleven_point_ap: NDArray[np.float64]
    """`(V,)` VOC2007's AP."""
    area_ap: NDArray[np.float64]
    """`(V,)` VOC2010's AP."""
    true: NDArray[np.int64]
    """`(V,)` true detections."""


def combine_buckets(
    buckets: Sequence[BucketPrecision], true: NDArray[np.int64], objects: NDArray[np.int64]
) -> ClassPrecision:
    """Combine the buckets of one class, in the order of the ranking.

    Args:
        buckets: the precision of each bucket; none if the class has no detections.
        true: true detections of the class, `(V,)`.
        objects: objects to find, `(V,)`.
    """
    at_101, at_11 = np.zeros((len(objects), 101)), np.zeros((len(objects), 11))
    sums = np.zeros(len(objects))
    for bucket in buckets:
        np.copyto(at_101, bucket.at_101, where=~np.isnan(bucket.at_101))
        np.copyto(at_11, bucket.at_11, where=~np.isnan(bucket.at_11))
        sums += bucket.sums
    without_objects = objects == 0
    at_101[without_objects] = np.nan
    at_11[without_objects] = np.nan
    area = np.where(without_objects, np.nan, sums / np.maximum(objects, 1))
    return ClassPrecision(at_101, at_101.mean(axis=1), at_11.mean(axis=1), area, true)
