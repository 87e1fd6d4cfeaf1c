"""Training under faults: two drivers, an overwriting one that is killed, a killed one, a store that is down.

Each network is compared with that of an undisturbed training, tensor by tensor: the same seed gives the same
weights on the same machine, whatever interrupted the training.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
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
from tests.chaos.outcome import MOST_RERUNS, Outcome
from tests.chaos.processes import kill_tree, send_signal, wait_until
from tests.chaos.stage import DRIVER_SECONDS, ROOT, Driver, Stage
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
    """One output of a training under one fault."""

    stage: Stage
    fault: str
    in_store: bool = False
    reruns: int = 0
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

    def compare(self, expected: Tensors, seed: int, note: str = "") -> Outcome:
        """Compare the network with the undisturbed training's, and the record with the settings."""
        tensors = _read_tensors(self.output)
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
            0,
            (),
            (),
            round(time.monotonic() - self.began, 1),
            note,
            allowed_reruns=self.reruns,
        )


def _read_tensors(output: str) -> Tensors:
    try:
        return dict(safetensors.numpy.load(storage.read(uris.join(output, WEIGHTS_NAME))))
    except PipelineError:
        return {}


def _train_undisturbed(stage: Stage, seed: int) -> Tensors:
    """The network of an undisturbed training; the first call for a seed trains it."""
    trial = TrainingTrial(stage, f"undisturbed_{seed}")
    if not Path(trial.output, "model.json").exists():
        driver = trial.start_job("--seed", str(seed))
        if code := driver.wait():
            raise RuntimeError(f"exit code {code}:\n{driver.read_log()[-3000:]}")
    return _read_tensors(trial.output)


def kill_driver(stage: Stage) -> Outcome:
    """SIGKILL the driver in the middle of an epoch, with its workers; then the same command."""
    expected = _train_undisturbed(stage, 0)
    trial = TrainingTrial(stage, "driver_killed")
    driver = trial.start_job("--seed", "0")
    trial.wait_for_step(driver, STEPS // 4)
    kill_tree(driver.process)
    trial.rerun_until_done("--seed", "0")
    return trial.compare(expected, 0)


def stop_driver(stage: Stage) -> Outcome:
    """Stop a driver with its workers, finish its training with the same command, and continue it."""
    expected = _train_undisturbed(stage, 0)
    trial = TrainingTrial(stage, "driver_stopped")
    first = trial.start_job("--seed", "0")
    trial.wait_for_step(first, STEPS // 4)
    stopped = [first.process.pid, *stage.cluster.list_busy_workers()]
    send_signal(stopped, signal.SIGSTOP)
    try:
        second = trial.start_job("--seed", "0")
        codes = [second.wait()]
    finally:
        send_signal(stopped, signal.SIGCONT)
    codes.append(first.wait())
    if any(codes):
        logs = "".join(driver.read_log()[-1500:] for driver in (first, second))
        raise AssertionError(f"exit codes {codes}:\n{logs}")
    return trial.compare(expected, 0, "continued when another driver had finished")


def run_two_drivers(stage: Stage) -> Outcome:
    """A second driver with another seed overwrites the output: the first must end with an error."""
    expected = _train_undisturbed(stage, 1)
    trial = TrainingTrial(stage, "two_drivers")
    first = trial.start_job("--seed", "0")
    trial.wait_for_step(first, 20)
    workers = stage.cluster.list_workers("RayTrainWorker")
    send_signal(workers, signal.SIGSTOP)  # else a quick training ends before the other one begins
    try:
        second = trial.start_job("--seed", "1", "--overwrite")
        wait_until(lambda: trial.read_seed() == 1, "record of the second", DRIVER_SECONDS, 0.1)
    finally:
        send_signal(workers, signal.SIGCONT)
    codes = [first.wait(), second.wait()]
    log = first.read_log()
    if codes != [2, 0] or "is not of this run" not in log:
        raise AssertionError(f"exit codes {codes}, expected [2, 0]:\n{log[-3000:]}")
    return trial.compare(expected, 1, "the first ends with an error that names the other")


def run_two_equal_drivers(stage: Stage) -> Outcome:
    """The same command twice at once: both succeed with one network."""
    expected = _train_undisturbed(stage, 0)
    trial = TrainingTrial(stage, "two_equal_drivers")
    drivers = [trial.start_job("--seed", "0") for _ in range(2)]
    codes = [driver.wait() for driver in drivers]
    if any(codes):
        logs = "".join(driver.read_log()[-1500:] for driver in drivers)
        raise AssertionError(f"exit codes {codes}:\n{logs}")
    return trial.compare(expected, 0)


def kill_overwriting_driver(stage: Stage) -> Outcome:
    """SIGKILL a driver that overwrites another training; then the same command without --overwrite."""
    expected = _train_undisturbed(stage, 1)
    trial = TrainingTrial(stage, "overwrite_killed")
    if code := trial.start_job("--seed", "0").wait():
        raise RuntimeError(f"exit code {code}")
    driver = trial.start_job("--seed", "1", "--overwrite")
    trial.wait_for_step(driver, 20)
    kill_tree(driver.process)
    if storage.exists(uris.join(trial.output, "model.json")):
        raise AssertionError("the overwritten training's network is still there")
    trial.rerun_until_done("--seed", "1")
    return trial.compare(expected, 1)


def stop_store(stage: Stage) -> Outcome:
    """SIGKILL the store at a state, for longer than the job retries; then the same command."""
    assert stage.swift is not None
    expected = _train_undisturbed(stage, 0)
    trial = TrainingTrial(stage, "store_down", in_store=True)
    driver = trial.start_job("--seed", "0")
    trial.wait_for_step(driver, 20)
    stage.swift.kill()
    code = driver.wait()
    stage.swift.start()
    if code == 0 or "Traceback" in driver.read_log():
        raise AssertionError(f"exit code {code}, expected an error:\n{driver.read_log()[-3000:]}")
    trial.rerun_until_done("--seed", "0")
    return trial.compare(expected, 0, "ends with an error in one line")
