"""Sums over all starts of a piece of work: kept in the store while it runs, so that a kill loses seconds."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType

from pipeline import storage, uris
from pipeline.errors import MissingObject, StorageError
from pipeline.json_reader import InvalidJson, parse_fields

log = logging.getLogger(__name__)

PUT_EVERY = 5.0
"""Seconds between puts of the time: what a killed start spent after the last one is not counted."""
PUT_PAUSE = 0.5
"""Seconds that a thread waits after a put; counts that are added meanwhile are put together."""


class StartTotals:
    """Time and counts of all starts; a context manager around the work of this one.

    One process at a time may write an object: the one that does the work, or waits for it.
    """

    def __init__(
        self,
        uri: str,
        *,
        clock: Callable[[], float] = monotonic,
        clock_name: str = "seconds",
        put_every: float = PUT_EVERY,
    ) -> None:
        """Prepare the sums.

        Args:
            uri: the object that keeps them, a JSON file.
            clock: the time in seconds; only differences count.
            clock_name: the name of the sum of its time.
            put_every: seconds between puts of the time; counts are put when they are added.
        """
        self._uri = uri
        self._clock = clock
        self._clock_name = clock_name
        self._put_every = put_every
        self._sums: dict[str, float] = {}
        self._began = self._elapsed = 0.0
        self._lock = Lock()
        self._stop, self._is_due = Event(), Event()
        self._thread = Thread(target=self._put_again, name="start-totals", daemon=True)

    def __enter__(self) -> StartTotals:
        """Read the sums of earlier starts.

        Raises:
            StorageError: the store does not answer.
        """
        self._sums = read_start_totals(self._uri)
        self._began = self._clock()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._is_due.set()
        self._thread.join()
        self._elapsed = self._clock() - self._began
        self.add(self._clock_name, self._elapsed)
        self._put()

    @property
    def elapsed(self) -> float:
        """Seconds of this start alone."""
        return self._elapsed if self._stop.is_set() else self._clock() - self._began

    def add(self, name: str, amount: float) -> None:
        """Add to a sum."""
        with self._lock:
            self._sums[name] = self._sums.get(name, 0.0) + amount
        self._is_due.set()

    def compute(self) -> dict[str, float]:
        """The sums over all starts, by name."""
        with self._lock:
            sums = dict(self._sums)
        if not self._stop.is_set():
            sums[self._clock_name] = sums.get(self._clock_name, 0.0) + self.elapsed
        return sums

    def _put_again(self) -> None:
        while not self._stop.wait(PUT_PAUSE):
            self._is_due.wait(self._put_every)
            self._is_due.clear()
            if not self._stop.is_set():
                self._put()

    def _put(self) -> None:
        data = json.dumps(self.compute(), indent=2, sort_keys=True).encode() + b"\n"
        try:
            storage.put(self._uri, data)
        except StorageError as error:  # the work goes on; the next put has these sums too
            log.info("%s cannot be put now: %s", uris.redact_uri(self._uri), error)


def read_start_totals(uri: str) -> dict[str, float]:
    """The sums that the starts so far have put; empty if none did, or if the object is damaged.

    Raises:
        StorageError: the store does not answer.
    """
    try:
        stored = parse_fields(storage.read(uri))
        return {name: stored.read_number(name) for name in stored.values}
    except MissingObject:
        return {}
    except InvalidJson as error:
        log.warning(
            "%s is damaged (%s): what earlier starts spent is not counted",
            uris.redact_uri(uri),
            error,
        )
        return {}
