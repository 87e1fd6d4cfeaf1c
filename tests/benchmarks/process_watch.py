"""Seconds and memory of a process and of all that descend from it, by stage: `ProcessWatch(pid)`.

Memory is each process's own: its resident pages without those that it shares, such as Ray's object
store. It is sampled four times a second, so a shorter peak may be missed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

DRIVER, TASKS, RAY = "driver", "a task", "a process of Ray"
"""The kinds of processes."""
_PERIOD = 0.25


@dataclass
class StageUse:
    """What one stage of a job took."""

    name: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of all processes together."""
    peaks: dict[str, int] = field(default_factory=dict)
    """Bytes by kind of process: the most of any process of this kind."""


class ProcessWatch:
    """Samples a process and its descendants until it is stopped.

    Args:
        pid: the process, which is named `DRIVER`.
    """

    def __init__(self, pid: int) -> None:
        self.stages: list[StageUse] = []
        self._pid = pid
        self._busy: dict[int, float] = {}
        self._peaks: dict[str, int] = {}
        self._started, self._busy_before = perf_counter(), 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample_often, daemon=True)
        self._thread.start()

    def end_stage(self, name: str) -> None:
        """End a stage, which began where the one before it ended."""
        self._sample()
        with self._lock:
            now, busy = perf_counter(), sum(self._busy.values())
            stage = StageUse(name, now - self._started, busy - self._busy_before, self._peaks)
            self._started, self._busy_before, self._peaks = now, busy, {}
        self.stages.append(stage)

    def stop(self) -> None:
        """End the sampling."""
        self._stopped.set()
        self._thread.join()

    def _sample_often(self) -> None:
        while not self._stopped.wait(_PERIOD):
            self._sample()

    def _sample(self) -> None:
        for pid in _list_family(self._pid):
            try:
                kind = DRIVER if pid == self._pid else _name_kind(pid)
                private, busy = _read_private(pid), _read_busy_seconds(pid)
            except (OSError, ValueError):
                continue  # it ended meanwhile
            with self._lock:
                self._busy[pid] = busy
                self._peaks[kind] = max(self._peaks.get(kind, 0), private)


def sum_stages(stages: list[StageUse]) -> StageUse:
    """All stages together."""
    whole = StageUse("all")
    for stage in stages:
        whole.seconds += stage.seconds
        whole.cpu_seconds += stage.cpu_seconds
        for kind, peak in stage.peaks.items():
            whole.peaks[kind] = max(whole.peaks.get(kind, 0), peak)
    return whole


def _list_family(root: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _name_kind(pid: int) -> str:
    command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return TASKS if command.startswith("ray::") else RAY


def _read_private(pid: int) -> int:
    """Bytes of a process's resident pages without shared ones."""
    fields = [int(word) for word in Path(f"/proc/{pid}/statm").read_text().split()]
    return (fields[1] - fields[2]) * os.sysconf("SC_PAGE_SIZE")


def _read_busy_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
