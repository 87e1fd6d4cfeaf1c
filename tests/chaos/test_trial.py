"""The checks by which a trial finds that a fault did not strike a run at work, on processes without Ray."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.chaos import trial as trials
from tests.chaos.driver import Driver
from tests.chaos.processes import wait_until
from tests.chaos.raylets import Raylets
from tests.chaos.stage import SHARD_SIZE, Inputs, Stage
from tests.chaos.trial import Trial

PARTS = 6
SLEEPING = [sys.executable, "-c", "import time; time.sleep(600)"]
ENDED = [sys.executable, "-c", ""]


class _Cluster:
    """Stands in for the cluster: its workers are given processes."""

    def __init__(self, *workers: int) -> None:
        self.workers = list(workers)

    def list_workers(self, title: str) -> list[int]:
        assert title == ""
        return self.workers


@pytest.fixture
def start_process() -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    """Starts processes that end with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(command))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _make_trial(folder: Path, process: subprocess.Popen[bytes], parts: int) -> Trial:
    """A trial whose driver is `process`, and whose output has that many of its parts."""
    expected: list[dict[str, Any]] = [{}] * (PARTS * SHARD_SIZE - 1)
    stage = Stage(
        folder,
        cast(Raylets, _Cluster(process.pid)),
        [],
        Inputs("manifest", "checkpoint", str(folder)),
        expected,
    )
    trial = Trial(stage, "fault", begin=False)
    trial.driver = Driver(process, trial.output, folder / "log")
    Path(trial.output).mkdir()
    for number in range(parts):
        Path(trial.output, f"part-{number}.parquet").touch()
    return trial


def _read_state(pid: int) -> str:
    """The letter by which the kernel names a process's state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_run_that_lacks_parts_is_at_work(tmp_path: Path, start_process: Any) -> None:
    trial = _make_trial(tmp_path, start_process(SLEEPING), PARTS - 1)
    assert (trial.shards, trial.third_of_parts) == (PARTS, PARTS // 3)
    trial.check_at_work("the node did")
    Path(trial.output, "part-last.parquet").touch()
    with pytest.raises(AssertionError, match="fault: the run ended before the node did"):
        trial.check_at_work("the node did")


def test_a_run_whose_driver_has_ended_is_not_at_work(tmp_path: Path, start_process: Any) -> None:
    process = start_process(ENDED)
    process.wait()
    with pytest.raises(AssertionError, match="the run ended before the head was back"):
        _make_trial(tmp_path, process, 0).check_at_work("the head was back")


def test_a_killed_driver_leaves_its_parts(
    tmp_path: Path, start_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "SETTLING_SECONDS", 0.0)
    trial = _make_trial(tmp_path, start_process(SLEEPING), 2)
    trial.kill_driver()
    assert trial.codes == [-signal.SIGKILL]
    assert set(trial.committed) == {"part-0.parquet", "part-1.parquet"}


def test_a_driver_that_ended_by_itself_is_not_killed(tmp_path: Path, start_process: Any) -> None:
    process = start_process(ENDED)
    wait_until(lambda: _read_state(process.pid) == "Z", "end of the process")
    with pytest.raises(AssertionError, match="ended before its driver was killed"):
        _make_trial(tmp_path, process, 2).kill_driver()


def test_held_workers_stand_still_while_the_block_runs(tmp_path: Path, start_process: Any) -> None:
    process = start_process(SLEEPING)
    trial = _make_trial(tmp_path, process, 2)
    with trial.hold_workers():
        wait_until(lambda: _read_state(process.pid) == "T", "standstill of the worker", 20)
    wait_until(lambda: _read_state(process.pid) != "T", "continued worker", 20)
