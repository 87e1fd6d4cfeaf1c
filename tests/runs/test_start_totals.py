"""Sums over several starts, one of which is killed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from time import monotonic, sleep

import pytest

from pipeline import storage
from pipeline.errors import StorageError
from pipeline.runs import start_totals
from pipeline.runs.start_totals import StartTotals, read_start_totals
from tests.project_log import read_project_log


class Clock:
    """A time that moves only when it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def work(uri: str, seconds: float, windows: int) -> StartTotals:
    """A start that takes some seconds for some windows."""
    clock = Clock()
    totals = StartTotals(uri, clock=clock)
    with totals:
        clock.now += seconds
        totals.add("windows", windows)
    return totals


def await_sums(uri: str, expected: dict[str, float]) -> None:
    deadline = monotonic() + 20
    while read_start_totals(uri) != expected and monotonic() < deadline:
        sleep(0.01)
    assert read_start_totals(uri) == expected


def test_a_later_start_adds_to_the_sums_of_earlier_ones(tmp_path: Path) -> None:
    uri = str(tmp_path / "features-driver.json")
    assert work(uri, 3.0, 40).compute() == {"seconds": 3.0, "windows": 40}
    second = work(uri, 2.0, 10)
    assert second.compute() == read_start_totals(uri) == {"seconds": 5.0, "windows": 50}
    assert second.elapsed == 2.0


def test_a_killed_start_counts_up_to_the_last_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_totals, "PUT_PAUSE", 0.01)
    uri = str(tmp_path / "features-driver.json")
    clock = Clock()
    killed = StartTotals(uri, clock=clock, clock_name="cpu_seconds", put_every=600)
    killed.__enter__()
    clock.now += 7.0
    killed.add("windows", 5)  # is put at once, together with the time
    await_sums(uri, {"cpu_seconds": 7.0, "windows": 5})
    stored = Path(uri).read_bytes()
    killed.__exit__(None, None, None)  # ends its thread
    Path(uri).write_bytes(stored)
    with StartTotals(uri, clock=clock, clock_name="cpu_seconds") as totals:
        clock.now += 1.0
        assert totals.compute() == {"cpu_seconds": 8.0, "windows": 5}


def test_time_is_put_without_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_totals, "PUT_PAUSE", 0.01)
    uri, clock = str(tmp_path / "svm-worker.json"), Clock()
    with StartTotals(uri, clock=clock, put_every=0.01):
        clock.now += 2.0
        await_sums(uri, {"seconds": 2.0})


def test_an_error_of_the_work_or_of_the_store_loses_no_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "totals.json")
    with contextlib.suppress(RuntimeError), StartTotals(uri) as totals:
        totals.add("windows", 3)
        raise RuntimeError("broken")
    assert read_start_totals(uri)["windows"] == 3

    def fail(uri: str, data: bytes) -> None:
        raise StorageError(f"{uri}: SlowDown")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "put", fail)
        assert work(uri, 1.0, 4).compute()["windows"] == 7


@pytest.mark.parametrize("content", [b"no json", b"[]", json.dumps({"seconds": "3"}).encode()])
def test_damaged_sums_count_as_none_with_a_warning(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = str(tmp_path / "totals.json")
    Path(uri).write_bytes(content)
    assert work(uri, 1.0, 4).compute() == {"seconds": 1.0, "windows": 4}
    (line,) = read_project_log(caplog)
    assert f"{uri} is damaged" in line
