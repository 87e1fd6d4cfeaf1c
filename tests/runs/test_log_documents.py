"""Logs stay within their bounds, and keep what tells most."""

from __future__ import annotations

import json
from itertools import pairwise

from pipeline.progress_samples import ProgressSample, StageSums
from pipeline.runs import log_documents
from pipeline.runs.log_documents import ErrorLog, LineLog, SampleSeries


def test_lines_in_the_middle_are_left_out() -> None:
    lines = LineLog(first_bytes=20, last_bytes=80)
    assert (lines.revision, lines.encode()) == (0, b"")
    for number in range(100):
        lines.add(f"line {number:02d}")
    text = lines.encode().decode()
    assert text.startswith("line 00\nline 01\n... 88 lines left out ...\nline 90\n")
    assert text.endswith("line 99\n")
    assert lines.revision == 100


def test_one_long_line_does_not_displace_the_others() -> None:
    lines = LineLog(first_bytes=0, last_bytes=80)
    lines.add("short")
    lines.add("x" * 1000)
    assert lines.encode() == b"short\n" + b"x" * 10 + b"\n"


def test_half_a_character_is_written_as_an_escape() -> None:
    lines = LineLog()
    lines.add("\ud800")
    assert lines.encode() == b"\\ud800\n"


def _read(errors: ErrorLog) -> list[dict[str, object]]:
    return [json.loads(line) for line in errors.encode().splitlines()]


def test_the_same_traceback_is_written_once() -> None:
    errors = ErrorLog()
    errors.add({"shard": 0}, "ray::work() (pid=17)\nValueError: no")
    errors.add({"shard": 1}, "ray::work() (pid=23)\nValueError: no")
    errors.add({"shard": 2}, "another")
    first, second, third = _read(errors)
    assert first["traceback"] == "ray::work() (pid=17)\nValueError: no"
    assert second == {"shard": 1, "traceback_of_line": 1}
    assert third["traceback"] == "another"


def test_errors_are_bounded_in_number_and_in_size() -> None:
    errors = ErrorLog()
    for shard in range(log_documents.MOST_ERRORS + 7):
        errors.add({"shard": shard}, "same")
    assert _read(errors)[-1] == {"left_out": 7}
    large = ErrorLog()
    for letter in map(chr, range(0x4E00, 0x4E00 + 200)):
        large.add({}, letter * 20_000)
    assert len(large.encode()) < log_documents.MOST_ERROR_BYTES + 100
    assert _read(large)[-1]["left_out"] > 100  # type: ignore[operator]
    text = str(_read(large)[0]["traceback"])
    assert "... 8000 characters left out ..." in text


def _sample(elapsed: float, nodes: int = 1) -> ProgressSample:
    stages = {"propose": StageSums(4, 1, 4 * elapsed, 3 * elapsed)}
    others = {"nodes": {f"{k:08x}": {"cpus": 64, "gpus": 8.0} for k in range(nodes)}}
    return ProgressSample(elapsed, round(10 * elapsed), stages, others)


def _run(seconds: float, nodes: int = 1) -> tuple[SampleSeries, list[dict[str, float]]]:
    """A run that is observed ten times in each of its intervals between samples."""
    series, now = SampleSeries(), 0.0
    while now < seconds:
        if series.is_due(now):
            series.add(_sample(now, nodes))
        now += series.interval / 10
    series.add(_sample(seconds, nodes))
    return series, [json.loads(line) for line in series.encode().splitlines()]


def test_a_long_run_is_sampled_less_often() -> None:
    series, lines = _run(86_400.0)
    assert 300 <= len(lines) <= log_documents.MOST_SAMPLES
    assert series.interval == 128.0
    assert lines[-1]["elapsed"] == 86_400.0
    assert {line["images_per_second"] for line in lines[1:]} <= {9.99, 10.0, 10.01}
    gaps = [b["elapsed"] - a["elapsed"] for a, b in pairwise(lines)]
    assert max(gaps) <= 2 * series.interval


def test_a_short_run_keeps_every_sample() -> None:
    _, lines = _run(60.0)
    assert len(lines) >= 55


def test_many_nodes_are_bounded_too() -> None:
    series, lines = _run(20_000.0, nodes=200)
    assert len(series.encode()) <= log_documents.MOST_SAMPLE_BYTES
    assert len(lines) >= 16
    assert lines[-1]["elapsed"] == 20_000.0
