"""Training under faults: two drivers, an overwriting one that is killed, a killed one, a store that is down.

Each network is compared with that of an undisturbed training, tensor by tensor: the same seed gives the same
weights on the same machine, whatever interrupted the training. A rerun that starts from step 0 has the same
weights too, so the log must show that it went on from the latest state.
"""

from __future__ import annotations

import signal
from pathlib import Path

from pipeline import storage, uris
from tests.chaos.driver import DRIVER_SECONDS
from tests.chaos.outcome import Outcome
from tests.chaos.processes import send_signal, wait_until
from tests.chaos.stage import Stage
from tests.chaos.training_trial import STEPS, Tensors, TrainingTrial, read_tensors


def _train_undisturbed(stage: Stage, seed: int) -> Tensors:
    """The network of an undisturbed training; the first call for a seed trains it."""
    trial = TrainingTrial(stage, f"undisturbed_{seed}")
    if not Path(trial.output, "model.json").exists():
        driver = trial.start_job("--seed", str(seed))
        if code := driver.wait():
            raise RuntimeError(f"exit code {code}:\n{driver.read_log()[-3000:]}")
    return read_tensors(trial.output)


def kill_driver(stage: Stage) -> Outcome:
    """SIGKILL the driver in the middle of an epoch, with its workers; then the same command."""
    expected = _train_undisturbed(stage, 0)
    trial = TrainingTrial(stage, "driver_killed")
    driver = trial.start_job("--seed", "0")
    trial.wait_for_step(driver, STEPS // 4)
    trial.kill_job(driver)
    trial.rerun_until_done("--seed", "0")
    return trial.compare(expected, 0, allowed_reruns=1)


def stop_driver(stage: Stage) -> Outcome:
    """Stop a driver with its workers, finish its training with the same command, and continue it."""
    expected = _train_undisturbed(stage, 0)
    trial = TrainingTrial(stage, "driver_stopped")
    first = trial.start_job("--seed", "0")
    trial.wait_for_step(first, STEPS // 4)
    stopped = [first.process.pid, *stage.cluster.list_busy_workers()]
    send_signal(stopped, signal.SIGSTOP)
    try:
        trial.remember_state()
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
    trial.kill_job(driver)
    if storage.exists(uris.join(trial.output, "model.json")):
        raise AssertionError("the overwritten training's network is still there")
    trial.rerun_until_done("--seed", "1")
    return trial.compare(expected, 1, allowed_reruns=1)


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
    trial.remember_state()
    trial.rerun_until_done("--seed", "0")
    return trial.compare(expected, 0, "ends with an error in one line", allowed_reruns=1)
