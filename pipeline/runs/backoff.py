"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass

ATTEMPTS = 6
"""Attempts at work that raises an error: with the default waits they outlast a store that is away for a
minute."""


@dataclass(frozen=True)
class Backoff:
    """Waits that grow by a factor up to a longest one, in seconds."""

    first: float = 0.5
    factor: float = 4.0
    longest: float = 30.0

    def wait(self, attempt: int) -> float:
        """Seconds to wait after the `attempt`-th failure, counted from 1."""
        return float(min(self.longest, self.first * self.factor ** (attempt - 1)))


DEFAULT_BACKOFF = Backoff()
"""The waits of every retry in a run."""
