"""Progress of a run over shards: two live lines on a terminal, a plain line every 30 s elsewhere."""

from __future__ import annotations

import logging
import sys
from time import monotonic
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from pipeline.engine.monitor.stages import FlowState, Utilisation
from pipeline.runs.report import Report

log = logging.getLogger(__name__)

LINE_EVERY = 30.0
"""Seconds between plain lines."""
LOOK_EVERY = 0.2
"""Seconds between looks at the stages."""


class RunProgress:
    """Counts images as shards are committed; shows rate, failures, time left and what is the limit."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title = title
        self.total = total
        self.before = done
        self.done = done
        self.failed = 0
        self.utilisation = Utilisation()
        self.seconds: dict[str, float] = {}
        """Worker time by stage of what is committed."""
        self.started = monotonic()
        self._next_line = self.started + LINE_EVERY
        self._next_look = self.started
        self._live: Live | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        self._task = self._bar.add_task(title, total=total, completed=done, state="starting")

    def __enter__(self) -> RunProgress:
        if self.before:
            log.info("%s: %d of %d images are done already", self.title, self.before, self.total)
        if sys.stderr.isatty():
            self._live = Live(
                get_renderable=self._shown, console=Console(stderr=True), refresh_per_second=4
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
        for stage, seconds in report.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def due(self) -> bool:
        """Whether it is time to look at the stages again."""
        return monotonic() >= self._next_look

    def refresh(self, state: FlowState) -> None:
        """Take note of the stages and show them; called a few times a second, at least once."""
        self._next_look = monotonic() + LOOK_EVERY
        self.utilisation.look(state)
        if self._live is None and monotonic() >= self._next_line:
            self._next_line = monotonic() + LINE_EVERY
            log.info(
                "%s: %d/%d images, %s; %s",
                self.title,
                self.done,
                self.total,
                self._state(),
                self.utilisation.told(self.seconds),
            )

    def _shown(self) -> Group:
        self._bar.update(self._task, completed=self.done, state=self._state())
        return Group(self._bar, Text(self.utilisation.told(self.seconds)))

    def _state(self) -> str:
        if self.done == self.before:
            return "starting"
        left = (self.total - self.done) / max(self.rate, 1e-9)
        minutes, seconds = divmod(round(left), 60)
        return f"{self.rate:.1f} images/s, {self.failed} failed, {minutes}:{seconds:02d} left"
