from __future__ import annotations

import threading
import time

import pytest

from pipeline.errors import (
    AccessDenied,
    InvalidBox,
    StorageError,
    TooManyInvalidImages,
    UnreadableDataset,
)
from pipeline.manifests import AnnotatedObject, ManifestRow
from pipeline.sources.dataset import (
    AHEAD,
    LOGGED,
    MOST_TOGETHER,
    ReadImage,
    ReadingProgress,
    add_repairs,
    map_in_threads,
    stream_rows,
)
from pipeline.sources.options import SourceOptions
from pipeline.sources.tally import Repair, Tally


def test_results_keep_the_order_of_the_items() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item % 7 == 0 else 0)
        return item * item

    results = [future.result() for future in map_in_threads(slow_first, range(3 * AHEAD))]
    assert results == [item * item for item in range(3 * AHEAD)]


def test_reading_ahead_is_bounded() -> None:
    items_read = 0
    lock = threading.Lock()

    def count(item: int) -> int:
        nonlocal items_read
        with lock:
            items_read += 1
        return item

    stream = map_in_threads(count, range(10**9))
    for _ in range(5):
        next(stream)
    stream.close()
    assert items_read <= AHEAD + 5


def _read_image(name: str) -> ReadImage:
    if name == "bad":
        raise UnreadableDataset("bad is bad")
    if name == "denied":
        raise AccessDenied("denied is denied")
    if name == "down":
        raise StorageError("the store is down")
    item = AnnotatedObject("dog", 0, 0, 1, 1, difficult=True)
    lost = Repair("box", "dropped: no area", f"{name}: object 1", is_loss=True)
    repairs = [lost] if name.startswith("lossy") else []
    return ReadImage(ManifestRow(name, name, 1, 1, (item,)), repairs)


def _stream(names: list[str], options: SourceOptions, tally: Tally | None = None) -> list[str]:
    rows = stream_rows(names, _read_image, tally or Tally(), options)
    return [row.image_id for row in rows]


def test_the_tally_grows_with_the_stream() -> None:
    tally = Tally()
    names = ["a", "bad", "lossy", "denied"]
    assert _stream(names, SourceOptions(max_invalid=0.5), tally) == ["a", "lossy"]
    expected = Tally(images=2, difficult=2, dropped_boxes=1, invalid_images=2)
    expected.objects["dog"] = 2
    expected.repairs["box", "dropped: no area"] = 1
    assert tally == expected


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_store_that_does_not_answer_ends_the_stream(share: float) -> None:
    with pytest.raises(StorageError, match="down"):
        _stream(["a", "down"], SourceOptions(max_invalid=share))


def test_one_of_twenty_images_may_be_invalid_by_default() -> None:
    names = [f"{i}" for i in range(19)]
    assert _stream([*names, "bad"], SourceOptions()) == names
    with pytest.raises(
        TooManyInvalidImages, match=r"2 of 21 images .*0\.05; the first: bad is bad"
    ):
        _stream([*names, "bad", "bad"], SourceOptions())


def test_too_many_invalid_images_end_the_stream_as_soon_as_that_is_certain() -> None:
    read = []

    def count(name: str) -> ReadImage:
        read.append(name)
        return _read_image(name)

    names = ["bad"] * 10 + ["a"] * 190 * AHEAD
    with pytest.raises(TooManyInvalidImages, match="3 of"):
        list(stream_rows(names, count, Tally(), SourceOptions(max_invalid=2.5 / len(names))))
    assert len(read) <= 10 + AHEAD // 2 * MOST_TOGETHER


def test_a_share_of_dropped_boxes_counts_from_twenty_boxes() -> None:
    assert len(_stream(["lossy"] * 9, SourceOptions())) == 9
    with pytest.raises(TooManyInvalidImages, match="10 of 20 boxes"):
        _stream(["lossy"] * 10, SourceOptions())
    assert len(_stream(["lossy"] * 10, SourceOptions(max_invalid=0.5))) == 10
    assert len(_stream(["lossy"] + ["a"] * 40, SourceOptions())) == 41


def test_strict_raises_the_first_error_or_loss() -> None:
    strict = SourceOptions(strict=True)
    with pytest.raises(UnreadableDataset, match=r"^bad is bad$"):
        _stream([*["a"] * 99, "bad"], strict)
    with pytest.raises(InvalidBox, match=r"lossy: object 1 \(box dropped: no area\)"):
        _stream([*["a"] * 99, "lossy"], strict)


def test_the_first_losses_of_one_batch_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally()
    repairs = [
        Repair("annotation", "dropped", f"annotation {i}", is_loss=True) for i in range(LOGGED + 9)
    ]
    add_repairs(tally, repairs, SourceOptions())
    assert len(caplog.messages) == LOGGED
    assert tally.repairs["annotation", "dropped"] == LOGGED + 9


def test_only_the_first_losses_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"lossy {i}" for i in range(LOGGED + 9)] + ["bad"] * (LOGGED + 9)
    _stream(names, SourceOptions(max_invalid=1.0))
    assert len(caplog.messages) == 2 * LOGGED
    assert "lossy 0: object 1" in caplog.messages[0]


def test_the_log_says_how_much_has_been_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.sources.dataset.LOG_EVERY", 0.0)
    caplog.set_level("INFO")
    progress = ReadingProgress(10, "images")
    progress.add(8)
    progress.add(8, ", 3 left out")
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("read 8 of 10 images; ")
    assert messages[1].startswith("read 10 of 10 images, 3 left out; ")
