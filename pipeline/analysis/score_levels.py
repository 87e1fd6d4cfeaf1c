"""Counts of detections by group and level of score: mergeable, bounded, exact at the levels' edges.

A level is the range of scores that share the first bits of their float32 form: 2^b levels between a power
of two and the next, for b bits of fraction. Scores of any size and sign have a level. Every count of
detections with a score of at least a level's lowest is exact; the order within a level is forgotten. The
memory depends on the number of groups and levels that occur, not on the number of detections: scores from
0.05 to 1 have about 1,100 levels with 8 bits and 18,000 with 12.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COARSE = 8
"""Bits of fraction for choosing a score: levels are 0.2 to 0.4 % apart."""
FINE = 12
"""Bits of fraction for average precision: levels are 0.012 to 0.025 % apart."""

_LEVEL_BITS = 32
_MOST_WAITING = 500_000
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
    """Sums of C integers per detection, by the detection's group and level.

    Args:
        columns: C, the integers counted for each detection.
        fraction_bits: `COARSE` or `FINE`.
    """

    def __init__(self, columns: int, fraction_bits: int) -> None:
        self.columns = columns
        self.fraction_bits = fraction_bits
        self._sums = np.empty(0, np.int64), np.empty((0, columns), np.int32)
        self._pending: list[tuple[NDArray[np.int64], NDArray[Any]]] = []
        self._waiting = 0

    def update(
        self, group: NDArray[Any], scores: NDArray[np.float32], values: NDArray[Any]
    ) -> None:
        """Add detections: groups from 0 `(D,)`, scores `(D,)` and integers or flags `(D, C)`."""
        levels = find_levels(scores, self.fraction_bits)
        self._add(group.astype(np.int64) << _LEVEL_BITS | levels, values)

    def merge(self, other: LevelCounts) -> None:
        """Add the sums of other detections."""
        assert (self.columns, self.fraction_bits) == (other.columns, other.fraction_bits)
        self._add(*other._collect())

    def _add(self, keys: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Add rows, summed by key only now and then: sorting all sums for each addition would be slow."""
        if len(keys):
            self._pending.append((keys, values))
            self._waiting += len(keys)
        if self._waiting > max(_MOST_WAITING, len(self._sums[0])):
            self._collect()

    def _collect(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The keys, rising and each once, and their sums."""
        if self._pending:
            keys, values = zip(self._sums, *self._pending, strict=True)
            self._sums = _sum_by_key(np.concatenate(keys), np.concatenate(values))
            self._pending, self._waiting = [], 0
        return self._sums

    def __getstate__(self) -> dict[str, Any]:
        self._collect()
        return self.__dict__

    def sum_groups(self, min_score: float) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the groups `(G,)` and their sums `(G, C)` over scores of at least a level's lowest."""
        lowest = find_levels(np.array([min_score], np.float32), self.fraction_bits)[0]
        keys, sums = self._collect()
        is_above = (keys & ((1 << _LEVEL_BITS) - 1)) >= lowest
        return _sum_by_key(keys[is_above] >> _LEVEL_BITS, sums[is_above])

    def cumulate(self, group: int) -> GroupCounts:
        """Return one group's cumulative counts."""
        keys, sums = self._collect()
        first, stop = np.searchsorted(keys, [group << _LEVEL_BITS, (group + 1) << _LEVEL_BITS])
        return self._cumulate(keys[first:stop], sums[first:stop])

    def cumulate_all(self) -> GroupCounts:
        """Return the cumulative counts of all groups together."""
        keys, sums = self._collect()
        return self._cumulate(*_sum_by_key(keys & ((1 << _LEVEL_BITS) - 1), sums))

    def _cumulate(self, keys: NDArray[np.int64], sums: NDArray[np.int32]) -> GroupCounts:
        levels = (keys & ((1 << _LEVEL_BITS) - 1))[::-1]
        return GroupCounts(
            get_lowest_scores(levels, self.fraction_bits),
            np.cumsum(sums[::-1], axis=0, dtype=np.int64),
        )


def _sum_by_key(
    keys: NDArray[np.int64], values: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the keys, rising and each once, and the sums of their values."""
    if not len(keys):
        return keys, np.empty((0, values.shape[1]), np.int32)
    order = np.argsort(keys)
    ranked = keys[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    sums = np.add.reduceat(values[order], starts, axis=0, dtype=np.int32)
    return ranked[starts], sums


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
