"""N plain loops at once, each a single-threaded process without Ray: the baseline of a job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import NamedTuple

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


class TimeSpent(NamedTuple):
    """Wall and CPU time of some work."""

    wall: float
    """Seconds."""
    cpu: float
    """CPU seconds of all its processes; other load on the machine adds little."""


def time_loops(module: str, arguments: Sequence[str], cores: int) -> TimeSpent:
    """Run `cores` loops at once and time them from the moment that all are ready.

    Args:
        module: a benchmark that calls `run_loop` when its arguments include `--loop RANK WORLD`.
        arguments: its other arguments.
        cores: number of loops.
    """
    loops = [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--loop", str(rank), str(cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD,
        )
        for rank in range(cores)
    ]
    for loop in loops:
        assert loop.stdout is not None
        assert loop.stdout.readline() == "ready\n"
    start = perf_counter()
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write("go\n")
        loop.stdin.flush()
    reports = []
    for loop in loops:
        assert loop.stdout is not None
        reports.append(loop.stdout.readline())
    wall = perf_counter() - start
    for loop in loops:
        loop.communicate()
        assert loop.returncode == 0
    return TimeSpent(wall, sum(float(line) for line in reports))


def run_loop(work: Callable[[], None]) -> None:
    """Print that this loop is ready, wait for the others, do the work, print its CPU seconds."""
    print("ready", flush=True)
    sys.stdin.readline()
    begin = process_time()
    work()
    print(process_time() - begin, flush=True)
