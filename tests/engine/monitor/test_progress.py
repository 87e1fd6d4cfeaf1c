"""Progress on a terminal and without one: rate, failures, time left, stages and the limit."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.runs.report import Report
from tests.project_log import read_project_log

STATE = FlowState(
    [
        StageLoad("propose", "proposals on CPU", slots=2, busy=2, waiting=3),
        StageLoad("detect", "detection on GPU", slots=4, busy=1, waiting=0),
    ],
    bytes_in_flight=12e6,
    budget=1e9,
)


def test_plain_lines_show_rate_time_left_stages_and_the_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    now = 100.0
    report = Report(
        images=40, failed=Counter({"decode: UnreadableImage": 3}), seconds={"detect": 9, "wait": 1}
    )
    with (
        caplog.at_level(logging.INFO),
        RunProgress("detect", 100, 20, clock=lambda: now) as progress,
    ):
        now = 140.0
        progress.advance(report)
        progress.refresh(STATE)
    assert read_project_log(caplog) == [
        "detect: 20 of 100 images are done already",
        "detect: 60/100 images, 1.0 images/s, 3 failed, 0:40 left; propose 2/2 busy (100%), 3 waiting; "
        "detect 1/4 busy (25%), computing 90% of it, 0 waiting; 12 of 1000 MB in flight; "
        "limit: proposals on CPU",
    ]


def test_no_line_is_logged_before_it_is_due(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), RunProgress("detect", total=10, done=0) as progress:
        progress.advance(Report(images=5))
        assert progress.is_due()
        progress.refresh(STATE)
        assert not progress.is_due()
    assert read_project_log(caplog) == []
    assert (progress.done, progress.failed) == (5, 0)


def test_a_terminal_shows_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    with RunProgress("detect", total=100, done=0) as progress:
        progress.advance(Report(images=40))
        progress.refresh(STATE)
    screen = capsys.readouterr().err
    assert "40/100" in screen
    assert "limit: proposals on CPU" in screen
