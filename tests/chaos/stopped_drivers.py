"""A driver that is cut off while another one finishes its output on another cluster, and that then goes on.

Behind a network partition, or on suspended machines, a driver lives but does nothing. Its job is submitted
again elsewhere. Here it is stopped with SIGSTOP and continued with SIGCONT.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

from tests.chaos import outputs
from tests.chaos.outcome import Outcome
from tests.chaos.processes import send_signal
from tests.chaos.raylets import Raylets
from tests.chaos.stage import AT_WORK, Stage
from tests.chaos.trial import Trial

LATE_SECONDS = 5
"""How long to wait for what a driver that has ended may still write."""


def stop_driver(stage: Stage) -> Outcome:
    """Stop a driver and its workers, finish its output with the same command, and continue them."""
    trial = Trial(stage, "driver_stopped")
    trial.wait_for_third()
    stopped = trial.driver
    workers = stage.cluster.list_busy_workers()
    with _finish_elsewhere(trial, [stopped.process.pid, *workers]):
        trial.driver = trial.start_job()
    code, log = stopped.wait(), stopped.read_log()
    if code or "the driver stood still" not in log:
        raise AssertionError(f"exit code {code}, expected 0 after a standstill:\n{log[-3000:]}")
    # What its workers had begun is written again, with the same content.
    return trial.compare(note="continued when another driver had finished", allowed_redone=AT_WORK)


def stop_overwritten_driver(stage: Stage) -> Outcome:
    """Stop a driver, finish its output with other settings and `--overwrite`, and continue it."""
    trial = Trial(stage, "driver_stopped_overwritten", begin=False)
    stopped = trial.start_job("--seed", "7")
    stopped.wait_for_parts(trial.third_of_parts)
    with _finish_elsewhere(trial, [stopped.process.pid]):
        trial.driver = trial.start_job("--overwrite")
    code, log = stopped.wait(), stopped.read_log()
    time.sleep(LATE_SECONDS)
    strays = outputs.list_parts(trial.output).keys() - trial.committed.keys()
    if code != 2 or "is not of this run" not in log or strays:
        raise AssertionError(f"exit code {code}, expected 2; late parts {strays}:\n{log[-3000:]}")
    return trial.compare(note="ends with an error that names the other run, and writes nothing")


@contextlib.contextmanager
def _finish_elsewhere(trial: Trial, stopped: list[int]) -> Iterator[None]:
    """Stop processes while the job that the block starts runs on another cluster to its end."""
    send_signal(stopped, signal.SIGSTOP)
    try:
        with trial.stage.use_cluster(Raylets(trial.stage.store_environment)):
            yield
            if code := trial.wait_for_end():
                raise AssertionError(f"exit code {code}:\n{trial.driver.read_log()[-3000:]}")
        trial.remember_parts()
    finally:
        send_signal(stopped, signal.SIGCONT)
