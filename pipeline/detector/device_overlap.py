"""Work on a batch's results while a GPU already computes the next batch: by a stream of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Generic, TypeVar

import torch

Results = TypeVar("Results")


class OverlappedWork(Generic[Results]):
    """Runs a function on the results of one batch after the work for the next was queued.

    The function waits for the device often, as the number of detections decides what follows. On a stream
    of its own, which goes first, it waits for its own kernels alone, and the device is never idle meanwhile.
    It must end with its results in host memory: only then may the memory of what it read be used again.
    """

    def __init__(self, device: torch.device, function: Callable[[Results], None]) -> None:
        """On a CPU, `function` runs at once."""
        self._device = device
        self._function = function
        self._stream = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        self._waiting: list[tuple[Results, torch.cuda.Event]] = []

    def add(self, results: Results) -> None:
        """Run the function on the results before, and keep these until the next call."""
        if self._stream is None:
            self._function(results)
            return
        computed = torch.cuda.Event()  # type: ignore[no-untyped-call]
        computed.record(torch.cuda.current_stream(self._device))
        self._waiting.append((results, computed))
        if len(self._waiting) > 1:
            self._run_first()

    def finish(self) -> None:
        """Run the function on the last results."""
        while self._waiting:
            self._run_first()

    def _run_first(self) -> None:
        results, computed = self._waiting.pop(0)
        with torch.cuda.stream(self._stream) if self._stream else nullcontext():
            if self._stream is not None:
                self._stream.wait_event(computed)
            self._function(results)
