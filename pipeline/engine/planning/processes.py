"""Measuring processes: started together, as many as a run has workers, with the environment of workers.

They start from the interpreter, not by a fork: numeric libraries read their number of threads as they load. A
task and its answer are pickled through pipes, since store options must not be on a disk.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.engine.cluster import WORKER_ENVIRONMENT
from pipeline.errors import NoCapacity, PipelineError
from pipeline.printable import escape_unprintable

MODULE = "pipeline.engine.planning"
READY, DONE, FAILED = "ready", "done", "failed"
"""What a process answers: that it can begin, with the seconds that it took; its measurement; its error."""
GO = b"g"
START_SECONDS = 900.0
"""How long a process may take to be ready: it may compile kernels and load a checkpoint."""


class Measurement(Protocol):
    """A task for one process; it is pickled."""

    def prepare(self) -> Callable[[], Any]:
        """Load what the work needs; the result does the work and returns what it measured."""


@dataclass(frozen=True)
class Measured:
    """The answer of one process."""

    base_seconds: float
    """CPU seconds of the interpreter and of imports that each worker of Ray does, too."""
    prepare_seconds: float
    """From then until it was ready, without the time in which others had the cores."""
    value: Any


def measure_together(
    tasks: Sequence[Measurement], seconds: float, environment: Mapping[str, str] | None = None
) -> list[Measured]:
    """Run each task in a process of its own; they begin when all are ready.

    Args:
        tasks: one per process.
        seconds: how long the work may take, from then on.
        environment: variables beside those of every worker.

    Raises:
        NoCapacity: a process died, or took too long.
        PipelineError: what the work raises.
    """
    with tempfile.TemporaryDirectory(prefix="fast-rcnn-plan-") as folder:
        logs = [Path(folder) / f"{number}.log" for number in range(len(tasks))]
        with _start(tasks, logs, environment or {}) as children:
            ready = _collect(children, logs, READY, START_SECONDS)
            for child in children:
                _send(child, GO)
            values = _collect(children, logs, DONE, seconds)
    starts = [(float(base), float(prepare)) for base, prepare in ready]
    return [Measured(base, prepare, v) for (base, prepare), v in zip(starts, values, strict=True)]


@contextmanager
def _start(
    tasks: Sequence[Measurement], logs: Sequence[Path], environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    root = str(Path(__file__).parents[3])
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    variables = dict(os.environ) | WORKER_ENVIRONMENT | dict(environment)
    variables["PYTHONPATH"] = os.pathsep.join([root, *inherited])
    children: list[subprocess.Popen[bytes]] = []
    try:
        for task, log in zip(tasks, logs, strict=True):
            with log.open("wb") as errors:
                child = subprocess.Popen(  # noqa: S603  this interpreter, with a module of ours
                    [sys.executable, "-P", "-m", MODULE],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=variables,
                )
            children.append(child)
            _send(child, pickle.dumps(task))
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def _send(child: subprocess.Popen[bytes], data: bytes) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(data)
        child.stdin.flush()
    except BrokenPipeError:  # it died: its answer says so
        pass


def _collect(
    children: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path], kind: str, seconds: float
) -> list[Any]:
    """The answers of one kind, one of each process."""

    def kill_all() -> None:
        for child in children:
            child.kill()

    timer = threading.Timer(seconds, kill_all)
    timer.start()
    try:
        return [_receive(child, log, kind) for child, log in zip(children, logs, strict=True)]
    finally:
        timer.cancel()


def _receive(child: subprocess.Popen[bytes], log: Path, kind: str) -> Any:
    assert child.stdout is not None
    try:
        answered, value = pickle.load(child.stdout)  # noqa: S301  written by our own process
    except (EOFError, pickle.UnpicklingError):
        lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise NoCapacity(
            f"a process that measured the sample ended: {escape_unprintable(lines[-1]):.300}"
        ) from None
    if answered == FAILED:
        raise value
    if answered != kind:
        raise PipelineError(f"a measuring process answered {answered!r}, expected {kind!r}")
    return value
