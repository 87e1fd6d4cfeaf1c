"""The time limit of one image: a watchdog that ends the worker process."""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def end_after(seconds: float) -> None:
    """End this process in `seconds` from now, unless this is called again or a `time_limit` ends first."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer than `seconds`, or than `end_after` says in it.

    Compiled code cannot be interrupted, so an image that hangs takes its worker with it. Faulthandler's
    watchdog is a C thread that works even while the interpreter's lock is held. The driver notices the
    worker's death and retries the shard, in the end one image per task.
    """
    end_after(seconds)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
