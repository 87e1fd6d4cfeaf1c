"""The output while its run works: whether it is still this run's, and what another driver commits there.

A driver that is cut off or stopped for a while may have been replaced by another one, which finishes the
output. When the first one goes on, it must not write parts of other settings there, nor redo what is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

from pipeline import shards
from pipeline.errors import StorageError
from pipeline.runs.output import RunOutput

log = logging.getLogger(__name__)

WATCH_EVERY = 30.0
"""Seconds between checks whose the output is."""
STANDSTILL = 10.0
"""Seconds between two calls after which the driver must have stood still: its waits take half a second."""


class OutputWatch:
    """Checks an output now and then, and at once after the driver stood still."""

    def __init__(
        self,
        ready: RunOutput,
        clock: Callable[[], float] = monotonic,
        standstill: float = STANDSTILL,
    ) -> None:
        self._ready = ready
        self._clock = clock
        self._standstill = standstill
        self._checked = self._called = clock()
        self._stood_still = False

    def check(self) -> frozenset[int]:
        """Check the output if it is time to.

        Returns:
            After a standstill the ordinals of all shards that are committed; otherwise none.

        Raises:
            TakenOver: another run with other settings started in the output.
            UnreadableDataset: its shard table is damaged.
        """
        now = self._clock()
        if now - self._called > self._standstill:
            self._stood_still = True
            log.warning(
                "the driver stood still for %.0f s: checking its output", now - self._called
            )
        self._called = now
        if not self._stood_still and now - self._checked < WATCH_EVERY:
            return frozenset()
        self._checked = now
        try:
            self._ready.check_owned()
            if not self._stood_still:
                return frozenset()
            committed = shards.list_parts(self._ready.uri, self._ready.shards).committed
        except StorageError as error:
            log.debug("the output cannot be checked now: %s", error)
            return frozenset()
        self._stood_still = False
        self._called = self._clock()  # a store that answers late is no standstill
        return committed
