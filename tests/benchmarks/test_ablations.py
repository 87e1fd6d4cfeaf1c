"""The jobs accept the ablations' commands, each command runs once, and the table holds the comparisons."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

from jobs import train
from tests.benchmarks import ablations
from tests.benchmarks.ablation_steps import Row, Steps, format_table
from tests.jobs.command import get_options_and_main

COMPARISON = {"voc07_map50": {"second": 0.5, "difference": -0.25, "low": -0.5, "high": 0.125}}


def build_options(
    folder: Path, recipe: str, only: tuple[str, ...] = ablations.CLAIMS
) -> argparse.Namespace:
    return argparse.Namespace(
        manifest="m",
        proposals="p",
        test_manifest="tm",
        test_proposals="tp",
        weights=None,
        recipe=recipe,
        epochs=4.0,
        limit=None,
        only=only,
        output=str(folder),
        training=["--workers", "1"],
    )


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The distinct commands that would run."""
    recorded: list[list[str]] = []

    def record_job(steps: Steps, *command: object) -> None:
        words = [str(word) for word in command]
        if words not in recorded:
            recorded.append(words)

    def compare(steps: Steps, first: str, second: str, manifest: str) -> object:
        steps.run_job("analyze", "compare", "--detections", first, second, "--manifest", manifest)
        return COMPARISON

    monkeypatch.setattr(Steps, "run_job", record_job)
    monkeypatch.setattr(Steps, "compare", compare)
    monkeypatch.setattr(Steps, "measure_seconds", lambda *_: [2.0, 1.0])
    monkeypatch.setattr(Steps, "measure_vgg16_seconds", lambda *_: [6.0, 2.0])
    return recorded


@pytest.mark.parametrize("recipe", ablations.BASES)
def test_every_job_accepts_its_command(
    recipe: str, tmp_path: Path, commands: list[list[str]]
) -> None:
    ablations.run(build_options(tmp_path, recipe))
    assert {command[0] for command in commands} == {"train", "compress", "detect", "analyze"}
    options_by_name = {}
    for job, *arguments in commands:
        if job == "analyze":
            continue
        parsed = tyro.cli(get_options_and_main(job, tuple(arguments))[0], args=arguments)
        if isinstance(parsed, train.Train):
            options_by_name[Path(parsed.output).name] = parsed
    heads = ["fully_connected"] if ablations.BASES[recipe].fully_connected else []
    assert list(options_by_name) == ["joint", "classification", "stage_wise", "scales", *heads]
    assert all(options_by_name[name].fields.fc_widths == (1024, 1024) for name in heads)
    assert options_by_name["joint"].fields.fc_widths is None
    assert {options.execution.workers for options in options_by_name.values()} == {1}
    joint, scales = options_by_name["joint"].fields, options_by_name["scales"].fields
    assert options_by_name["classification"].fields.box_loss_weight == 0
    assert options_by_name["stage_wise"].fields.box_epochs == 2
    assert len(joint.short_sides) == 1
    assert len(scales.short_sides) == 5
    assert scales.max_side == 2 * joint.max_side
    table = (tmp_path / "ablations.md").read_text()
    assert "| classification loss only | 0.500 | -0.250 | -0.500 to +0.125 |" in table
    assert "2.000 to 1.000 s per image (2.00x)" in table


def test_only_the_requested_claims_run(tmp_path: Path, commands: list[list[str]]) -> None:
    ablations.run(build_options(tmp_path, "tiny", only=("svd",)))
    outputs = [Path(c[c.index("--output") + 1]).name for c in commands if "--output" in c]
    # Training and detection, then compression and detection.
    assert outputs == ["joint", "joint", "svd", "svd"]


def test_a_finished_step_is_skipped_and_a_failed_step_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, calls = iter([0, 3, 0]), []

    def run_command(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(command[1:])
        return SimpleNamespace(returncode=next(codes))

    monkeypatch.setattr(subprocess, "run", run_command)
    Steps(tmp_path).run_job("detect", "--output", tmp_path)
    resumed = Steps(tmp_path)
    resumed.run_job("detect", "--output", tmp_path)
    with pytest.raises(SystemExit, match="3"):
        resumed.run_job("train", "--epochs", "1")
    Steps(tmp_path).run_job("train", "--epochs", "1")
    assert [call[0] for call in calls] == ["jobs/detect.py", "jobs/train.py", "jobs/train.py"]
    assert f"$ python jobs/detect.py --output {tmp_path}" in capsys.readouterr().out


def test_measured_seconds_are_reused_for_the_same_inputs(tmp_path: Path) -> None:
    measurements = iter([[1.0], [2.0]])
    for inputs, expected in (("a", [1.0]), ("a", [1.0]), ("b", [2.0])):
        seconds = Steps(tmp_path)._measure_once("svd", [inputs], lambda: next(measurements))
        assert seconds == expected


def test_differences_are_printed_for_all_but_the_baseline() -> None:
    table = format_table(
        {
            "joint": [Row("jointly", COMPARISON, is_baseline=True)],
            "svd": [Row("rank 8", COMPARISON), Row("VGG16", note="1 to 2 s")],
        }
    )
    assert table.splitlines()[2:] == [
        "| jointly | 0.500 |  |  |  |",
        "| rank 8 | 0.500 | -0.250 | -0.500 to +0.125 |  |",
        "| VGG16 |  |  |  | 1 to 2 s |",
    ]


def test_an_unknown_claim_is_rejected_by_name() -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"unknown claim 'rpn' \(choose from joint"
    ):
        ablations._parse_claims("joint,rpn")
