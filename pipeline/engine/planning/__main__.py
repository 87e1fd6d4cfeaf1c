"""One measuring process: takes a task, says when it is ready, does it, answers with what it measured."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from time import process_time
from typing import Any, BinaryIO

from pipeline.engine.planning.processes import DONE, FAILED, GO, READY
from pipeline.engine.planning.time_spent import TimeSpent
from pipeline.errors import PipelineError


def main() -> None:
    """Run the one task of this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print
    task = pickle.load(sys.stdin.buffer)  # noqa: S301  written by the process that started this one
    try:
        base, preparing = process_time(), TimeSpent()
        with preparing.measure():
            measure = task.prepare()
        _answer(answers, READY, (base, preparing.wall))
        if sys.stdin.buffer.read(1) == GO:
            _answer(answers, DONE, measure())
    except PipelineError as error:
        _answer(answers, FAILED, error)


def _answer(answers: BinaryIO, kind: str, value: Any) -> None:
    pickle.dump((kind, value), answers)
    answers.flush()


if __name__ == "__main__":
    main()
