"""N plain loops at once, each a process of one thread without Ray: what a job is measured against."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import NamedTuple

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


class Spent(NamedTuple):
    """What some work took."""

    wall: float
    """Seconds."""
    cpu: float
    """CPU seconds of all its processes: a busy machine adds few of them."""


def spent_by(module: str, arguments: Sequence[str], cores: int) -> Spent:
    """What `cores` loops took, from the moment that all are ready.

    Args:
        module: a benchmark that runs one loop when it is given `--loop RANK WORLD`, through `one_loop`.
        arguments: its other arguments.
        cores: how many loops.
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
    told = []
    for loop in loops:
        assert loop.stdout is not None
        told.append(loop.stdout.readline())
    wall = perf_counter() - start
    for loop in loops:
        loop.communicate()
        assert loop.returncode == 0
    return Spent(wall, sum(float(line) for line in told))


def one_loop(work: Callable[[], None]) -> None:
    """Say that this loop is ready, wait for the others, do the work, tell its CPU seconds."""
    print("ready", flush=True)
    sys.stdin.readline()
    begin = process_time()
    work()
    print(process_time() - begin, flush=True)


def cpu_seconds_of_descendants() -> float:
    """CPU seconds that this process's children have used, and theirs: of a local Ray, all of it."""
    parents: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents.setdefault(int(fields[1]), []).append(int(folder.name))
        ticks = sum(int(field) for field in fields[11:15])  # own, and of children that ended
        seconds[int(folder.name)] = ticks / os.sysconf("SC_CLK_TCK")
    found, left = 0.0, list(parents.get(os.getpid(), ()))
    while left:
        pid = left.pop()
        found += seconds[pid]
        left += parents.get(pid, ())
    return found
