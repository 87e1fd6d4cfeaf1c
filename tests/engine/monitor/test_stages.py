"""Busy shares over time, and which stage is reported as the limit."""

from __future__ import annotations

from math import exp

import pytest

from pipeline.engine.monitor.stages import FlowState, StageLoad, Utilisation


class Clock:
    """A clock that tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _state(
    propose: tuple[int, int],
    detect: tuple[int, int],
    bytes_in_flight: float = 0.0,
    queued: int = 0,
) -> FlowState:
    """The load of 4 cores and 2 detectors, each stage as (busy, waiting)."""
    return FlowState(
        [
            StageLoad("propose", "proposals on CPU", 4, *propose),
            StageLoad("detect", "detection on GPU", 2, *detect),
        ],
        bytes_in_flight,
        budget=100.0,
        queued=queued,
    )


def _observe_for(seconds: float, *states: FlowState) -> Utilisation:
    clock = Clock()
    utilisation = Utilisation(clock)
    for state in states:
        utilisation.observe(state)
        clock.now += seconds
    utilisation.observe(states[-1])
    return utilisation


def test_busy_shares_over_the_run_and_over_the_last_seconds() -> None:
    utilisation = _observe_for(15.0, _state((4, 0), (0, 0)), _state((2, 0), (2, 0)))
    assert utilisation.compute_shares() == {
        "propose": pytest.approx(0.75),
        "detect": pytest.approx(0.5),
    }
    # The last 15 s had the second state; the time constant is 30 s.
    assert utilisation.get_recent_share("propose") == pytest.approx(0.5 + 0.5 * exp(-0.5))
    assert utilisation.get_recent_share("detect") == pytest.approx(1 - exp(-0.5))


@pytest.mark.parametrize(
    ("state", "limit"),
    [
        (_state((4, 4), (1, 0)), "proposals on CPU"),
        (_state((4, 4), (2, 2)), "detection on GPU"),  # the cores produce what waits there
        (_state((1, 0), (2, 2)), "detection on GPU"),
        (_state((4, 0), (1, 0)), "proposals on CPU"),
        (_state((2, 0), (1, 0), bytes_in_flight=90.0), "object store memory"),
        (_state((1, 0), (1, 0)), "none, few shards are left"),
        (_state((1, 0), (1, 0), queued=1), "none, no stage is fully used"),
        (_state((4, 0), (1, 0), queued=9), "proposals on CPU"),
    ],
)
def test_the_limit_is_the_stage_that_the_others_wait_for(state: FlowState, limit: str) -> None:
    assert _observe_for(60.0, state).find_limit() == limit


@pytest.mark.parametrize(
    ("queued", "limit"),
    [(800, "none yet, the stages are filling"), (0, "none, few shards are left")],
)
def test_few_shards_are_left_only_if_no_piece_waits(queued: int, limit: str) -> None:
    """At the start no stage is busy either: the detectors load while the first pieces are read."""
    assert _observe_for(10.0, _state((1, 0), (0, 0), queued=queued)).find_limit() == limit


def test_before_the_first_observation_there_is_no_limit() -> None:
    assert Utilisation().describe({}) == "limit: none yet"
    assert Utilisation().compute_shares() == {}
