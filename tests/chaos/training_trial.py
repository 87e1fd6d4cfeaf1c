"""One training under one fault, from the first start of the job to the comparison of its network."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from pipeline import storage, uris
from pipeline.detector.checkpoint_record import WEIGHTS_NAME
from pipeline.errors import PipelineError
from pipeline.run_record import read_record
from pipeline.training import state
from pipeline.training.logs import TrainingRecord, read_log
from tests.chaos.driver import DRIVER_SECONDS, Driver
from tests.chaos.outcome import Outcome
from tests.chaos.processes import kill_tree, read_command, send_signal, wait_until
from tests.chaos.stage import ROOT, Stage
from tests.chaos.trial import MOST_RERUNS
from tests.training.training_dataset import write_dataset

STEPS = 160
SETTINGS = (
    *("--recipe", "tiny", "--iterations", str(STEPS), "--short-sides", "64", "--max-side", "96"),
    *("--workers", "1", "--gpu", "False", "--checkpoint-every", "20", "--log-every", "10"),
)
TOLERANCE = 1e-5
"""Largest difference of a weight from the undisturbed training's."""

Tensors = dict[str, Any]


@functools.cache
def _write_inputs(folder: Path) -> tuple[str, str]:
    """The manifest and the proposals to train on."""
    manifest, proposals, _ = write_dataset(folder / "training-data")
    return manifest, proposals


@dataclass
class TrainingTrial:
    """The output of a training, the job that writes it, and what its log must keep."""

    stage: Stage
    fault: str
    in_store: bool = False
    reruns: int = 0
    records: list[TrainingRecord] = field(default_factory=list)
    """The log up to the state from which a rerun must go on."""
    began: float = field(default_factory=time.monotonic)

    @property
    def output(self) -> str:
        """The training's output."""
        inputs = self.stage.stored if self.in_store else None
        return self.stage.locate_output(f"training_{self.fault}", inputs)

    def start_job(self, *more: str) -> Driver:
        """Start the train job into the output."""
        manifest, proposals = _write_inputs(self.stage.folder)
        arguments = ("--manifest", manifest, "--proposals", proposals, "--output", self.output)
        log = self.stage.folder / f"driver-{len(self.stage.drivers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "jobs/train.py"), *arguments, *SETTINGS, *more],
                cwd=self.stage.folder,
                env=os.environ | self.stage.cluster.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        driver = Driver(process, self.output, log)
        self.stage.drivers.append(driver)
        return driver

    def wait_for_step(self, driver: Driver, step: int) -> None:
        """Wait until the latest state is that of `step` or a later one.

        Raises:
            RuntimeError: the job ended earlier.
        """

        def is_there() -> bool:
            if driver.process.poll() is not None:
                raise RuntimeError(f"the job ended too early:\n{driver.read_log()[-3000:]}")
            latest = state.read_latest_state(self.output)
            return latest is not None and step <= latest.step < STEPS

        wait_until(is_there, f"step {step} of {self.fault}", DRIVER_SECONDS, 0.1)

    def remember_state(self) -> None:
        """Remember how far the training came, by the records of its log up to the latest state.

        Raises:
            AssertionError: there is no state to resume from, or no step left to do after it.
        """
        latest = state.read_latest_state(self.output)
        if latest is None or latest.step >= STEPS:
            raise AssertionError(
                f"{self.fault}: the fault struck at {latest}, not within the {STEPS} steps"
            )
        self.records = [record for record in read_log(self.output) if record.step <= latest.step]
        if not self.records or self.records[-1].step != latest.step:
            raise AssertionError(f"{self.fault}: the log has no record of step {latest.step}")

    def kill_job(self, driver: Driver) -> None:
        """SIGKILL a driver and its workers, and remember the state that they leave.

        Raises:
            AssertionError: there is no state to resume from, or no step left to do after it.
        """
        workers = self.stage.cluster.list_busy_workers()
        kill_tree(driver.process)
        send_signal(workers, signal.SIGKILL)
        wait_until(lambda: not any(map(read_command, workers)), "end of the workers", 20)
        self.remember_state()

    def read_seed(self) -> int | None:
        """The seed of the training that owns the output; None while it has no record."""
        record = read_record(self.output)
        return None if record is None else int(record.settings["seed"])

    def rerun_until_done(self, *more: str) -> None:
        """Run the same command again until it succeeds.

        Raises:
            RuntimeError: it still fails after several reruns.
        """
        while True:
            self.reruns += 1
            driver = self.start_job(*more)
            if driver.wait() == 0:
                return
            if self.reruns == MOST_RERUNS:
                raise RuntimeError(f"{self.fault}: still fails:\n{driver.read_log()[-3000:]}")

    def compare(
        self, expected: Tensors, seed: int, note: str = "", *, allowed_reruns: int = 0
    ) -> Outcome:
        """Compare the network with the undisturbed training's, and the record with the settings.

        Args:
            expected: the undisturbed training's tensors.
            seed: of the training that must own the output.
            note: for the table.
            allowed_reruns: reruns that the fault makes necessary.
        """
        tensors = read_tensors(self.output)
        is_own = self.read_seed() == seed and storage.exists(uris.join(self.output, "model.json"))
        shared = tensors.keys() & expected.keys()
        differing = [
            name
            for name in shared
            if not np.allclose(tensors[name], expected[name], rtol=0, atol=TOLERANCE)
        ]
        return Outcome(
            f"training: {self.fault}",
            self.reruns,
            len(expected),
            len(expected.keys() - shared) if is_own else len(expected),
            len(tensors.keys() - shared),
            len(differing),
            count_redone_steps(self.records, read_log(self.output)),
            (),
            (),
            round(time.monotonic() - self.began, 1),
            note,
            allowed_reruns,
        )


def read_tensors(output: str) -> Tensors:
    """The tensors of a training's network by name; none if it is missing or unreadable."""
    try:
        return dict(safetensors.numpy.load(storage.read(uris.join(output, WEIGHTS_NAME))))
    except PipelineError:
        return {}


def count_redone_steps(before: Sequence[TrainingRecord], after: Sequence[TrainingRecord]) -> int:
    """The steps up to a state that were done again after it.

    A resumed training keeps the records of the steps that its state holds, and writes later ones. A record
    that was written again differs, because it has the seconds that its steps took.

    Args:
        before: the log up to the state.
        after: the log of the finished training.
    """
    kept = 0
    for earlier, later in zip(before, after, strict=False):
        if earlier != later:
            break
        kept = earlier.step
    return before[-1].step - kept if before else 0
