"""Processes by their place in the process tree; this only kills processes that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def list_descendants(pid: int) -> list[int]:
    """The living descendants of a process, parents first."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(process.name))
    tree = [pid]
    for parent in tree:
        tree.extend(children.get(parent, ()))
    return tree[1:]


def read_command(pid: int) -> str:
    """The command line, or title, of a process; empty if the process has ended."""
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    return ""


def send_signal(pids: list[int], number: signal.Signals) -> None:
    """Send a signal; processes that have ended are ignored."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_tree(process: subprocess.Popen[Any]) -> None:
    """SIGKILL a process with all its descendants and wait until they have ended."""
    descendants = list_descendants(process.pid)
    send_signal([*descendants, process.pid], signal.SIGKILL)
    process.wait()
    with contextlib.suppress(TimeoutError):  # they may write until they have ended
        wait_until(lambda: not any(map(read_command, descendants)), "end of the descendants", 20)


def find_by_path(path: Path) -> list[int]:
    """The processes whose command line contains a path."""
    pids = [int(process.name) for process in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if str(path) in read_command(pid)]


def wait_until(
    condition: Callable[[], bool], description: str, seconds: float = 90, interval: float = 0.02
) -> None:
    """Wait until `condition` returns true.

    Raises:
        TimeoutError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{description}: did not happen within {seconds:g} s")
        time.sleep(interval)
