"""The end of a run: patient with its store, and clear about how to resume."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from pipeline import shards
from pipeline.errors import (
    NoCapacity,
    PipelineError,
    ShardFailed,
    StorageError,
    TooManyFailedImages,
)
from pipeline.run_record import RunRecord
from pipeline.runs.backoff import ATTEMPTS, Backoff
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput
from pipeline.runs.plan_estimation import Estimate
from pipeline.runs.report import Report
from pipeline.runs.resume import TakenOver
from pipeline.runs.run_plan import PlannedCluster, RunPlan
from pipeline.runs.summary import RunInterrupted, Summary, WorkDone, complete_run
from pipeline.shards import Shard
from tests.project_log import read_project_log

HINT = "to resume from what is committed: the same command without --overwrite"
SHARDS = (Shard(0, "0" * 24, 0, 3), Shard(1, "1" * 24, 3, 1))


@pytest.fixture
def complete(tmp_path: Path) -> RunOutput:
    """An output of two committed shards of four images, one of them failed."""
    record = RunRecord("test", {})
    record.write(str(tmp_path))
    shards.write_shard_table(str(tmp_path), SHARDS)
    for shard in SHARDS:
        (tmp_path / shard.part_name).write_bytes(b"")
    failed = Counter({"read: Gone": 1})
    return RunOutput(str(tmp_path), record, SHARDS, frozenset([0, 1]), failed_before=failed)


@pytest.fixture
def incomplete(complete: RunOutput) -> RunOutput:
    """The same with one image in its second shard committed when it was opened."""
    return replace(complete, committed=frozenset([1]), failed_before=Counter())


def _complete(output: RunOutput, options: RunOptions) -> Summary:
    return complete_run(output, options, lambda: WorkDone(output), backoff=Backoff(first=0.0))


def _fail_to_finish(monkeypatch: pytest.MonkeyPatch, times: int) -> MagicMock:
    """The store fails the first `times` times that the run is finished."""
    finish = RunOutput.finish
    attempts = MagicMock(side_effect=[StorageError("s3://b/out: SlowDown")] * times + [None])

    def fail(output: RunOutput, summary: dict[str, Any]) -> None:
        attempts()
        finish(output, summary)

    monkeypatch.setattr(RunOutput, "finish", fail)
    return attempts


def test_a_store_that_fails_twice_does_not_fail_the_run(
    complete: RunOutput,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _fail_to_finish(monkeypatch, 2)
    summary = _complete(complete, RunOptions(max_failed_fraction=1))
    assert summary.failed == {"read: Gone": 1}
    assert (tmp_path / "summary.json").is_file()
    assert read_project_log(caplog) == ["cannot end the run yet: s3://b/out: SlowDown"] * 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_store_that_keeps_failing_ends_the_run_with_how_to_resume(
    complete: RunOutput, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = _fail_to_finish(monkeypatch, 99)
    command = "the same command without --overwrite" if overwrite else "the same command"
    with pytest.raises(ShardFailed, match=f"SlowDown; every image is committed, {command} writes"):
        _complete(complete, RunOptions(overwrite=overwrite))
    assert attempts.call_count == ATTEMPTS


@pytest.mark.parametrize(
    ("error", "overwrite", "hints"),
    [
        (NoCapacity("no core"), True, [HINT]),
        (NoCapacity("no core"), False, []),
        (TakenOver("another run started here"), True, []),  # the output is the other run's
    ],
)
def test_a_failed_run_that_overwrote_says_how_not_to_erase_its_work(
    error: PipelineError,
    overwrite: bool,
    hints: list[str],
    incomplete: RunOutput,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def do_work() -> WorkDone:
        raise error

    with pytest.raises(type(error)):
        complete_run(incomplete, RunOptions(overwrite=overwrite), do_work)
    assert read_project_log(caplog) == hints


@pytest.mark.parametrize(
    ("interrupt", "images"), [(KeyboardInterrupt(), 1), (RunInterrupted(2), 3)]
)
def test_an_interrupted_run_says_how_many_images_are_committed(
    interrupt: KeyboardInterrupt,
    images: int,
    incomplete: RunOutput,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def do_work() -> WorkDone:
        raise interrupt

    with pytest.raises(KeyboardInterrupt):
        complete_run(incomplete, RunOptions(), do_work)
    (message,) = read_project_log(caplog)
    assert message.startswith(f"stopped: {images} of 4 images are committed in {incomplete.uri};")


def test_no_work_is_done_for_a_complete_output(complete: RunOutput) -> None:
    do_work = MagicMock()
    summary = complete_run(complete, RunOptions(max_failed_fraction=1), do_work)
    do_work.assert_not_called()
    assert (summary.images, summary.done_before, summary.start_seconds) == (4, 4, 0.0)


def finish_with_work(incomplete: RunOutput) -> dict[str, Any]:
    """Run what an output of four images lacks; returns its summary.json."""
    report = Report(
        images=3,
        seconds={"propose": 6.0},
        cpu_seconds={"propose": 5.0},
        counts=Counter({"proposals": 70, "bytes_read": 300}),
    )
    done = WorkDone(incomplete, report, utilisation={"propose": 0.5})
    complete_run(incomplete, RunOptions(), lambda: done)
    stored: dict[str, Any] = json.loads(Path(incomplete.uri, "summary.json").read_bytes())
    return stored


def test_a_rerun_without_work_keeps_the_figures_of_the_run_that_did_it(
    complete: RunOutput, incomplete: RunOutput, tmp_path: Path
) -> None:
    stored = finish_with_work(incomplete)
    assert stored["stage_seconds"] == {"propose": 6.0}
    assert stored["images_done_before"] == 1
    again = replace(complete, failed_before=Counter())
    summary = complete_run(again, RunOptions(), MagicMock())
    assert (summary.done_before, summary.report.seconds) == (4, {})  # what this start did
    assert json.loads((tmp_path / "summary.json").read_bytes()) == stored


def test_a_moved_output_names_its_new_place_beside_the_kept_figures(
    complete: RunOutput, incomplete: RunOutput, tmp_path: Path
) -> None:
    stored = finish_with_work(incomplete)
    moved = {**stored, "output": "elsewhere", "stage_seconds": {"propose": 6.0}}
    (tmp_path / "summary.json").write_text(json.dumps(moved))
    complete_run(replace(complete, failed_before=Counter()), RunOptions(), MagicMock())
    assert json.loads((tmp_path / "summary.json").read_bytes()) == stored


@pytest.mark.parametrize("damage", ["other failures", "no JSON", "missing"])
def test_figures_that_do_not_belong_to_the_output_are_not_kept(
    damage: str, complete: RunOutput, incomplete: RunOutput, tmp_path: Path
) -> None:
    """Such as after `--retry-failed` that was killed before its summary: it had changed what is failed."""
    finish_with_work(incomplete)
    path = tmp_path / "summary.json"
    if damage == "no JSON":
        path.write_bytes(b"{")
    if damage == "missing":
        path.unlink()
    failed = Counter({"read: Gone": 1} if damage == "other failures" else {})
    complete_run(
        replace(complete, failed_before=failed), RunOptions(max_failed_fraction=1), MagicMock()
    )
    stored = json.loads(path.read_bytes())
    assert (stored["images_done_before"], stored["stage_seconds"]) == (4, {})
    assert stored["failed"] == dict(failed)


def test_too_many_failed_images_fail_the_run_after_all_is_written(
    incomplete: RunOutput, tmp_path: Path
) -> None:
    def do_work() -> WorkDone:
        return WorkDone(incomplete, Report(images=3, failed=Counter({"read: Gone": 2})))

    with pytest.raises(TooManyFailedImages, match=r"2 of 4 images failed \(2 read: Gone\)"):
        complete_run(incomplete, RunOptions(max_failed_fraction=0.4), do_work)
    assert (tmp_path / "summary.json").is_file()


def test_the_last_lines_show_how_busy_the_slots_were_if_that_was_measured() -> None:
    summary = Summary("out", 4, 2, 0, seconds=2.0)
    assert not any("slots in use" in line for line in summary.format_lines())
    measured = replace(summary, utilisation={"propose": 0.993})
    assert "slots in use: propose 99%" in measured.format_lines()


def test_the_summary_says_how_far_the_plan_was_off(incomplete: RunOutput, tmp_path: Path) -> None:
    plan = RunPlan(
        "test",
        incomplete.record.fingerprint,
        images=3,
        parts=1,
        cluster=PlannedCluster(1, 2),
        sampled=3,
        figures={
            "core_hours": Estimate(2.0, 1.0, 3.0),
            "bytes_read": Estimate(300.0, 300.0, 300.0),
            "bytes_written": Estimate(90.0, 80.0, 100.0),
            "wall_seconds": Estimate(5.0, 4.0, 6.0),
        },
    )
    plan.write(str(tmp_path))
    report = Report(
        images=3,
        cpu_seconds={"propose": 3600.0, "detect": 5400.0},
        counts=Counter({"bytes_read": 300, "bytes": 100}),
    )

    def do_work() -> WorkDone:
        return WorkDone(incomplete, report, cores=4)

    summary = complete_run(incomplete, RunOptions(), do_work)
    stored = json.loads((tmp_path / "summary.json").read_bytes())
    assert stored["cpu_seconds"] == {"propose": 3600.0, "detect": 5400.0}
    assert stored["plan"] == {  # the wall time was planned for two cores
        "core_hours": {"planned": 2.0, "actual": 2.5, "relative": -0.2},
        "bytes_read": {"planned": 300.0, "actual": 300.0, "relative": 0.0},
        "bytes_written": {"planned": 90.0, "actual": 100.0, "relative": -0.1},
    }
    assert summary.format_lines()[-2] == (
        "plan against run: core-hours of computing -20.0%, read, images +0.0%, written -10.0%"
    )


def test_a_plan_of_another_run_says_nothing(incomplete: RunOutput, tmp_path: Path) -> None:
    RunPlan("test", "f" * 64, 3, 1, PlannedCluster(1, 2), 3).write(str(tmp_path))
    complete_run(incomplete, RunOptions(), lambda: WorkDone(incomplete, Report(images=3)))
    assert "plan" not in json.loads((tmp_path / "summary.json").read_bytes())
