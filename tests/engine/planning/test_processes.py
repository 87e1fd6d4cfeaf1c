"""Measuring processes: what they answer, raise, and how they end."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.engine.planning.processes import Measurement, measure_together
from pipeline.errors import InvalidCheckpoint, NoCapacity


@dataclass(frozen=True)
class Task:
    """Answers with its name and environment, raises, or dies."""

    name: str

    def prepare(self) -> Callable[[], Any]:
        if self.name == "raises":
            raise InvalidCheckpoint("it is damaged")
        return self._measure

    def _measure(self) -> tuple[str, str, str]:
        if self.name == "dies":
            os.write(2, b"out of luck\n")
            os._exit(3)
        print("what a library prints is not the answer")
        return self.name, os.environ["OMP_NUM_THREADS"], os.environ["EXTRA"]


def _measure(*names: str) -> list[Any]:
    tasks: list[Measurement] = [Task(name) for name in names]
    return measure_together(tasks, 100.0, {"EXTRA": "1"})


def test_each_process_answers_with_the_environment_of_workers() -> None:
    first, second = _measure("a", "b")
    assert first.value == ("a", "1", "1")
    assert second.value == ("b", "1", "1")
    assert first.base_seconds > 0
    assert first.prepare_seconds >= 0


def test_an_error_of_the_work_is_raised() -> None:
    with pytest.raises(InvalidCheckpoint, match="it is damaged"):
        _measure("raises")


def test_a_process_that_dies_says_why() -> None:
    with pytest.raises(NoCapacity, match="a process that measured the sample ended: out of luck"):
        _measure("dies")
