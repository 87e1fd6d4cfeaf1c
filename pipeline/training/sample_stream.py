"""The stream of samples that threads load ahead of the training step.

Threads suffice: Pillow releases the interpreter's lock while it decodes and resizes. Samples come in their
order, not as they become ready.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from pipeline.training.sample_loader import Sample, SampleLoader, SkippedImage
from pipeline.training.sample_order import SampleOrder


class SampleStream:
    """The samples of one worker in order, loaded ahead by threads."""

    def __init__(
        self,
        loader: SampleLoader,
        order: SampleOrder,
        *,
        start: int,
        rank: int = 0,
        workers: int = 1,
        threads: int = 1,
        ahead: int = 8,
    ) -> None:
        """Start after the `start` samples that all workers have taken; load up to `ahead` samples ahead."""
        self._planned = order.iterate_samples(start, rank, workers)
        self._loader = loader
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ingest")
        self._waiting: deque[Future[Sample | SkippedImage]] = deque()
        self._ahead = ahead

    def __iter__(self) -> Iterator[Sample | SkippedImage]:
        while True:
            for planned in islice(self._planned, self._ahead + 1 - len(self._waiting)):
                self._waiting.append(self._pool.submit(self._loader.load, planned))
            if not self._waiting:
                return
            yield self._waiting.popleft().result()

    def close(self) -> None:
        """Drop the samples loaded ahead and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
