"""Wall and CPU seconds of a block of code, on a machine that others may use too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

_SCHEDULING = Path("/proc/thread-self/schedstat")
"""Nanoseconds that this thread ran, and that it waited for a core; Linux only."""


@dataclass
class TimeSpent:
    """Seconds of some work in one process."""

    wall: float = 0.0
    """Without the time in which the thread could run but others had the cores."""
    cpu: float = 0.0
    """Of all threads of the process."""

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add the seconds of the block."""
        wall, cpu, waited = perf_counter(), process_time(), read_core_wait()
        try:
            yield
        finally:
            self.wall += max(0.0, perf_counter() - wall - (read_core_wait() - waited))
            self.cpu += process_time() - cpu


def read_core_wait() -> float:
    """Seconds that this thread has waited for a core since it began; 0 where the kernel does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(_SCHEDULING.read_text().split()[1]) / 1e9
    return 0.0
