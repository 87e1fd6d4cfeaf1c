"""Progress where there is no terminal: a plain line now and then that says all that matters."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from pipeline.engine.monitor import progress
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.runs.report import Report

STATE = FlowState(
    [
        StageLoad("propose", "proposals on CPU", slots=2, busy=2, waiting=3),
        StageLoad("detect", "detection on GPU", slots=4, busy=1, waiting=0),
    ],
    held=12e6,
    budget=1e9,
)


def test_plain_lines_tell_rate_time_left_stages_and_the_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter([100.0] + [140.0] * 20)
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    done = Report(
        images=40, failed=Counter({"decode: UnreadableImage": 3}), seconds={"detect": 9, "wait": 1}
    )
    with caplog.at_level(logging.INFO), RunProgress("detect", total=100, done=20) as shown:
        shown.advance(done)
        shown.refresh(STATE)
    assert caplog.messages == [
        "detect: 20 of 100 images are done already",
        "detect: 60/100 images, 1.0 images/s, 3 failed, 0:40 left; propose 2/2 busy (100%), 3 waiting; "
        "detect 1/4 busy (25%), computing 90% of it, 0 waiting; 12 of 1000 MB in flight; "
        "limit: proposals on CPU",
    ]


def test_no_line_before_it_is_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), RunProgress("detect", total=10, done=0) as shown:
        shown.advance(Report(images=5))
        assert shown.due()
        shown.refresh(STATE)
        assert not shown.due()
    assert caplog.messages == []
    assert (shown.done, shown.failed) == (5, 0)


def test_a_terminal_is_shown_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    with RunProgress("detect", total=100, done=0) as shown:
        shown.advance(Report(images=40))
        shown.refresh(STATE)
    told = capsys.readouterr().err
    assert "40/100" in told
    assert "limit: proposals on CPU" in told
