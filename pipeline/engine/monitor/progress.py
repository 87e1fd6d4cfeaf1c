"""Progress of a run over shards: two live lines on a terminal, otherwise a plain line every 30 s."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from pipeline.engine.capacity import NODE_DIGITS, Host
from pipeline.engine.monitor.stages import FlowState, Utilisation
from pipeline.progress_samples import ProgressSample
from pipeline.runs.report import Report
from pipeline.runs.run_logs import RunLogs

log = logging.getLogger(__name__)

PLAIN_LINE_SECONDS = 30.0
"""Seconds between plain lines."""
MOST_NODES = 200
"""Nodes that a sample lists."""
REFRESH_SECONDS = 0.2
"""Seconds between observations of the stages."""


def describe_nodes(hosts: Sequence[Host]) -> dict[str, dict[str, float]]:
    """The living nodes of a sample, each with its cores and GPUs."""
    return {
        host.node[:NODE_DIGITS]: {"cpus": host.cpus, "gpus": host.gpus}
        for host in hosts[:MOST_NODES]
    }


class RunProgress:
    """Counts images as shards are committed; shows rate, failures, time left and the limiting stage."""

    def __init__(
        self,
        title: str,
        total: int,
        done: int,
        clock: Callable[[], float] = monotonic,
        logs: RunLogs | None = None,
    ) -> None:
        """Prepare the display.

        Args:
            title: the job.
            total: images in the output.
            done: images that earlier runs committed.
            clock: the time in seconds.
            logs: gets samples of the progress.
        """
        self.title = title
        self.total = total
        self.before = done
        self.done = done
        self.failed = 0
        self.utilisation = Utilisation(clock)
        self.seconds: dict[str, float] = {}
        """Worker time of the committed shards by stage."""
        self.counts: Counter[str] = Counter()
        """Other sums over the committed shards, such as bytes."""
        self.images_by_node: Counter[str] = Counter()
        self._logs = logs
        self._clock = clock
        self.started = clock()
        self._next_line = self.started + PLAIN_LINE_SECONDS
        self._next_refresh = self.started
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
                get_renderable=self._render, console=Console(stderr=True), refresh_per_second=4
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
        self._add_sample()

    @property
    def rate(self) -> float:
        """Images per second since this run started."""
        return (self.done - self.before) / max(1e-9, self._clock() - self.started)

    def advance(self, report: Report) -> None:
        """Count a committed shard."""
        self.done += report.images
        self.failed += sum(report.failed.values())
        for stage, seconds in report.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.counts.update(report.counts)
        self.images_by_node.update(report.images_by_node)

    def is_due(self) -> bool:
        """Whether it is time to observe the stages again."""
        return self._clock() >= self._next_refresh

    def refresh(self, state: FlowState) -> None:
        """Observe the stages and show them; the runner calls this a few times a second, at least once."""
        self._next_refresh = self._clock() + REFRESH_SECONDS
        self.utilisation.observe(state)
        if self._logs is not None and self._logs.is_sample_due():
            self._add_sample()
        if self._live is None and self._clock() >= self._next_line:
            self._next_line = self._clock() + PLAIN_LINE_SECONDS
            log.info(
                "%s: %d/%d images, %s; %s",
                self.title,
                self.done,
                self.total,
                self._describe_state(),
                self.utilisation.describe(self.seconds),
            )

    def _add_sample(self) -> None:
        if self._logs is None:
            return
        sample = ProgressSample(
            self._logs.elapsed,
            self.done - self.before,
            self.utilisation.sum_stages(),
            self._describe_sample(),
        )
        self._logs.add_sample(sample)

    def _describe_sample(self) -> dict[str, Any]:
        """What a sample tells beside images and stages."""
        state, by_stage = self.utilisation.state, dict[str, dict[str, int]]()
        for name, images in self.images_by_node.items():
            stage, _, node = name.partition(" ")
            by_stage.setdefault(stage, {})[node] = images
        return {
            "failed": self.failed,
            "left": self.total - self.done,
            "queued": state.queued,
            "bytes_in_flight": round(state.bytes_in_flight),
            "bytes_read": self.counts["bytes_read"],
            "bytes_written": self.counts["bytes"],
            "stage_seconds": {name: round(seconds, 1) for name, seconds in self.seconds.items()},
            "nodes": describe_nodes(state.hosts),
            "images_by_node": by_stage,
        }

    def _render(self) -> Group:
        self._bar.update(self._task, completed=self.done, state=self._describe_state())
        return Group(self._bar, Text(self.utilisation.describe(self.seconds)))

    def _describe_state(self) -> str:
        if self.done == self.before:
            return "starting"
        left = (self.total - self.done) / max(self.rate, 1e-9)
        minutes, seconds = divmod(round(left), 60)
        return f"{self.rate:.1f} images/s, {self.failed} failed, {minutes}:{seconds:02d} left"
