"""Utilisation over time, and which stage is called the limit."""

from __future__ import annotations

from math import exp

import pytest

from pipeline.engine.monitor.stages import FlowState, StageLoad, Utilisation


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _state(propose: tuple[int, int], detect: tuple[int, int], held: float = 0.0) -> FlowState:
    """Of 4 cores and 2 detectors, each stage as (busy, waiting)."""
    return FlowState(
        [
            StageLoad("propose", "proposals on CPU", 4, *propose),
            StageLoad("detect", "detection on GPU", 2, *detect),
        ],
        held,
        budget=100.0,
    )


def _seen_for(seconds: float, *states: FlowState) -> Utilisation:
    clock = Clock()
    utilisation = Utilisation(clock)
    for state in states:
        utilisation.look(state)
        clock.now += seconds
    utilisation.look(states[-1])
    return utilisation


def test_means_over_the_run_and_of_late() -> None:
    found = _seen_for(15.0, _state((4, 0), (0, 0)), _state((2, 0), (2, 0)))
    assert found.means() == {"propose": pytest.approx(0.75), "detect": pytest.approx(0.5)}
    # Lately: 15 s of the second state, with a time constant of 30 s.
    assert found.recent("propose") == pytest.approx(0.5 + 0.5 * exp(-0.5))
    assert found.recent("detect") == pytest.approx(1 - exp(-0.5))


@pytest.mark.parametrize(
    ("state", "limit"),
    [
        (_state((4, 4), (1, 0)), "proposals on CPU"),
        (_state((4, 4), (2, 2)), "detection on GPU"),  # the cores are busy with what waits there
        (_state((1, 0), (2, 2)), "detection on GPU"),
        (_state((4, 0), (1, 0)), "proposals on CPU"),
        (_state((2, 0), (1, 0), held=90.0), "object store memory"),
        (_state((1, 0), (1, 0)), "none, few shards are left"),
    ],
)
def test_the_limit_is_what_the_others_wait_for(state: FlowState, limit: str) -> None:
    assert _seen_for(60.0, state).limit() == limit


def test_before_anything_was_seen() -> None:
    assert Utilisation().told({}) == "limit: none yet"
    assert Utilisation().means() == {}
