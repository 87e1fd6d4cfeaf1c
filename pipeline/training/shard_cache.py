"""The annotated shards that were read last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

from pipeline.training.annotated_dataset import AnnotatedDataset, AnnotatedShard


class ShardCache:
    """The last few shards; one thread reads a shard while others wait for it."""

    def __init__(self, datasets: Sequence[AnnotatedDataset], size: int) -> None:
        self._datasets = datasets
        self._size = size
        self._lock = threading.Lock()
        self._shards: OrderedDict[tuple[int, int], Future[AnnotatedShard]] = OrderedDict()

    def get(self, dataset: int, ordinal: int) -> AnnotatedShard:
        """A shard of a dataset, from memory or else from its store."""
        key = (dataset, ordinal)
        with self._lock:
            future = self._shards.get(key)
            is_reader = future is None
            if future is None:
                future = self._shards[key] = Future()
                while len(self._shards) > self._size:
                    self._shards.popitem(last=False)
            self._shards.move_to_end(key)
        if is_reader:
            try:
                future.set_result(self._datasets[dataset].read(ordinal))
            except BaseException as error:
                with self._lock:
                    self._shards.pop(key, None)
                future.set_exception(error)
        return future.result()
