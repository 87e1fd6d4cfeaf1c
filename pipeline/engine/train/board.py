"""Where training's first worker tells the driver how far it is: a small actor, read by a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import ray

from pipeline.errors import PipelineError
from pipeline.training.logs import Record

log = logging.getLogger(__name__)

LINE_EVERY = 10.0
"""Seconds between progress lines."""
SILENCE = 60.0
"""Seconds without a record after which a line says so."""


@ray.remote(num_cpus=0, max_restarts=0)
class Board:
    """Keeps what workers posted until the driver takes it."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._failure: PipelineError | None = None

    def post(self, record: Record) -> None:
        """Keep a record of the log."""
        self._records.append(record)

    def fail(self, error: PipelineError) -> None:
        """Keep the reason why training stopped for good; the first one counts."""
        self._failure = self._failure or error

    def failed(self) -> bool:
        """Whether training has stopped for good."""
        return self._failure is not None

    def take(self) -> tuple[list[Record], PipelineError | None]:
        """The records since the last call, and the failure if there is one."""
        taken, self._records = self._records, []
        return taken, self._failure


class TrainingProgress:
    """Logs a line every few seconds from the records that the board holds."""

    def __init__(self, board: Any, steps: int) -> None:
        self._board = board
        self._steps = steps
        self._first: tuple[int, float] | None = None
        self._next_line = 0.0
        self._heard = monotonic()
        self.last: Record | None = None
        self.failure: PipelineError | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show progress while the block runs."""
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
            records, self.failure = ray.get(self._board.take.remote(), timeout=20)
        except ray.exceptions.RayError:
            return False  # Ray is going down; the run itself says why
        if records:
            self._heard = monotonic()
        elif monotonic() - self._heard > SILENCE:
            self._heard = monotonic()
            log.info("no record for %.0f s: workers start, wait for room or validate", SILENCE)
        for record in records:
            self._show(record)
        return True

    def _show(self, record: Record) -> None:
        now = monotonic()
        if self.last is not None and record.step <= self.last.step:
            log.info("training went on from step %d after a worker was lost", record.step)
            self._first = None
        self.last = record
        if self._first is None:
            self._first = (record.step, now)
        if now < self._next_line and record.step < self._steps and record.voc07_map50 is None:
            return
        self._next_line = now + LINE_EVERY
        log.info("%s", self._line(record, now))

    def _line(self, record: Record, now: float) -> str:
        assert self._first is not None
        steps, seconds = record.step - self._first[0], now - self._first[1]
        left = ""
        if steps:
            minutes, rest = divmod(round((self._steps - record.step) * seconds / steps), 60)
            left = f", {minutes}:{rest:02d} left"
        score = "" if record.voc07_map50 is None else f", validation mAP {record.voc07_map50:.3f}"
        skipped = f", {record.skipped} skipped" if record.skipped else ""
        return (
            f"train: step {record.step}/{self._steps}, epoch {record.epoch:.2f}, "
            f"loss {record.loss:.3f} (class {record.loss_class:.3f}, box {record.loss_box:.3f}), "
            f"lr {record.learning_rate:.2e}, {record.images_per_second:.1f} images/s, "
            f"{record.data_wait:.0%} waiting{skipped}{score}{left}"
        )
