"""The process that runs cases: python -m tests.fuzz.worker FD FOLDER.

It takes a case per line from its standard input and answers each with a line of JSON on the descriptor FD.
The parent ends it when a case takes too long, and notices when it dies.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path
from random import Random

from pipeline.errors import PipelineError
from tests.fuzz.outcomes import Case, CaseResult, Outcome
from tests.fuzz.target import Target, find_fault_in_error
from tests.fuzz.targets import get_target

MEMORY_LIMIT = 1 << 30
"""Bytes that reading one input may take."""
_HARD_LIMIT = 2 * MEMORY_LIMIT
"""Bytes from which the system itself denies memory, for the sake of the machine."""


def write_input(target: Target, case: Case, folder: Path) -> str:
    """Write the case's input into an empty folder; returns how it differs from a valid one."""
    return target.write(folder, Random(f"{case.kind}/{case.seed}/{case.number}"))


def read_input(target: Target, case: Case, folder: Path, change: str) -> CaseResult:
    """Read and check the input in a folder."""
    memory = _PeakMemory()
    began = time.monotonic()
    outcome, detail = _read_and_check(target, folder)
    seconds = time.monotonic() - began
    peak = memory.measure()
    if peak > MEMORY_LIMIT:
        outcome, detail = Outcome.OVER_MEMORY, f"{peak / 1e9:.1f} GB ({outcome.value}: {detail})"
    return CaseResult(case, outcome, change, detail, seconds)


def _read_and_check(target: Target, folder: Path) -> tuple[Outcome, str]:
    try:
        answer = target.read(folder)
    except PipelineError as error:
        fault = find_fault_in_error(target, error)
        named = f"{type(error).__name__}: {str(error)[:300]}"
        return (Outcome.UNNAMED, fault) if fault else (Outcome.NAMED, named)
    except MemoryError as error:
        return Outcome.OVER_MEMORY, f"MemoryError: {error}"
    except Exception as error:
        return Outcome.UNNAMED, _describe_exception(error)
    fault = target.find_fault(folder, answer)
    if fault is not None:
        return Outcome.WRONG, fault[:600]
    return (Outcome.SKIPPED if target.count_skipped(answer) else Outcome.RIGHT), ""


def _describe_exception(error: BaseException) -> str:
    """Type, message, and the innermost line of the project that the exception passed."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if f"{os.sep}pipeline{os.sep}" in frame.filename
    ]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {str(error)[:200]}{place}"


class _PeakMemory:
    """The largest resident memory of this process since the start, above what it had then."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._base = _read_status("VmRSS")

    def measure(self) -> int:
        """Bytes."""
        return _read_status("VmHWM") - self._base


def _read_status(field: str) -> int:
    """A figure of /proc/self/status in bytes; 0 on systems without it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), 0)


def _limit_memory() -> None:
    limit = _read_status("VmData") + _HARD_LIMIT
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main() -> None:
    """Answer cases until the parent closes the pipe."""
    answers = os.fdopen(int(sys.argv[1]), "w", buffering=1)
    scratch = Path(sys.argv[2])
    faulthandler.enable()
    for line in sys.stdin:
        request = json.loads(line)
        case = Case(**request)
        target = get_target(case.kind)  # imports what the target needs
        resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)
        folder = scratch / f"{case.kind}-{case.seed}-{case.number}"
        folder.mkdir(parents=True)
        change = write_input(target, case, folder)
        print(json.dumps({"change": change}), file=answers)
        _limit_memory()
        result = read_input(target, case, folder, change)
        shutil.rmtree(folder, ignore_errors=True)
        answer = {
            "outcome": result.outcome.name,
            "detail": result.detail,
            "seconds": result.seconds,
        }
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
