"""A worker whose target does what its kind says: crash, hang, take memory, raise, or answer wrongly."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from random import Random

from pipeline.errors import UnreadableDataset
from tests.fuzz import worker
from tests.fuzz.target import Target

SECRET = "a secret"


def _write(folder: Path, random: Random) -> str:
    (folder / "input").write_text(str(random.random()))
    return "an input"


def _read(folder: Path) -> object:
    kind = folder.name.partition("-")[0]
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "hang":
        time.sleep(100)
    elif kind == "memory":
        return len(b"x" * (100 << 20))
    elif kind == "reserve":
        return bytearray(5 << 30)
    elif kind == "unnamed":
        raise KeyError("x")
    elif kind == "named":
        raise UnreadableDataset("the input is damaged")
    elif kind == "leak":
        raise UnreadableDataset(f"{SECRET} is wrong")
    return kind


def _find_fault(folder: Path, answer: object) -> str | None:
    return "the answer is wrong" if answer == "wrong" else None


def _get_target(kind: str) -> Target:
    return Target(
        kind, _write, _read, _find_fault, lambda answer: int(answer == "skipped"), (SECRET,)
    )


if __name__ == "__main__":
    worker.MEMORY_LIMIT = 64 << 20
    worker.get_target = _get_target
    worker.main()
