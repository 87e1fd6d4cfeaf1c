"""Samples as lines and back: rates and shares between neighbours, damaged lines left out."""

from __future__ import annotations

import json

import pytest

from pipeline import storage
from pipeline.progress_samples import (
    ProgressSample,
    StageSums,
    format_samples,
    parse_lines,
    read_progress,
)

SAMPLES = [
    ProgressSample(10.0, 50, {"propose": StageSums(4, 2, 40.0, 40.0)}, {"nodes": {"a": {}}}),
    ProgressSample(30.0, 250, {"propose": StageSums(4, 0, 120.0, 60.0)}, {"failed": 1}),
]


def test_a_line_has_the_rate_and_the_use_since_the_line_before() -> None:
    first, second = (json.loads(line) for line in format_samples(SAMPLES).splitlines())
    assert first["images_per_second"] == 5.0
    assert second["images_per_second"] == 10.0  # 200 images in 20 s
    assert first["stages"]["propose"] == {"slots": 4, "waiting": 2, "use": 1.0}
    assert second["stages"]["propose"]["use"] == 0.25  # 20 of 80 slot seconds
    assert (second["failed"], second["images"], second["elapsed"]) == (1, 250, 30.0)


def test_without_the_first_sample_the_second_is_still_right() -> None:
    (line,) = parse_lines(format_samples(SAMPLES[1:]))
    assert line.images_per_second == pytest.approx(250 / 30, abs=0.01)
    assert line.use == {"propose": 0.5}


def test_no_time_between_two_samples_is_no_rate() -> None:
    lines = parse_lines(format_samples([SAMPLES[0], SAMPLES[0]]))
    assert [line.images_per_second for line in lines] == [5.0, 0.0]


@pytest.mark.parametrize(
    "damage",
    [
        b"not json\n",
        b"[]\n",
        b'{"elapsed": "12", "images": 1, "images_per_second": 1}\n',
        b'{"elapsed": 12, "images": 1.5, "images_per_second": 1}\n',
        b'{"elapsed": NaN, "images": 1, "images_per_second": 1}\n',
        b'{"elapsed": 12, "images": 1, "images_per_second": 1, "stages": {"a": 3}}\n',
        b"\xff\xfe\n",
        b'{"elapsed": 12',
    ],
)
def test_damaged_lines_are_left_out(damage: bytes) -> None:
    first, second = format_samples(SAMPLES).splitlines(keepends=True)
    assert parse_lines(first + damage.rstrip(b"\n") + b"\n" + second) == parse_lines(first + second)


def test_time_never_runs_back() -> None:
    first, second = format_samples(SAMPLES).splitlines(keepends=True)
    assert [line.elapsed for line in parse_lines(second + first)] == [30.0]


def test_all_starts_are_read_in_their_order(tmp_path: object) -> None:
    names = {"0002-00000000": SAMPLES, "0001-ffffffff": SAMPLES[:1], "0003-00000001": []}
    for name, samples in names.items():
        storage.put(f"{tmp_path}/logs/progress-{name}.jsonl", format_samples(samples))
    storage.put(f"{tmp_path}/logs/driver-0004-00000000.log", b"no samples yet")
    progress = read_progress(str(tmp_path))
    assert [(p.start.index, len(p.lines)) for p in progress] == [(1, 1), (2, 2)]
    assert progress[0].lines[0].nodes == 1
    assert progress[1].lines[1].nodes is None
    assert read_progress(f"{tmp_path}/missing") == []
