"""Processes by their place in the tree: what is killed here was started here."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def below(pid: int) -> list[int]:
    """The living processes below one, parents first."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(process.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found[1:]


def command(pid: int) -> str:
    """The command line, or title, of a process; empty where it is gone."""
    with contextlib.suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    return ""


def send(pids: list[int], what: signal.Signals) -> None:
    """Send a signal; a process that is gone already is no error."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process that was started here, with all below it, and wait until they are gone."""
    children = below(process.pid)
    send([*children, process.pid], signal.SIGKILL)
    process.wait()
    with contextlib.suppress(TimeoutError):  # they write until they are dead
        awaited(lambda: not any(command(pid) for pid in children), "their end", 20)


def naming(path: Path) -> list[int]:
    """The processes whose command line names a path."""
    pids = [int(process.name) for process in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if str(path) in command(pid)]


def awaited(found: Callable[[], bool], what: str, seconds: float = 90, every: float = 0.02) -> None:
    """Wait until `found` says so.

    Raises:
        TimeoutError: it did not within the time.
    """
    deadline = time.monotonic() + seconds
    while not found():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)
