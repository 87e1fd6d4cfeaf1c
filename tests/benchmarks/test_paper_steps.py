"""A step runs once for its command and inputs, and its times are those of the images that it did."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.run_record import RunRecord
from tests.benchmarks import paper_drawn_data, paper_steps
from tests.benchmarks.paper_rows import DETECTION, DETECTION_CPU
from tests.benchmarks.paper_seconds import (
    describe_sample,
    measure_detection,
    measure_image_seconds,
)
from tests.benchmarks.paper_steps import Steps


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that run."""
    recorded: list[str] = []

    def execute(_steps: Steps, job: str, _arguments: Sequence[str]) -> int:
        recorded.append(job)
        return 0

    monkeypatch.setattr(Steps, "execute", execute)
    return recorded


def test_a_finished_step_is_skipped_and_a_failed_step_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, calls = iter([0, 3, 0]), []

    def start(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(command[1:])
        return SimpleNamespace(wait=lambda: next(codes))

    monkeypatch.setattr(subprocess, "Popen", start)
    Steps(tmp_path).run_job("detect", "--output", tmp_path)
    resumed = Steps(tmp_path)
    resumed.run_job("detect", "--output", tmp_path)
    with pytest.raises(SystemExit, match="3"):
        resumed.run_job("train", "--output", "t")
    with (tmp_path / "steps.jsonl").open("a") as log:
        log.write('{"command": ["jobs/tra')  # killed while it wrote this line
    Steps(tmp_path).run_job("train", "--output", "t")
    assert len(Steps(tmp_path)._finished) == 2
    assert [call[0] for call in calls] == ["jobs/detect.py", "jobs/train.py", "jobs/train.py"]
    assert f"$ python jobs/detect.py --output {tmp_path}" in capsys.readouterr().out
    assert resumed.list_commands(str(tmp_path)) == [f"python jobs/detect.py --output {tmp_path}"]


def test_a_step_runs_again_if_its_inputs_have_changed(tmp_path: Path, jobs: list[str]) -> None:
    manifest, proposals = tmp_path / "m.parquet", tmp_path / "proposals"
    command = ("--manifest", manifest, "--proposals", proposals, "--output", tmp_path / "d")

    def count_runs() -> int:
        Steps(tmp_path).run_job("detect", *command)
        return len(jobs)

    manifest.write_bytes(b"one")
    proposals.mkdir()
    RunRecord("propose", {"seed": 0}).write(str(proposals))
    assert (count_runs(), count_runs()) == (1, 1)
    manifest.write_bytes(b"two")
    assert (count_runs(), count_runs()) == (2, 2)
    RunRecord("propose", {"seed": 1}).write(str(proposals))
    assert (count_runs(), count_runs()) == (3, 3)


def test_a_stopped_command_ends_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def wait(seconds: float | None = None) -> int:
        calls.append(f"wait {seconds}")
        if seconds is None:
            raise SystemExit(143)
        raise subprocess.TimeoutExpired("job", seconds)

    process = SimpleNamespace(
        wait=wait,
        terminate=lambda: calls.append("terminate"),
        kill=lambda: calls.append("kill"),
    )
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: process)
    with pytest.raises(SystemExit):
        paper_steps._run_alone(["jobs/train.py"])
    assert calls == ["wait None", "terminate", f"wait {paper_steps.STOP_SECONDS}", "kill"]


def test_seconds_per_image_are_those_of_the_images_of_the_last_start(tmp_path: Path) -> None:
    def write(**values: object) -> None:
        (tmp_path / "summary.json").write_text(json.dumps(values))

    write(images=10, images_done_before=8, stage_seconds={"detect": 4.0}, cpu_seconds={"detect": 3})
    assert measure_detection(str(tmp_path)) == {DETECTION: 2.0, DETECTION_CPU: 1.5}
    assert (
        describe_sample(str(tmp_path))
        == "detect: timed on 2 of 10 images, which the last start did"
    )
    write(images=10, images_done_before=0, images_reused=2, stage_seconds={"detect": 4.0})
    assert measure_detection(str(tmp_path)) == {DETECTION: 0.5}
    write(images=10, images_done_before=0, stage_seconds={"detect": 4.0})
    assert describe_sample(str(tmp_path)) == ""
    write(images=10, images_done_before=10, stage_seconds={})
    assert measure_detection(str(tmp_path)) == {}
    assert "not timed" in describe_sample(str(tmp_path))
    write(images=10, boxes=3)  # of an import
    assert measure_image_seconds(str(tmp_path), "propose") is None
    assert measure_image_seconds(str(tmp_path / "nothing"), "propose") is None


def test_other_numbers_of_drawn_images_are_other_data(
    tmp_path: Path, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(root: Path, count: int, _tests: int, seed: int) -> Path:
        for split in ("train", "test"):
            (root / f"{split}.parquet").parent.mkdir(parents=True, exist_ok=True)
            (root / f"{split}.parquet").write_text(f"{count} {seed}")
        return root

    monkeypatch.setattr(paper_drawn_data, "_draw", draw)
    manifests = []
    for count in (30, 60):
        options = argparse.Namespace(images=count, weights="w")
        paper_drawn_data.prepare_drawn_data(options, Steps(tmp_path))
        manifests.append(options.manifest)
    assert manifests[0] != manifests[1]
    assert len(jobs) == 4
