"""An object store that dies, or that for a while answers with errors, late, in part or not at all."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import pytest

from tests.chaos import outputs
from tests.chaos.outcome import Outcome
from tests.chaos.proxy import Kind
from tests.chaos.stage import Stage
from tests.chaos.trial import Trial
from tests.swift import forget_clients

TROUBLE_SECONDS = 12.0
IMAGE_SECONDS = ("--image-seconds", "15")
"""Less than a request waits in a silent store, which must not count as the image's time."""
LATE_SECONDS = 900.0
"""How late listings are: more than a run and its rerun take."""


def restart_store(stage: Stage) -> Outcome:
    """SIGKILL all servers of the store; start them again after ten seconds."""
    assert stage.swift is not None
    trial = Trial(stage, "store_restarted", inputs=stage.stored)
    trial.wait_for_third()
    trial.check_at_work("the store did")
    stage.swift.kill()
    time.sleep(10)
    stage.swift.start()
    trial.wait_for_end()
    trial.rerun_until_done()
    return trial.compare()


def stop_store(stage: Stage) -> Outcome:
    """SIGKILL the store, and start it again only after the run has failed."""
    assert stage.swift is not None
    trial = Trial(stage, "store_down", inputs=stage.stored)
    trial.wait_for_third()
    stage.swift.kill()
    code = trial.wait_for_end()
    stage.swift.start()
    log = trial.driver.read_log()
    if code != 1 or "a rerun does the rest" not in log:
        raise AssertionError(f"exit code {code}, expected 1 and advice to rerun:\n{log[-3000:]}")
    trial.remember_parts()
    trial.rerun_until_done()
    return trial.compare(note="ends with an error that names the store", allowed_reruns=1)


def disturb_store(
    trial: Trial,
    kind: Kind,
    share: float = 1.0,
    seconds: float = 2.0,
    lasting: float = TROUBLE_SECONDS,
) -> int:
    """Let the store misbehave after a third of a run's parts; returns how many requests met the fault.

    Args:
        trial: a run in the store.
        kind: how the store misbehaves.
        share: share of the requests that meet the fault.
        seconds: longest delay of a slow answer.
        lasting: seconds until the store works again.

    Raises:
        AssertionError: no request met the fault.
    """
    proxy = trial.stage.proxy
    assert proxy is not None
    trial.wait_for_third()
    before = proxy.faulty_requests
    with proxy.inject(kind, share, seconds):
        time.sleep(lasting)
    affected = proxy.faulty_requests - before
    if not affected:
        raise AssertionError("no request met the fault")
    return affected


def _disturb_store(
    stage: Stage, kind: Kind, share: float, seconds: float, lasting: float
) -> Outcome:
    trial = Trial(stage, f"store_{kind}", *IMAGE_SECONDS, inputs=stage.stored)
    affected = disturb_store(trial, kind, share, seconds, lasting)
    trial.wait_for_end()
    trial.rerun_until_done()
    return trial.compare(note=f"{affected} requests affected")


def list_late(stage: Stage) -> Outcome:
    """Listings lag behind while a run is killed, while its rerun works, and while its output is read."""
    proxy = stage.proxy
    assert proxy is not None
    trial = Trial(stage, "store_lists_late", begin=False, inputs=stage.stored)
    before = proxy.faulty_requests
    with proxy.inject("late", seconds=LATE_SECONDS):
        trial.driver = trial.start_job()
        trial.wait_for_third()
        trial.kill_driver()
        trial.rerun_until_done()
        listed = _read_as_jobs(trial)
    unlisted = trial.committed.keys() - listed
    if not unlisted:
        raise AssertionError("the runs were so slow that the parts of the first one were listed")
    affected = proxy.faulty_requests - before
    note = f"{affected} listings, in which {len(unlisted)} parts of the killed run are missing"
    return trial.compare(note=note, allowed_reruns=1)


def _read_as_jobs(trial: Trial) -> set[str]:
    """The parts that jobs see listed in a complete output, which must be readable with these."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in trial.stage.store_environment.items():
            patch.setenv(name, value)
        forget_clients()
        try:
            if not outputs.is_readable(trial.output):
                raise AssertionError("readers reject a complete output whose parts are listed late")
            return set(outputs.list_parts(trial.output))
        finally:
            forget_clients()


def build_store_fault(
    kind: Kind, share: float = 1.0, seconds: float = 2.0, lasting: float = TROUBLE_SECONDS
) -> Callable[[Stage], Outcome]:
    """Build the fault in which the store misbehaves for a while.

    Args:
        kind: how the store misbehaves.
        share: share of the requests that meet the fault.
        seconds: longest delay of a slow answer.
        lasting: seconds until the store works again.
    """
    return functools.partial(
        _disturb_store, kind=kind, share=share, seconds=seconds, lasting=lasting
    )
