"""Progress of a training: its first worker posts to a small actor, which a thread of the driver reads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.engine import cluster
from pipeline.engine.capacity import Host
from pipeline.engine.monitor.metrics import TrainingMetrics
from pipeline.engine.monitor.progress import describe_nodes
from pipeline.engine.node_versions import NodeVersions, VersionCheck
from pipeline.errors import PipelineError
from pipeline.progress_samples import ProgressSample, StageSums
from pipeline.runs.run_logs import RunLogs
from pipeline.training.logs import TrainingRecord

log = logging.getLogger(__name__)

LINE_EVERY = 10.0
"""Seconds between progress lines."""
SILENCE = 60.0
"""Seconds without a record after which a line reports the silence."""


@ray.remote(num_cpus=0, max_restarts=0)
class ProgressBoard:
    """Holds what workers post until the driver takes it."""

    def __init__(self) -> None:
        self._records: list[TrainingRecord] = []
        self._failure: PipelineError | None = None
        self._nodes: list[NodeVersions] = []

    def post(self, record: TrainingRecord) -> None:
        """Add a record of the log."""
        self._records.append(record)

    def fail(self, error: PipelineError) -> None:
        """Set the reason why training stopped for good; the first one counts."""
        self._failure = self._failure or error

    def has_failed(self) -> bool:
        """Whether training has stopped for good."""
        return self._failure is not None

    def add_node(self, node: NodeVersions) -> None:
        """Add the versions on a worker's node."""
        self._nodes.append(node)

    def take(self) -> tuple[list[TrainingRecord], list[NodeVersions], PipelineError | None]:
        """The records and nodes since the last call, and the failure if there is one."""
        records, self._records = self._records, []
        nodes, self._nodes = self._nodes, []
        return records, nodes, self._failure


def start_board() -> Any:
    """Start a board on the driver's node: it must not be lost with another."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ProgressBoard.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


class TrainingProgress:
    """Logs a line every few seconds from the records on the board, and passes them on."""

    def __init__(
        self,
        board: Any,
        steps: int,
        workers: int = 1,
        logs: RunLogs | None = None,
        metrics: TrainingMetrics | None = None,
    ) -> None:
        """Prepare the lines.

        Args:
            board: what the workers post to.
            steps: of the whole training.
            workers: number of workers.
            logs: gets samples of the progress.
            metrics: counts the records for Prometheus.
        """
        self._board = board
        self._metrics = metrics
        self._steps = steps
        self._workers = workers
        self._logs = logs
        self._images = self._bytes_read = 0
        self._hosts: Sequence[Host] = ()
        self._busy_seconds = self._slot_seconds = 0.0
        self._first: tuple[int, float] | None = None
        self._next_line = 0.0
        self._versions = VersionCheck()
        self._last_heard = monotonic()
        self.last: TrainingRecord | None = None
        self.failure: PipelineError | None = None

    @contextmanager
    def show_progress(self) -> Iterator[None]:
        """Log progress while the block runs."""
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=30)

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(1.0):
            if not self._update():
                return
        self._update()

    def _update(self) -> bool:
        try:
            records, nodes, self.failure = ray.get(self._board.take.remote(), timeout=20)
            if records and self._logs is not None:
                self._hosts = cluster.get_capacity().hosts
        except ray.exceptions.RayError:
            return False  # Ray is shutting down; the run itself reports why
        self._versions.check(nodes)
        if records:
            self._last_heard = monotonic()
        elif monotonic() - self._last_heard > SILENCE:
            self._last_heard = monotonic()
            log.info("no record for %.0f s: workers start, wait for room or validate", SILENCE)
        for record in records:
            self._log_record(record)
            self._sample(record)
            if self._metrics is not None:
                self._metrics.count_record(record)
        return True

    def _sample(self, record: TrainingRecord) -> None:
        """Keep a sample if it is time for one; workers are busy unless they wait for images."""
        self._images += record.images
        self._bytes_read += record.bytes_read
        seconds = record.images / record.images_per_second if record.images_per_second else 0.0
        self._slot_seconds += self._workers * seconds
        self._busy_seconds += self._workers * seconds * (1 - record.data_wait)
        is_last = record.step >= self._steps
        if self._logs is None or not (is_last or self._logs.is_sample_due()):
            return
        sums = StageSums(self._workers, 0, self._slot_seconds, self._busy_seconds)
        others = {
            "step": record.step,
            "steps": self._steps,
            "loss": round(record.loss, 4),
            "bytes_read": self._bytes_read,
            "nodes": describe_nodes(self._hosts),
        }
        self._logs.add_sample(
            ProgressSample(self._logs.elapsed, self._images, {"train": sums}, others)
        )

    def _log_record(self, record: TrainingRecord) -> None:
        now = monotonic()
        if self.last is not None and record.step <= self.last.step:
            log.info("training resumed at step %d after a worker was lost", record.step)
            self._first = None
        self.last = record
        if self._first is None:
            self._first = (record.step, now)
        if now < self._next_line and record.step < self._steps and record.voc07_map50 is None:
            return
        self._next_line = now + LINE_EVERY
        log.info("%s", self._format_line(record, now))

    def _format_line(self, record: TrainingRecord, now: float) -> str:
        assert self._first is not None
        steps, seconds = record.step - self._first[0], now - self._first[1]
        time_left = ""
        if steps:
            minutes, rest = divmod(round((self._steps - record.step) * seconds / steps), 60)
            time_left = f", {minutes}:{rest:02d} left"
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in record.loss_parts.items())
        score = "" if record.voc07_map50 is None else f", validation mAP {record.voc07_map50:.3f}"
        skipped = f", {record.skipped} skipped" if record.skipped else ""
        return (
            f"train: step {record.step}/{self._steps}, epoch {record.epoch:.2f}, "
            f"loss {record.loss:.3f} ({losses}), "
            f"lr {record.learning_rate:.2e}, {record.images_per_second:.1f} images/s, "
            f"{record.data_wait:.0%} waiting{skipped}{score}{time_left}"
        )
