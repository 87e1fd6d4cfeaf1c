"""Runs cases in worker processes, so that a crash or an endless loop is the outcome of one case."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.fuzz.outcomes import Case, CaseResult, Outcome

TIME_LIMIT = 10.0
"""Seconds that one case may take."""
START_LIMIT = 120.0
"""Seconds that a worker may take to start, import and write an input."""
_ROOT = Path(__file__).parents[2]
_ENVIRONMENT = {
    # One thread each: workers run side by side.
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    # Arrow's own allocators reserve memory that would count although no input asked for it.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "PYTHONWARNINGS": "ignore",
}


def run_cases(
    cases: Sequence[Case], workers: int, worker_module: str = "tests.fuzz.worker"
) -> Iterator[CaseResult]:
    """Run cases side by side; yields each result as it comes."""
    todo: queue.SimpleQueue[Case] = queue.SimpleQueue()
    for case in cases:
        todo.put(case)
    done: queue.SimpleQueue[CaseResult | BaseException] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as scratch:
        threads = [
            threading.Thread(target=_work, args=(todo, done, Path(scratch), worker_module))
            for _ in range(min(workers, len(cases)))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in cases:
                result = done.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            with contextlib.suppress(queue.Empty):
                while True:
                    todo.get_nowait()
            for thread in threads:
                thread.join()


def _work(
    todo: queue.SimpleQueue[Case],
    done: queue.SimpleQueue[CaseResult | BaseException],
    scratch: Path,
    worker_module: str,
) -> None:
    with Worker(scratch, worker_module) as worker, contextlib.suppress(queue.Empty):
        while True:
            case = todo.get_nowait()
            try:
                done.put(worker.run(case))
            except BaseException as error:
                done.put(error)
                return


class Worker:
    """One worker process, started when a case needs it and started again after it died."""

    def __init__(self, scratch: Path, module: str = "tests.fuzz.worker") -> None:
        self._scratch = scratch
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._buffer = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        self._errors.close()

    def run(self, case: Case) -> CaseResult:
        """The result of one case, whatever happens to the process."""
        process = self._process or self._start()
        assert process.stdin is not None
        request = {"kind": case.kind, "seed": case.seed, "number": case.number}
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        begun = self._receive(START_LIMIT)
        if begun is None:
            text = self._end()
            raise RuntimeError(f"{case.command}: no input is written: {text}")
        change = begun["change"]
        answer = self._receive(TIME_LIMIT)
        if answer is None:
            died = process.poll() is not None or self._is_closed()
            text = self._end()
            if died:
                detail = f"exit code {process.returncode}: {text}"
                return CaseResult(case, Outcome.CRASHED, change, detail)
            return CaseResult(case, Outcome.OVER_TIME, change, text, TIME_LIMIT)
        outcome = Outcome[answer["outcome"]]
        return CaseResult(case, outcome, change, answer["detail"], answer["seconds"])

    def _start(self) -> subprocess.Popen[bytes]:
        answers, descriptor = os.pipe()
        self._errors.seek(0)
        self._errors.truncate()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, str(descriptor), str(self._scratch)],
            cwd=_ROOT,
            env={**os.environ, **_ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=[descriptor],
            start_new_session=True,
        )
        os.close(descriptor)
        self._answers, self._buffer = answers, b""
        return self._process

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        """The worker's next line; None if the time is over or the process closed the pipe."""
        end = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            block = os.read(self._answers, 1 << 20) if ready else b""
            if not block:
                return None
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _is_closed(self) -> bool:
        ready, _, _ = select.select([self._answers], [], [], 0)
        return bool(ready)

    def _end(self) -> str:
        """End the process and those that it started; the last of what it printed."""
        if self._process is None:
            return ""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._answers)
        self._process = None
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-400:]
