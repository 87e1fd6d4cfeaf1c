"""Watching an output for the only sign of a living driver: that something there changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.runs.folder_watch import LONGEST_SILENCE, describe_activity, watch_changes


class _Clock:
    """Moves when the watch waits, and does something in the output at a given wait."""

    def __init__(self, change: Callable[[], object], at_wait: int) -> None:
        self.now = 50.0
        self.waits = 0
        self._change = change
        self._at_wait = at_wait

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.waits += 1
        if self.waits == self._at_wait:
            self._change()


@pytest.mark.parametrize(
    ("name", "data"),
    [("part-1", b"new"), ("logs/progress", b"longer than before"), ("steps/latest.json", b"{}")],
)
def test_a_new_or_grown_object_ends_the_watch(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if name == "logs/progress":
        path.write_bytes(b"before")
    clock = _Clock(lambda: path.write_bytes(data), 2)
    changed, seconds = watch_changes(str(tmp_path), 10.0, clock=clock, wait=clock.wait)
    assert (changed, seconds) == ({name}, 4.0)
    assert describe_activity(changed, seconds, has_logs=True).startswith(f"at work: {name} changed")


def test_an_object_that_goes_is_a_change_and_a_user_who_reads_is_none(tmp_path: Path) -> None:
    path = tmp_path / "part-1"
    path.write_bytes(b"data")
    clock = _Clock(path.read_bytes, 1)
    assert watch_changes(str(tmp_path), 10.0, clock=clock, wait=clock.wait)[0] == frozenset()
    assert clock.now == pytest.approx(60.0)
    clock = _Clock(path.unlink, 1)
    assert watch_changes(str(tmp_path), 10.0, clock=clock, wait=clock.wait)[0] == {"part-1"}


def test_no_change_tells_only_what_it_can() -> None:
    silent: frozenset[str] = frozenset()
    assert describe_activity(silent, 999.0, has_logs=False).startswith("cannot tell")
    assert "--watch 60 can tell" in describe_activity(silent, 10.0, has_logs=True)
    assert describe_activity(silent, LONGEST_SILENCE, has_logs=True).startswith("not at work")
