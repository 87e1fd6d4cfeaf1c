from __future__ import annotations

import threading
import time

import pytest

from pipeline.errors import StorageError, UnreadableDataset
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.dataset import AHEAD, Counts, map_in_order, stream_rows


def test_results_keep_the_order_of_the_items() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item % 7 == 0 else 0)
        return item * item

    results = [future.result() for future in map_in_order(slow_first, range(3 * AHEAD))]
    assert results == [item * item for item in range(3 * AHEAD)]


def test_reading_ahead_is_bounded() -> None:
    items_read = 0
    lock = threading.Lock()

    def count(item: int) -> int:
        nonlocal items_read
        with lock:
            items_read += 1
        return item

    stream = map_in_order(count, range(10**9))
    for _ in range(5):
        next(stream)
    stream.close()
    assert items_read <= AHEAD + 5


def _read_row(name: str) -> tuple[ManifestRow, int]:
    if name == "bad":
        raise UnreadableDataset("bad is bad")
    if name == "down":
        raise StorageError("the store is down")
    return ManifestRow(name, name, 1, 1, (AnnotatedObject("dog", 0, 0, 1, 1, difficult=True),)), 2


def test_counts_grow_with_the_stream() -> None:
    counts = Counts()
    rows = list(stream_rows(["a", "bad", "b"], _read_row, counts, skip_invalid=True))
    assert [row.image_id for row in rows] == ["a", "b"]
    expected = Counts(images=2, difficult=2, dropped_boxes=4, skipped_images=1)
    expected.objects["dog"] = 2
    assert counts == expected


@pytest.mark.parametrize(("name", "skip"), [("bad", False), ("down", False), ("down", True)])
def test_an_error_ends_the_stream(name: str, skip: bool) -> None:
    with pytest.raises((UnreadableDataset, StorageError), match=r"bad|down"):
        list(stream_rows(["a", name], _read_row, Counts(), skip_invalid=skip))
