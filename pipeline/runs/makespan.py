"""The time in which a number of equal slots work through shards: what quantisation and the tail add."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def compute_tail_factor(rows: Sequence[int], slots: int) -> float:
    """How many times as long as with an even division of the work `slots` take, at least 1.

    The slots take the shards in order, each as it becomes free. A shard's time is in proportion to its rows.

    Args:
        rows: images of each shard, in the order of work.
        slots: cores or detectors.
    """
    busy_until = [0] * min(slots, len(rows))
    for count in rows:
        heapq.heapreplace(busy_until, busy_until[0] + count)
    return max(busy_until) * slots / sum(rows)
