"""What every source returns: classes, a stream of manifest rows, and a tally that grows with the stream."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, TypeVar

from pipeline.errors import (
    AccessDenied,
    InvalidBox,
    MissingObject,
    TooManyInvalidImages,
    UnreadableDataset,
)
from pipeline.manifests import ManifestRow
from pipeline.sources.options import Mapper, SourceOptions
from pipeline.sources.tally import Repair, Tally

READER_THREADS = 16
"""Threads that read annotations and headers: enough to hide a remote store's latency."""
AHEAD = 4 * READER_THREADS
"""Images in flight, which bounds the memory of a stream."""
LOG_EVERY = 30.0
"""Seconds between log lines of the progress."""
MOST_TOGETHER = 8
"""Images that a thread reads at a time: handing over each alone costs more than reading its annotation."""
IMAGE_FAULTS = (UnreadableDataset, MissingObject, AccessDenied)
"""Errors of a single image, which is left out."""
LOGGED = 20
"""Invalid images, and losses of each kind, that are logged; the others are only counted."""
FEWEST_BOXES = 20
"""Boxes from which the share of dropped ones counts: of fewer, a single one may be more than 5 %."""

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadImage:
    """One image as a source read it: its row, and what was left out or repaired in it."""

    row: ManifestRow
    repairs: Sequence[Repair] = ()


@dataclass(frozen=True)
class Dataset:
    """An open dataset. `rows` can be streamed once; `tally` is complete when `rows` ends."""

    classes: tuple[str, ...] | None
    category_ids: tuple[int, ...] | None
    rows: Iterator[ManifestRow]
    tally: Tally
    federated: bool = False
    """Rows say which classes they are annotated for."""
    has_members: bool = False
    """Images lie inside other files."""


def stream_rows(
    items: Sequence[Item],
    read_image: Callable[[Item], ReadImage],
    tally: Tally,
    options: SourceOptions,
) -> Iterator[ManifestRow]:
    """Read one row per item, in order; count, log and leave out invalid images and boxes.

    Args:
        items: the source's names of images, such as the ids of a list.
        read_image: returns an image's row; called in threads.
        tally: updated row by row.
        options: how many images may be invalid.

    Raises:
        TooManyInvalidImages: more images than allowed are invalid; raised as soon as that is certain.
        UnreadableDataset: with `strict`, the first invalid image.
        InvalidBox: with `strict`, the first box that would be dropped.
        StorageError: the store does not answer; this is no fault of an image.
    """
    first_fault: Exception | None = None
    step = min(max(len(items) // AHEAD, 1), MOST_TOGETHER)
    progress = ReadingProgress(len(items), "images")

    def read_images(together: Sequence[Item]) -> list[ReadImage | Exception]:
        return [_read_or_fault(read_image, item) for item in together]

    for outcome in choose_mapper(options)(read_images, _Slices(items, step), AHEAD // 2):
        progress.add(step)
        for image in outcome.result():
            if isinstance(image, Exception):
                first_fault = first_fault or image
                _leave_out(tally, image, options)
                _check_share(tally, len(items), options, first_fault)
            else:
                yield _count_row(tally, image, options)
    _check_boxes(tally, options)


def _read_or_fault(read_image: Callable[[Item], ReadImage], item: Item) -> ReadImage | Exception:
    try:
        return read_image(item)
    except IMAGE_FAULTS as error:
        return error


def stream_groups(
    items: Sequence[Item],
    read_group: Callable[[Item], Sequence[ReadImage | Repair | Exception]],
    tally: Tally,
    options: SourceOptions,
) -> Iterator[ManifestRow]:
    """Read several rows per item, such as the images of a tar file, in order; otherwise as `stream_rows`.

    Args:
        items: the source's files, or parts of them.
        read_group: returns the images of an item, each as its row or as the error that it has, and repairs of
            the item itself; called in threads. An error that it raises ends the stream.
        tally: updated row by row.
        options: how many images may be invalid; how many there are is known at the end only.

    Raises:
        TooManyInvalidImages, UnreadableDataset, InvalidBox, StorageError: as for `stream_rows`.
    """
    first_fault: Exception | None = None
    progress = ReadingProgress(len(items), "files or row groups")
    for outcome in choose_mapper(options)(read_group, items, READER_THREADS):
        progress.add(1, f", {tally.images} images")
        for image in outcome.result():
            if isinstance(image, Exception):
                first_fault = first_fault or image
                _leave_out(tally, image, options)
            elif isinstance(image, Repair):
                add_repairs(tally, [image], options)
            else:
                yield _count_row(tally, image, options)
    if first_fault is not None:
        _check_share(tally, tally.images + tally.invalid_images, options, first_fault)
    _check_boxes(tally, options)


class _Slices(Sequence[Sequence[Item]]):
    """Items, several at a time."""

    def __init__(self, items: Sequence[Item], step: int) -> None:
        self._items = items
        self._step = step

    def __len__(self) -> int:
        return (len(self._items) + self._step - 1) // self._step

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._items[index * self._step : (index + 1) * self._step]


class ReadingProgress:
    """Logs how much of a dataset has been read, every half minute."""

    def __init__(self, total: int, noun: str) -> None:
        self._total = total
        self._noun = noun
        self._count = 0
        self._begin = self._last = monotonic()

    def add(self, count: int, more: str = "") -> None:
        """Count items, and log if it is time; `more` is put behind."""
        self._count = min(self._count + count, self._total)
        now = monotonic()
        if now - self._last >= LOG_EVERY:
            self._last = now
            rate = self._count / (now - self._begin)
            shown = (self._count, self._total, self._noun, more, rate)
            log.info("read %d of %d %s%s; %.1f a second", *shown)


def choose_mapper(options: SourceOptions) -> Mapper:
    """What reads the items of a source: threads of this process, unless the options say otherwise."""
    return map_in_threads if options.mapper is None else options.mapper


def _leave_out(tally: Tally, error: Exception, options: SourceOptions) -> None:
    """Count and log an invalid image; with `strict`, raise its error."""
    if options.strict:
        raise error
    tally.invalid_images += 1
    if tally.invalid_images <= LOGGED:
        log.warning("image left out: %s", error)


def _count_row(tally: Tally, image: ReadImage, options: SourceOptions) -> ManifestRow:
    add_repairs(tally, image.repairs, options)
    tally.images += 1
    for item in image.row.objects or ():
        tally.objects[item.label] += 1
        tally.difficult += item.difficult
        tally.crowd += item.crowd
    return image.row


def add_repairs(tally: Tally, repairs: Iterable[Repair], options: SourceOptions) -> None:
    """Count repairs, and log the first losses of each kind.

    Raises:
        InvalidBox: with `strict`, a box would be dropped.
        UnreadableDataset: with `strict`, something else would be left out.
    """
    for repair in repairs:
        tally.add_repairs([repair])
        text = f"{repair.detail} ({repair.noun} {repair.outcome})"
        if repair.is_loss and options.strict:
            raise (InvalidBox if repair.noun == "box" else UnreadableDataset)(text)
        if repair.is_loss and tally.repairs[repair.noun, repair.outcome] <= LOGGED:
            log.warning("%s", text)


def _check_share(tally: Tally, total: int, options: SourceOptions, first: Exception) -> None:
    """Fail as soon as the share is certain: the images that are still to come cannot lower it."""
    if tally.invalid_images > options.max_invalid * total:
        raise TooManyInvalidImages(
            f"{tally.invalid_images} of {total} images are invalid so far, more than the allowed share "
            f"of {options.max_invalid:g}; the first: {first}; repair them, raise --max-invalid, or "
            "pass --skip-invalid to leave all such images out"
        )


def _check_boxes(tally: Tally, options: SourceOptions) -> None:
    total = tally.objects.total() + tally.dropped_boxes
    if total >= FEWEST_BOXES and tally.dropped_boxes > options.max_invalid * total:
        raise TooManyInvalidImages(
            f"{tally.dropped_boxes} of {total} boxes would be dropped, more than the allowed share of "
            f"{options.max_invalid:g} ({tally.describe_repairs()}); check how the boxes are written, "
            "raise --max-invalid, or pass --skip-invalid"
        )


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int = AHEAD
) -> Iterator[Future[Result]]:
    """Call `function` on each item in a pool of threads; yield the finished futures in order."""
    source = iter(items)
    with ThreadPoolExecutor(READER_THREADS, thread_name_prefix="source") as pool:
        pending = deque(pool.submit(function, item) for item in islice(source, ahead))
        try:
            while pending:
                first = pending.popleft()
                first.exception()  # waits
                pending.extend(pool.submit(function, item) for item in islice(source, 1))
                yield first
        finally:
            pool.shutdown(cancel_futures=True)
