"""One output under one fault, from the first start of the job to the comparison."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from time import monotonic, sleep
from typing import Any

from tests.chaos import outputs
from tests.chaos.driver import Driver
from tests.chaos.outcome import Outcome
from tests.chaos.outputs import Row
from tests.chaos.processes import send_signal
from tests.chaos.stage import SHARD_SIZE, Inputs, Job, Stage

MOST_RERUNS = 3
SETTLING_SECONDS = 3.0
"""How long tasks in flight may still write after their driver was killed."""


class Trial:
    """An output, the job that writes it, and what must remain of it."""

    def __init__(
        self,
        stage: Stage,
        fault: str,
        *options: str,
        inputs: Inputs | None = None,
        expected: Sequence[Row] | None = None,
        job: Job = "detect",
        begin: bool = True,
    ) -> None:
        """Prepare the output, and start the job if `begin`.

        Args:
            stage: where it runs.
            fault: its name.
            options: more options of the job.
            inputs: images, checkpoint and folder of outputs; by default those on disk.
            expected: the rows of an undisturbed run; by default those of the stage for these inputs.
            job: the job.
            begin: start the job at once.
        """
        self.stage = stage
        is_in_store = inputs is not None and inputs is stage.stored
        default = stage.stored_expected if is_in_store else stage.expected
        self.expected = default if expected is None else expected
        self.fault = fault
        self.options = options
        self.inputs = inputs
        self.job: Job = job
        self.output = stage.locate_output(fault, inputs)
        self.began = monotonic()
        self.reruns = 0
        self.committed: dict[str, Any] = {}
        """The parts that must not be rewritten."""
        self.codes: list[int] = []
        if begin:
            self.driver = self.start_job()

    @property
    def shards(self) -> int:
        """The number of parts of a complete output."""
        return -(-len(self.expected) // SHARD_SIZE)

    @property
    def third_of_parts(self) -> int:
        """The number of parts after which a fault strikes."""
        return self.shards // 3

    def start_job(self, *more: str) -> Driver:
        """Start the job into the output."""
        options = (*self.options, *more)
        return self.stage.start_job(self.output, *options, inputs=self.inputs, job=self.job)

    def wait_for_third(self) -> None:
        """Wait until a third of the parts is committed, and remember these parts."""
        self.committed = self.driver.wait_for_parts(self.third_of_parts)

    def remember_parts(self) -> None:
        """Remember the parts that are committed now."""
        self.committed = outputs.list_parts(self.output)

    def check_at_work(self, event: str) -> None:
        """Check that parts are still missing, and that the job works on them.

        Args:
            event: what is to happen to a run that is at work, such as `the node did`.

        Raises:
            AssertionError: the run ended before `event`, which would show nothing.
        """
        has_ended = self.driver.process.poll() is not None
        if has_ended or len(outputs.list_parts(self.output)) >= self.shards:
            raise AssertionError(f"{self.fault}: the run ended before {event}")

    @contextlib.contextmanager
    def hold_workers(self) -> Iterator[None]:
        """Stop all workers while the block runs: the shards that they have keep the run at work.

        Workers that start meanwhile, such as those of a new node, do the other shards.
        """
        workers = self.stage.cluster.list_workers("")
        send_signal(workers, signal.SIGSTOP)
        try:
            yield
        finally:
            send_signal(workers, signal.SIGCONT)

    def kill_driver(self) -> None:
        """SIGKILL the driver, and remember the parts that are there once its tasks have ended.

        Raises:
            AssertionError: the run ended before.
        """
        os.kill(self.driver.process.pid, signal.SIGKILL)
        if self.wait_for_end() != -signal.SIGKILL:
            raise AssertionError(f"{self.fault}: the run ended before its driver was killed")
        sleep(SETTLING_SECONDS)
        self.remember_parts()

    def wait_for_end(self) -> int:
        """Wait until the job ends, and return its exit code."""
        self.codes.append(self.driver.wait())
        return self.codes[-1]

    def rerun_until_done(self) -> None:
        """Run the same command again until it succeeds.

        Raises:
            RuntimeError: it still fails after several reruns.
        """
        while self.codes[-1]:
            if self.reruns == MOST_RERUNS:
                raise RuntimeError(
                    f"{self.fault}: still fails after {MOST_RERUNS} reruns:\n"
                    f"{self.driver.read_log()[-3000:]}"
                )
            self.reruns += 1
            self.driver = self.start_job()
            self.wait_for_end()

    def compare(
        self,
        poison: Sequence[str] = (),
        note: str = "",
        *,
        allowed_reruns: int = 0,
        allowed_redone: int = 0,
    ) -> Outcome:
        """Compare the output with the undisturbed run."""
        expected = self.expected
        rows = outputs.read_rows(self.output)
        difference = outputs.compare_rows(rows, expected, poison)
        after = outputs.list_parts(self.output)
        rewritten = [name for name, stamp in self.committed.items() if after.get(name) != stamp]
        lost = difference.lost
        manifest = (self.inputs or self.stage.local).manifest
        if not lost and (fault := outputs.find_fault(self.output, manifest)):
            lost = (fault,)
        per_part = len(expected) / max(1, len(after))
        return Outcome(
            self.fault,
            self.reruns,
            len(expected),
            len(lost),
            len(difference.doubled),
            len(difference.differing),
            round(len(rewritten) * per_part),
            difference.failed,
            tuple(poison),
            round(monotonic() - self.began, 1),
            note,
            allowed_reruns,
            allowed_redone,
        )
