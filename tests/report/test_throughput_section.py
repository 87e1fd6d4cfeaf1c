"""Throughput over time: means over spans, several starts, charts that have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import storage
from pipeline.log_files import Start
from pipeline.progress_samples import (
    ProgressLine,
    ProgressSample,
    StageSums,
    StartProgress,
    format_samples,
)
from pipeline.report import job_progress
from pipeline.report.job_progress import read_job_progress, summarize_progress
from pipeline.report.writing import write_report
from tests.report.hand_made import write_run


def _start(index: int, *lines: tuple[float, int, float]) -> StartProgress:
    """A start from (seconds, images so far, use of the stage since the line before)."""
    return StartProgress(
        Start(index, "0" * 8),
        tuple(ProgressLine(time, images, 0.0, {"detect": use}, 1) for time, images, use in lines),
    )


def test_means_over_spans_of_two_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_progress, "BINS", 3)
    starts = [_start(1, (5.0, 0, 0.0), (20.0, 150, 1.0)), _start(4, (10.0, 30, 0.5))]
    progress = summarize_progress("detect", starts)
    assert progress is not None
    assert (progress.starts, progress.seconds) == (2, 30.0)
    np.testing.assert_allclose(progress.times, [5, 15, 25])
    np.testing.assert_allclose(progress.images_per_second, [5.0, 10.0, 3.0])
    np.testing.assert_allclose(progress.use["detect"], [0.5, 1.0, 0.5])


def test_a_stage_that_one_start_lacks_is_idle_there() -> None:
    other = StartProgress(Start(2, "0" * 8), (ProgressLine(10.0, 1, 0.1, {"read": 1.0}, None),))
    progress = summarize_progress("detect", [_start(1, (10.0, 5, 1.0)), other])
    assert progress is not None
    assert {name: round(float(use.mean()), 6) for name, use in progress.use.items()} == {
        "detect": 0.5,
        "read": 0.5,
    }


def test_without_time_or_logs_there_is_no_progress(tmp_path: Path) -> None:
    assert summarize_progress("detect", [_start(1, (0.0, 0, 0.0))]) is None
    assert read_job_progress("detect", str(tmp_path)) is None
    assert read_job_progress("detect", "s3-no-such-protocol://bucket/out") is None


def test_the_report_draws_the_progress_of_the_detection_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    samples = [
        ProgressSample(t, 10 * int(t), {"<read>": StageSums(2, 0, 2 * t, t)})
        for t in (1.0, 200.0, 400.0)
    ]
    output = run.sources.detections.uri
    storage.put(f"{output}/logs/progress-0001-01234567.jsonl", format_samples(samples))
    write_report(str(tmp_path / "out"), run.metrics, run.sources)
    text = (tmp_path / "out/report/index.html").read_text()
    section = text.partition('id="throughput"')[2].partition("</section>")[0]
    assert "Images per second of detect" in section
    assert "minutes" in section
    assert "&lt;read&gt;" in section
    assert "<read>" not in section
    assert section.count("<polyline") == 2
