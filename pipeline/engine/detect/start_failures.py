"""Nodes on which detector actors fail to start, and how long the pool avoids them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

MAX_FAILED_STARTS = 3
"""Actors that may fail to start on a node before the pool avoids it for a while."""
AVOID_SECONDS = 60.0


class StartFailures:
    """Counts failed starts by node."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._last_times: dict[str, float] = {}

    def add(self, node: str) -> None:
        """Count an actor that did not start on a node."""
        self._counts[node] += 1
        self._last_times[node] = self._clock()

    def avoid(self, node: str) -> None:
        """Avoid a node from now on."""
        self._counts[node] = MAX_FAILED_STARTS
        self._last_times[node] = self._clock()

    def should_avoid(self, node: str) -> bool:
        """Whether starts failed there repeatedly, the last one less than `AVOID_SECONDS` ago."""
        if self._counts[node] < MAX_FAILED_STARTS:
            return False
        if self._clock() - self._last_times[node] < AVOID_SECONDS:
            return True
        self._counts[node] = 0
        return False
