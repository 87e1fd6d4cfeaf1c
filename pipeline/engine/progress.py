"""Progress of a run over shards: a live line on a terminal, a plain line every 30 s elsewhere."""

from __future__ import annotations

import logging
import sys
from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.engine.work import Report

log = logging.getLogger(__name__)

LINE_EVERY = 30.0
"""Seconds between plain lines."""


class RunProgress:
    """Counts pictures as shards are committed and shows rate, failures and time left."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title = title
        self.total = total
        self.before = done
        self.done = done
        self.failed = 0
        self.started = monotonic()
        self._next_line = self.started + LINE_EVERY
        self._stages = "no shards in flight"
        self._live: Progress | None = None

    def __enter__(self) -> RunProgress:
        if self.before:
            log.info("%s: %d of %d images are done already", self.title, self.before, self.total)
        if sys.stderr.isatty():
            self._live = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._task = self._live.add_task(
                self.title, total=self.total, completed=self.done, rate=""
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    @property
    def rate(self) -> float:
        """Images per second since this run started."""
        return (self.done - self.before) / max(1e-9, monotonic() - self.started)

    def advance(self, report: Report) -> None:
        """Count a committed shard."""
        self.done += report.images
        self.failed += sum(report.failed.values())
        self.refresh()

    def refresh(self, stages: str | None = None) -> None:
        """Show the state, and where the shards are; called at least once a second."""
        self._stages = stages or self._stages
        if self._live is not None:
            self._live.update(
                self._task, completed=self.done, rate=f"{self._state()}; {self._stages}"
            )
        elif monotonic() >= self._next_line:
            self._next_line = monotonic() + LINE_EVERY
            log.info(
                "%s: %d/%d images, %s; %s",
                self.title,
                self.done,
                self.total,
                self._state(),
                self._stages,
            )

    def _state(self) -> str:
        if self.done == self.before:
            return "starting"
        left = (self.total - self.done) / max(self.rate, 1e-9)
        minutes, seconds = divmod(round(left), 60)
        return f"{self.rate:.1f} images/s, {self.failed} failed, {minutes}:{seconds:02d} left"
