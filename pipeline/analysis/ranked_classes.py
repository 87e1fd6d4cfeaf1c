"""Average precision of all classes from their ranked detections, wherever the buckets are done.

`rank_classes` takes rows that are in memory. `score_groups` is the same reduction over groups of rows that an
executor reads, so that no process holds more than one group or one task's buckets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.executor import Executor, Handle, InProcess
from pipeline.analysis.ranked_precision import (
    BucketPrecision,
    ClassPrecision,
    Tally,
    TrueRanks,
    combine_buckets,
    find_highest_precision,
    interpolate_precision,
    rank_true_detections,
)
from pipeline.analysis.ranking import RankingRows, concatenate_rows
from pipeline.analysis.score_buckets import (
    BUCKET_ROWS,
    Bucket,
    ScoreCounts,
    add_counts,
    count_coarse,
    count_fine,
    count_split_keys,
    cut_into_buckets,
    cut_rows,
    list_full_bins,
    list_split_keys,
    share_tasks,
)

RowReader = Callable[[], RankingRows]
"""Reads one group's rows; groups follow each other in the manifest."""


def rank_classes(
    rows: RankingRows, objects: NDArray[np.int64], limit: int = BUCKET_ROWS
) -> list[ClassPrecision]:
    """Score rows that are in memory.

    Args:
        rows: the detections of all images.
        objects: objects to find by class and variant, `(K, V)`.
        limit: the most rows of a bucket; it decides nothing but the last bits of `area_ap`.
    """
    class_rows = np.bincount(rows.class_id, minlength=len(objects)).astype(np.int64)
    large = rows.select((class_rows > limit)[rows.class_id])
    coarse = count_coarse(large)
    return score_groups([lambda: rows], class_rows, coarse, objects, InProcess(), limit=limit)


def score_groups(
    readers: Sequence[RowReader],
    class_rows: NDArray[np.int64],
    coarse: ScoreCounts,
    objects: NDArray[np.int64],
    executor: Executor,
    *,
    limit: int = BUCKET_ROWS,
) -> list[ClassPrecision]:
    """Score groups of rows.

    Args:
        readers: one for each group; they run where the executor does the calls.
        class_rows: detections of each class in all groups, `(K,)`.
        coarse: `count_coarse` of all groups together, at least for the classes with more than `limit`.
        objects: objects to find by class and variant, `(K, V)`.
        executor: does the calls.
        limit: the most rows of a bucket.

    Returns:
        The scores of each class; they do not depend on the groups or on the executor.
    """
    fine = add_counts([])
    full_bins = list_full_bins(coarse, limit)
    if full_bins:
        handles = [executor.submit(_read_fine, reader, full_bins)[0] for reader in readers]
        fine = add_counts(executor.collect(handles))
    buckets = cut_into_buckets(class_rows, coarse, fine, limit)
    splits = _count_split_keys(executor, readers, list_split_keys(buckets))
    tasks = share_tasks(buckets, limit)
    ranked = _rank_buckets(executor, readers, tasks, splits, objects.shape[1])
    return _score_tasks(executor, tasks, ranked, objects)


def _read_fine(reader: RowReader, full_bins: list[int]) -> ScoreCounts:
    return count_fine(reader(), full_bins)


def _count_split_keys(
    executor: Executor, readers: Sequence[RowReader], keys: Sequence[int]
) -> list[dict[int, int]]:
    """Count, for each group, how many rows of each key the groups before it have."""
    if not keys:
        return [{} for _ in readers]
    handles = [executor.submit(_read_split, reader, keys)[0] for reader in readers]
    counts = np.stack(executor.collect(handles))
    before = np.cumsum(counts, axis=0) - counts
    return [dict(zip(keys, row.tolist(), strict=True)) for row in before]


def _read_split(reader: RowReader, keys: Sequence[int]) -> NDArray[np.int64]:
    return count_split_keys(reader(), keys)


@dataclass(frozen=True)
class _RankedTask:
    """What a bucket task leaves behind: its buckets' sums here, their ranks where the task was done."""

    tallies: list[Tally]
    ranks: Handle


def _rank_buckets(
    executor: Executor,
    readers: Sequence[RowReader],
    tasks: Sequence[Sequence[Bucket]],
    splits: Sequence[dict[int, int]],
    variants: int,
) -> list[_RankedTask]:
    """Cut all groups into buckets, and count each bucket's true and counted detections."""
    if not tasks:
        return []
    pieces = [
        executor.submit(_cut_rows, reader, tasks, before, returns=len(tasks))
        for reader, before in zip(readers, splits, strict=True)
    ]
    handles = [
        executor.submit(_rank_task, variants, *(piece[index] for piece in pieces), returns=2)
        for index in range(len(tasks))
    ]
    del pieces
    tallies = executor.collect([tally for tally, _ in handles])
    return [
        _RankedTask(of_task, ranks) for of_task, (_, ranks) in zip(tallies, handles, strict=True)
    ]


def _cut_rows(
    reader: RowReader,
    tasks: Sequence[Sequence[Bucket]],
    before: dict[int, int],
) -> Any:
    """Return for each task the group's rows of each of its buckets."""
    buckets = [bucket for members in tasks for bucket in members]
    pieces = iter(cut_rows(reader(), buckets, before))
    shares = [[next(pieces) for _ in members] for members in tasks]
    return shares[0] if len(shares) == 1 else shares


def _rank_task(
    variants: int, *shares: Sequence[RankingRows]
) -> tuple[list[Tally], list[TrueRanks]]:
    """Rank the buckets of a task; each share has one group's rows of every bucket."""
    ranks = [rank_true_detections(_merge(pieces), variants) for pieces in zip(*shares, strict=True)]
    return [Tally(bucket.true, bucket.counted) for bucket in ranks], ranks


def _merge(pieces: Sequence[RankingRows]) -> RankingRows:
    """Merge the sorted rows of one bucket from groups that follow each other."""
    return pieces[0] if len(pieces) == 1 else concatenate_rows(pieces).sort()


def _score_tasks(
    executor: Executor,
    tasks: Sequence[Sequence[Bucket]],
    ranked: Sequence[_RankedTask],
    objects: NDArray[np.int64],
) -> list[ClassPrecision]:
    """Interpolate the precision of all buckets, then combine those of each class."""
    class_ids = [[bucket.class_id for bucket in members] for members in tasks]
    before = _sum_before(class_ids, [task.tallies for task in ranked])
    behind = _find_behind(executor, class_ids, ranked, before, objects.shape[1])
    handles = [
        executor.submit(_interpolate_task, task.ranks, tallies, highest, objects[members])[0]
        for task, tallies, highest, members in zip(ranked, before, behind, class_ids, strict=True)
    ]
    scores: list[list[BucketPrecision]] = [[] for _ in objects]
    true = np.zeros_like(objects)
    for task, members, precision in zip(ranked, class_ids, executor.collect(handles), strict=True):
        for class_id, tally, bucket in zip(members, task.tallies, precision, strict=True):
            scores[class_id].append(bucket)
            true[class_id] += tally.true
    return [combine_buckets(*of_class) for of_class in zip(scores, true, objects, strict=True)]


def _sum_before(
    class_ids: Sequence[Sequence[int]], tallies: Sequence[Sequence[Tally]]
) -> list[list[Tally]]:
    """Sum, for each bucket, the tallies of the buckets of its class that come before it."""
    sums: dict[int, Tally] = {}
    before: list[list[Tally]] = []
    for members, of_task in zip(class_ids, tallies, strict=True):
        before.append([])
        for class_id, tally in zip(members, of_task, strict=True):
            so_far = sums.get(class_id, Tally(0 * tally.true, 0 * tally.counted))
            before[-1].append(so_far)
            sums[class_id] = Tally(so_far.true + tally.true, so_far.counted + tally.counted)
    return before


def _find_behind(
    executor: Executor,
    class_ids: Sequence[Sequence[int]],
    ranked: Sequence[_RankedTask],
    before: Sequence[Sequence[Tally]],
    variants: int,
) -> list[list[NDArray[np.float64]]]:
    """Find, for each bucket, the highest precision in the buckets of its class behind it, `(V,)`.

    Only tasks that hold a later bucket of a class compute anything.
    """
    order = [class_id for members in class_ids for class_id in members]
    repeated = {first for first, second in pairwise(order) if first == second}
    handles = {
        index: executor.submit(_highest_task, task.ranks, before[index])[0]
        for index, (task, members) in enumerate(zip(ranked, class_ids, strict=True))
        if repeated.intersection(members)
    }
    highest = dict(zip(handles, executor.collect(list(handles.values())), strict=True))
    maxima: dict[int, NDArray[np.float64]] = {}
    behind: list[list[NDArray[np.float64]]] = []
    for index, members in reversed(list(enumerate(class_ids))):
        of_task = []
        for position, class_id in reversed(list(enumerate(members))):
            so_far = maxima.get(class_id, np.zeros(variants))
            of_task.append(so_far)
            if index in highest:
                maxima[class_id] = np.maximum(so_far, highest[index][position])
        behind.append(of_task[::-1])
    return behind[::-1]


def _highest_task(ranks: Sequence[TrueRanks], before: Sequence[Tally]) -> list[NDArray[np.float64]]:
    return list(map(find_highest_precision, ranks, before))


def _interpolate_task(
    ranks: Sequence[TrueRanks],
    before: Sequence[Tally],
    behind: Sequence[NDArray[np.float64]],
    objects: NDArray[np.int64],
) -> list[BucketPrecision]:
    return list(map(interpolate_precision, ranks, before, behind, objects))
