"""Counts of detections by group and level of score: mergeable, bounded, exact at the levels' edges.

A level is the range of scores that share the first bits of their float32 form: 2^b levels between a power
of two and the next, for b bits of fraction. Scores of any size and sign have a level. Every count of
detections with a score of at least a level's lowest is exact; the order within a level is forgotten. The
memory depends on the number of groups, levels and combinations of flags that occur, not on the number of
detections: 16 bytes each. Scores from 0.05 to 1 have about 1,100 levels with 8 bits and 18,000 with 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE = 8
"""Bits of fraction for choosing a score: levels are 0.2 to 0.4 % apart."""
FINE = 12
"""Bits of fraction for average precision: levels are 0.012 to 0.025 % apart."""

_RANGE_BITS = 9
"""Bits of a float32 before its fraction: sign and exponent."""
_MOST_WAITING = 1_000_000
_MERGED_KEYS = 1_000_000
_RECALLS = np.linspace(0.0, 1.0, 101)


def find_levels(scores: NDArray[np.float32], fraction_bits: int) -> NDArray[np.int64]:
    """Return the level of each score, an integer that rises with the score.

    Args:
        scores: float32 `(D,)`, no NaN.
        fraction_bits: bits of the fraction that a level keeps, up to 23.
    """
    bits = (scores.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (rising >> np.uint32(23 - fraction_bits)).astype(np.int64)


def get_lowest_scores(levels: NDArray[np.int64], fraction_bits: int) -> NDArray[np.float32]:
    """Return the lowest score of each level, float32."""
    rising = levels.astype(np.uint32) << np.uint32(23 - fraction_bits)
    bits = np.where(rising >> 31, rising & np.uint32(0x7FFFFFFF), ~rising)
    return bits.astype(np.uint32).view(np.float32)


def lower_to_level(score: float, fraction_bits: int = COARSE) -> float:
    """Return the lowest score of the level of a score: itself, or a little less."""
    level = find_levels(np.array([score], np.float32), fraction_bits)
    return float(get_lowest_scores(level, fraction_bits)[0])


@dataclass(frozen=True)
class GroupCounts:
    """One group's detections by falling level."""

    score: NDArray[np.float32]
    """`(L,)` the lowest score of each level, falling."""
    counts: NDArray[np.int64]
    """`(L, C)` the counts at this level or above: cumulative."""


class LevelCounts:
    """Counts of detections by group, level and C flags.

    Args:
        columns: C, the flags of a detection; each is counted.
        fraction_bits: `COARSE` or `FINE`.
    """

    def __init__(self, columns: int, fraction_bits: int) -> None:
        self.columns = columns
        self.fraction_bits = fraction_bits
        self._sums = np.empty(0, np.int64), np.empty(0, np.int64)
        """Keys that hold group, level and flags, rising, and the number of detections of each."""
        self._pending: list[NDArray[np.int64]] = []
        self._waiting = 0

    @property
    def _group_shift(self) -> int:
        return self.columns + _RANGE_BITS + self.fraction_bits

    def update(self, group: NDArray[Any], scores: NDArray[np.float32], flags: NDArray[Any]) -> None:
        """Add detections: groups from 0 `(D,)`, scores `(D,)`, and flags `(D,)`: bit c is column c."""
        keys = find_levels(scores, self.fraction_bits) << self.columns
        keys |= group.astype(np.int64) << self._group_shift
        keys |= flags
        self._pending.append(keys)
        self._waiting += len(keys)
        if self._waiting > _MOST_WAITING:
            self._collect()

    def merge(self, other: LevelCounts) -> None:
        """Add the counts of other detections."""
        assert (self.columns, self.fraction_bits) == (other.columns, other.fraction_bits)
        self._sums = _merge_counts(self._collect(), other._collect())

    def _collect(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The keys, rising and each once, and their counts."""
        if self._pending:
            keys = np.sort(np.concatenate(self._pending))
            starts = _find_starts(keys)
            counted = keys[starts], np.diff(np.append(starts, len(keys)))
            self._sums = _merge_counts(self._sums, counted)
            self._pending, self._waiting = [], 0
        return self._sums

    def __getstate__(self) -> dict[str, Any]:
        self._collect()
        return self.__dict__

    def sum_groups(self, min_score: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the groups `(G,)` and their sums `(G, C)` over scores of at least a level's lowest."""
        lowest = find_levels(np.array([min_score], np.float32), self.fraction_bits)[0]
        keys, counts = self._collect()
        is_above = self._get_levels(keys) >= lowest
        keys, counts = keys[is_above], counts[is_above]
        return self._sum_columns(keys >> self._group_shift, keys, counts)

    def cumulate(self, group: int) -> GroupCounts:
        """Return one group's cumulative counts."""
        keys, counts = self._collect()
        limits = np.array([group, group + 1], np.int64) << self._group_shift
        first, stop = np.searchsorted(keys, limits)
        return self._cumulate(keys[first:stop], counts[first:stop])

    def cumulate_all(self) -> GroupCounts:
        """Return the cumulative counts of all groups together."""
        keys, counts = self._collect()
        keys = keys & ((1 << self._group_shift) - 1)
        order = np.argsort(keys)
        return self._cumulate(keys[order], counts[order])

    def _cumulate(self, keys: NDArray[np.int64], counts: NDArray[np.int64]) -> GroupCounts:
        levels, sums = self._sum_columns(self._get_levels(keys), keys, counts)
        return GroupCounts(
            get_lowest_scores(levels[::-1], self.fraction_bits), np.cumsum(sums[::-1], axis=0)
        )

    def _get_levels(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        return keys >> self.columns & ((1 << (_RANGE_BITS + self.fraction_bits)) - 1)

    def _sum_columns(
        self, rising: NDArray[np.int64], keys: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return each of the rising numbers once, and the sums of the flags of its keys `(N, C)`."""
        starts = _find_starts(rising)
        sums = np.empty((len(starts), self.columns), np.int64)
        for column in range(self.columns if len(starts) else 0):
            sums[:, column] = np.add.reduceat(counts * (keys >> column & 1), starts)
        return rising[starts], sums


Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Keys, rising and each once, and the count of each."""


def _merge_counts(first: Counts, second: Counts) -> Counts:
    """Sum two counts, a range of keys at a time: sorting all at once would take three times the memory."""
    longer, shorter = (first, second) if len(first[0]) >= len(second[0]) else (second, first)
    if not len(shorter[0]):
        return longer
    cuts = np.arange(_MERGED_KEYS, len(longer[0]), _MERGED_KEYS)
    others = np.searchsorted(shorter[0], longer[0][cuts])
    ends = [*zip(cuts.tolist(), others.tolist(), strict=True), (len(longer[0]), len(shorter[0]))]
    keys, counts = np.empty((2, len(longer[0]) + len(shorter[0])), np.int64)
    size = 0
    for (start, other_start), (end, other_end) in pairwise([(0, 0), *ends]):
        own, other = slice(start, end), slice(other_start, other_end)
        merged = np.concatenate([longer[0][own], shorter[0][other]])
        order = np.argsort(merged, kind="stable")  # two runs: a merge
        merged = merged[order]
        starts = _find_starts(merged)
        sums = np.concatenate([longer[1][own], shorter[1][other]])[order]
        target = slice(size, size + len(starts))
        keys[target], counts[target] = merged[starts], np.add.reduceat(sums, starts)
        size = target.stop
    return keys[:size], counts[:size]


def _find_starts(rising: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each number of a rising sequence begins."""
    return np.flatnonzero(np.append(True, rising[1:] != rising[:-1])[: len(rising)])


def compute_average_precision(
    true: NDArray[np.int64], false: NDArray[np.int64], objects: int
) -> float:
    """Compute COCO's AP at 101 recalls from cumulative counts by falling score; NaN without objects.

    Args:
        true: `(L,)` true detections at each score or above.
        false: `(L,)` false ones.
        objects: objects to find.
    """
    if objects <= 0:
        return float("nan")
    counted = true + false
    is_counted = counted > 0
    true, counted = true[is_counted], counted[is_counted]
    precision = true / counted
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(true / objects, _RECALLS, side="left")].mean())
