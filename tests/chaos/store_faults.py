"""An object store that dies, or that answers with errors, late, half or not at all for a while."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from tests.chaos.outcome import Outcome, Trial
from tests.chaos.proxy import Kind
from tests.chaos.stage import Stage

TROUBLE_SECONDS = 12.0


def store_restarted(stage: Stage) -> Outcome:
    """SIGKILL of all of the store's servers; they are back after ten seconds."""
    assert stage.swift is not None
    trial = Trial(stage, "store_restarted", inputs=stage.stored)
    trial.await_a_third()
    stage.swift.kill()
    time.sleep(10)
    stage.swift.start()
    trial.ended()
    trial.rerun_until_done()
    return trial.outcome()


def store_down(stage: Stage) -> Outcome:
    """SIGKILL of the store, which stays away until the run gave up."""
    assert stage.swift is not None
    trial = Trial(stage, "store_down", inputs=stage.stored)
    trial.await_a_third()
    stage.swift.kill()
    code = trial.ended()
    stage.swift.start()
    told = trial.driver.told()
    if code != 1 or "a rerun does the rest" not in told:
        raise AssertionError(
            f"exit code {code}, expected 1 and a word on how to go on:\n{told[-3000:]}"
        )
    trial.remember()
    trial.rerun_until_done()
    return trial.outcome(note="ends with an error that names it", allowed_reruns=1)


def _trouble(stage: Stage, kind: Kind, share: float, seconds: float, lasting: float) -> Outcome:
    """A store that answers so for a while."""
    proxy = stage.proxy
    assert proxy is not None
    trial = Trial(stage, f"store_{kind}", "--image-seconds", "15", inputs=stage.stored)
    trial.await_a_third()
    met = proxy.troubled
    with proxy.trouble(kind, share, seconds):
        time.sleep(lasting)
    met = proxy.troubled - met
    if not met:
        raise AssertionError("no request met the fault")
    trial.ended()
    trial.rerun_until_done()
    return trial.outcome(note=f"{met} requests met it")


def trouble(
    kind: Kind, share: float = 1.0, seconds: float = 2.0, lasting: float = TROUBLE_SECONDS
) -> Callable[[Stage], Outcome]:
    """The fault in which a store answers so for a while.

    Args:
        kind: how it answers.
        share: to which share of the requests.
        seconds: how long a slow answer takes at most.
        lasting: seconds until the store is well again.
    """
    return functools.partial(_trouble, kind=kind, share=share, seconds=seconds, lasting=lasting)
