"""An object store that dies, or that for a while answers with errors, late, in part or not at all."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import pytest

from tests.chaos import outputs
from tests.chaos.outcome import Outcome, Trial
from tests.chaos.proxy import Kind
from tests.chaos.stage import Stage
from tests.swift import forget_clients

TROUBLE_SECONDS = 12.0
LATE_SECONDS = 30.0
"""How late listings are."""


def restart_store(stage: Stage) -> Outcome:
    """SIGKILL all servers of the store; start them again after ten seconds."""
    assert stage.swift is not None
    trial = Trial(stage, "store_restarted", inputs=stage.stored)
    trial.wait_for_third()
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


def _disturb_store(
    stage: Stage, kind: Kind, share: float, seconds: float, lasting: float
) -> Outcome:
    """Inject a fault into the store's answers for `lasting` seconds."""
    proxy = stage.proxy
    assert proxy is not None
    trial = Trial(stage, f"store_{kind}", "--image-seconds", "15", inputs=stage.stored)
    trial.wait_for_third()
    before = proxy.faulty_requests
    with proxy.inject(kind, share, seconds):
        time.sleep(lasting)
    affected = proxy.faulty_requests - before
    if not affected:
        raise AssertionError("no request met the fault")
    trial.wait_for_end()
    trial.rerun_until_done()
    return trial.compare(note=f"{affected} requests affected")


def list_late(stage: Stage) -> Outcome:
    """Listings lag behind during the run, a rerun of it and the reading of its output."""
    proxy = stage.proxy
    assert proxy is not None
    trial = Trial(stage, "store_lists_late", begin=False, inputs=stage.stored)
    before = proxy.faulty_requests
    with proxy.inject("late", seconds=LATE_SECONDS), pytest.MonkeyPatch.context() as patch:
        trial.driver = trial.start_job()
        trial.wait_for_third()
        trial.wait_for_end()
        for name, value in stage.store_environment.items():
            patch.setenv(name, value)
        forget_clients()
        listed = len(outputs.list_parts(trial.output))
        if not outputs.is_readable(trial.output):
            raise AssertionError("readers reject a complete output whose parts are listed late")
    forget_clients()
    parts = len(outputs.list_parts(trial.output))
    if listed == parts:
        raise AssertionError("the run was so slow that its last parts were listed")
    trial.rerun_until_done()
    affected = proxy.faulty_requests - before
    return trial.compare(note=f"{affected} listings, the last lacks {parts - listed} parts")


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
