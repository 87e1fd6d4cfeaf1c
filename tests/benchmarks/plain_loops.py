"""N plain loops at once, each a process of one thread without Ray: what a job is measured against."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import perf_counter

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def seconds_of(module: str, arguments: Sequence[str], cores: int) -> float:
    """Wall-clock seconds of `cores` loops, from the moment that all are ready.

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
    for loop in loops:
        assert loop.wait() == 0
    return perf_counter() - start


def one_loop(work: Callable[[], None]) -> None:
    """Say that this loop is ready, wait for the others, do the work."""
    print("ready", flush=True)
    sys.stdin.readline()
    work()
