"""The job is run once per way, and each way is compared with the first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.runs.report import Report
from tests.benchmarks import detect_job
from tests.benchmarks.detect_job import Way, compare_ways


def test_a_way_names_strategy_boxes_and_when_to_stop() -> None:
    assert Way.parse("fast") == Way("fast", 2000, None)
    assert str(Way.parse("wide:300")) == "wide 300"
    assert Way.parse("wide:500:2") == Way("wide", 500, 2)
    assert str(Way.parse("wide:500:2")) == "wide 500, --stop-after 2"


def test_ways_run_into_outputs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates, outputs = iter((2.0, 5.0)), []

    def run_job(_way: Way, *arguments: object) -> tuple[SimpleNamespace, float]:
        outputs.append(arguments[-1])
        return SimpleNamespace(rate=next(rates), report=Report()), 3.0

    monkeypatch.setattr(detect_job, "_run_job", run_job)
    ways = [Way("fast"), Way("wide", 500, 2)]
    first, second = compare_ways(ways, "m", "c", 8, str(tmp_path))
    assert (first["times_the_first"], second["times_the_first"]) == (1.0, 2.5)
    names = ("fast-2000", "wide-500-stop-after-2")
    assert outputs == [str(tmp_path / name) for name in names]


def test_an_output_that_exists_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["detect_job", "--manifest", "m", "--recipe", "tiny", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="2"):
        detect_job.main()
    assert f"{tmp_path} exists" in capsys.readouterr().err
