"""The detections of each class cut into buckets: ranges of falling score with a bounded number of rows.

The cut follows from the number of detections by class and score, so it is a function of the data, whoever
counts them and in whichever parts. It takes two looks: the first counts the scores by their upper sixteen
bits; the second, rarely needed, counts single scores where one of these bins is above the limit. If a single
score is above the limit, its detections are cut in the order of the manifest.

Small classes share a task, large ones have several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.ranking import RankingRows, compute_falling_keys

BUCKET_ROWS = 2**21
"""The most rows of a bucket: with all that is computed from them they take about 0.4 GB."""

_SCORE_BITS = 32
_COARSE_BITS = 16


@dataclass(frozen=True)
class ScoreCounts:
    """How many detections have each key; a key is the class, and in its lower 32 bits a falling key."""

    keys: NDArray[np.uint64]
    """`(N,)`, rising and each once."""
    counts: NDArray[np.int64]
    """`(N,)`"""

    def select_range(self, first: int, stop: int) -> ScoreCounts:
        """Return the counts of the keys from `first` to below `stop`."""
        start, end = np.searchsorted(self.keys, np.array([first, stop], np.uint64))
        return ScoreCounts(self.keys[start:end], self.counts[start:end])


def count_coarse(rows: RankingRows) -> ScoreCounts:
    """Count rows by class and the upper half of their score's bits; the lower half is 0 in the keys."""
    shift = np.uint64(_COARSE_BITS)
    return _count_keys(_compute_keys(rows) >> shift << shift)


def count_fine(rows: RankingRows, coarse_keys: Sequence[int]) -> ScoreCounts:
    """Count the rows of some coarse bins by their whole score."""
    keys = _compute_keys(rows)
    shift = np.uint64(_COARSE_BITS)
    is_wanted = np.isin(keys >> shift << shift, np.array(coarse_keys, np.uint64))
    return _count_keys(keys[is_wanted])


def add_counts(parts: Sequence[ScoreCounts]) -> ScoreCounts:
    """Sum the counts of several parts."""
    keys = np.concatenate([np.empty(0, np.uint64), *(part.keys for part in parts)])
    counts = np.concatenate([np.empty(0, np.int64), *(part.counts for part in parts)])
    unique, inverse = np.unique(keys, return_inverse=True)
    sums = np.zeros(len(unique), np.int64)
    np.add.at(sums, inverse, counts)
    return ScoreCounts(unique, sums)


def list_full_bins(coarse: ScoreCounts, limit: int = BUCKET_ROWS) -> list[int]:
    """List the coarse keys that have more rows than a bucket, which `count_fine` must count."""
    return [int(key) for key in coarse.keys[coarse.counts > limit]]


@dataclass(frozen=True)
class Bucket:
    """A range of one class's ranking: from `first` to below `stop`, each a key and a position.

    The position counts the rows of this very key in the order of the manifest; it is 0 unless one score
    alone fills several buckets.
    """

    class_id: int
    first: tuple[int, int]
    stop: tuple[int, int]
    rows: int


def cut_into_buckets(
    class_rows: NDArray[np.int64],
    coarse: ScoreCounts,
    fine: ScoreCounts,
    limit: int = BUCKET_ROWS,
) -> list[Bucket]:
    """Cut each class that has detections.

    Args:
        class_rows: detections of each class, `(K,)`.
        coarse: the counts of all detections, at least of the classes with more than `limit`.
        fine: the counts of the bins in `list_full_bins(coarse, limit)`.
        limit: the most rows of a bucket.

    Returns:
        The buckets by class, then by falling score.
    """
    is_full = coarse.counts > limit
    counts = add_counts([ScoreCounts(coarse.keys[~is_full], coarse.counts[~is_full]), fine])
    buckets: list[Bucket] = []
    for class_id, rows in enumerate(class_rows.tolist()):
        first, stop = class_id << _SCORE_BITS, (class_id + 1) << _SCORE_BITS
        if rows > limit:
            buckets += _cut_class(class_id, counts.select_range(first, stop), limit)
        elif rows:
            buckets.append(Bucket(class_id, (first, 0), (stop, 0), rows))
    return buckets


def _cut_class(class_id: int, counts: ScoreCounts, limit: int) -> list[Bucket]:
    """Fill buckets with whole keys; a key above the limit gets buckets of its own."""
    starts: list[tuple[int, int]] = [(class_id << _SCORE_BITS, 0)]
    rows = [0]
    for key, count in zip(counts.keys.tolist(), counts.counts.tolist(), strict=True):
        for position in range(0, count, limit):
            size = min(limit, count - position)
            if rows[-1] and rows[-1] + size > limit:
                starts.append((key, position))
                rows.append(0)
            rows[-1] += size
    stops = [*starts[1:], ((class_id + 1) << _SCORE_BITS, 0)]
    return [
        Bucket(class_id, first, stop, size)
        for first, stop, size in zip(starts, stops, rows, strict=True)
    ]


def share_tasks(buckets: Sequence[Bucket], limit: int = BUCKET_ROWS) -> list[list[Bucket]]:
    """Group buckets that follow each other so that a group stays within the limit."""
    groups: list[list[Bucket]] = []
    rows = limit + 1
    for bucket in buckets:
        if rows + bucket.rows > limit:
            groups.append([])
            rows = 0
        groups[-1].append(bucket)
        rows += bucket.rows
    return groups


def list_split_keys(buckets: Sequence[Bucket]) -> list[int]:
    """List the keys whose rows are in several buckets."""
    return sorted({bucket.first[0] for bucket in buckets if bucket.first[1]})


def count_split_keys(rows: RankingRows, split_keys: Sequence[int]) -> NDArray[np.int64]:
    """Count the rows of some keys, `(len(split_keys),)`."""
    keys = _compute_keys(rows)
    return np.array([np.count_nonzero(keys == np.uint64(key)) for key in split_keys], np.int64)


def cut_rows(
    rows: RankingRows, buckets: Sequence[Bucket], before: Mapping[int, int] = MappingProxyType({})
) -> list[RankingRows]:
    """Cut the rows of parts that follow each other in the manifest into buckets.

    Args:
        rows: the rows.
        buckets: the buckets, by class and falling score.
        before: how many rows of each of `list_split_keys` earlier parts have.

    Returns:
        The rows of each bucket, by falling score, equal scores in their order.
    """
    ranked = rows.sort()
    keys = _compute_keys(ranked)
    starts = [_find_start(keys, *bucket.first, before) for bucket in buckets]
    stops = [_find_start(keys, *bucket.stop, before) for bucket in buckets]
    return [ranked.select(slice(start, stop)) for start, stop in zip(starts, stops, strict=True)]


def _find_start(
    keys: NDArray[np.uint64], key: int, position: int, before: Mapping[int, int]
) -> int:
    """Find the first row at or behind a position of the whole ranking."""
    start = int(np.searchsorted(keys, np.uint64(key), side="left"))
    if position == 0:
        return start
    end = int(np.searchsorted(keys, np.uint64(key), side="right"))
    return min(end, start + max(0, position - before[key]))


def _compute_keys(rows: RankingRows) -> NDArray[np.uint64]:
    keys = rows.class_id.astype(np.uint64) << np.uint64(_SCORE_BITS)
    keys |= compute_falling_keys(rows.score)
    return keys


def _count_keys(keys: NDArray[np.uint64]) -> ScoreCounts:
    unique, counts = np.unique(keys, return_counts=True)
    return ScoreCounts(unique, counts.astype(np.int64))
