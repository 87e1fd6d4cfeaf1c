"""Progress where there is no terminal: a plain line now and then that says all that matters."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from pipeline.engine import progress
from pipeline.engine.progress import RunProgress
from pipeline.engine.work import Report


def test_plain_lines_count_images_failures_and_time_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter([100.0] + [140.0] * 20)
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO), RunProgress("detect", total=100, done=20) as shown:
        shown.advance(Report(images=40, failed=Counter({"decode: UnreadableImage": 3})))
    assert caplog.messages == [
        "detect: 20 of 100 images are done already",
        "detect: 60/100 images, 1.0 images/s, 3 failed, 0:40 left; no shards in flight",
    ]


def test_no_line_before_it_is_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), RunProgress("detect", total=10, done=0) as shown:
        shown.advance(Report(images=5))
        shown.refresh()
    assert caplog.messages == []
    assert (shown.done, shown.failed) == (5, 0)
