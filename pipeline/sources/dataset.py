"""What every source returns: classes, a stream of manifest rows, and counts that grow with the stream."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from pipeline.errors import MissingObject, UnreadableDataset
from pipeline.manifests import ManifestRow

READER_THREADS = 16
"""Threads that read annotations and headers: enough to hide a remote store's latency."""
AHEAD = 4 * READER_THREADS
"""Images in flight, which bounds the memory of a stream."""

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass
class Counts:
    """The images and objects that a stream of rows has yielded so far."""

    images: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    """Objects by label."""
    difficult: int = 0
    crowd: int = 0
    dropped_boxes: int = 0
    """Annotated boxes without area; their images remain."""
    skipped_images: int = 0
    """Images with errors that were skipped (only with `skip_invalid`)."""


@dataclass(frozen=True)
class Dataset:
    """An open dataset. `rows` can be streamed once; `counts` is complete when `rows` ends."""

    classes: tuple[str, ...] | None
    category_ids: tuple[int, ...] | None
    rows: Iterator[ManifestRow]
    counts: Counts


def stream_rows(
    items: Iterable[Item],
    read_row: Callable[[Item], tuple[ManifestRow, int]],
    counts: Counts,
    skip_invalid: bool,
) -> Iterator[ManifestRow]:
    """Read one row per item, in order, and count.

    Args:
        items: the source's names of images, such as the ids of a list.
        read_row: returns the row and the number of its boxes that were dropped; called in threads.
        counts: updated row by row.
        skip_invalid: log and count an image with an error instead of raising it.

    Raises:
        UnreadableDataset: an image or its annotation is missing or invalid.
        MissingObject: a listed object no longer exists.
        StorageError: the store does not answer, or rejects the credentials; never skipped.
    """
    for outcome in map_in_order(read_row, items):
        try:
            row, dropped = outcome.result()
        except (UnreadableDataset, MissingObject) as error:
            if not skip_invalid:
                raise
            counts.skipped_images += 1
            log.warning("image skipped: %s", error)
            continue
        counts.images += 1
        counts.dropped_boxes += dropped
        for item in row.objects or ():
            counts.objects[item.label] += 1
            counts.difficult += item.difficult
            counts.crowd += item.crowd
        yield row


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Future[Result]]:
    """Call `function` on each item in a pool of threads; yield the finished futures in order."""
    source = iter(items)
    with ThreadPoolExecutor(READER_THREADS, thread_name_prefix="source") as pool:
        pending = deque(pool.submit(function, item) for item in islice(source, AHEAD))
        try:
            while pending:
                first = pending.popleft()
                first.exception()  # waits
                pending.extend(pool.submit(function, item) for item in islice(source, 1))
                yield first
        finally:
            pool.shutdown(cancel_futures=True)
