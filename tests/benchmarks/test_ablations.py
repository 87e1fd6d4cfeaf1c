"""The ablations' commands are ones that the jobs take, each is done once, and the table says what is told."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import tyro

from jobs import train
from tests.benchmarks import ablations
from tests.benchmarks.ablation_steps import Row, Steps, markdown
from tests.jobs.command import options_of

FOUND = {"voc07_map50": {"second": 0.5, "difference": -0.25, "low": -0.5, "high": 0.125}}


def asked(
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
    """The distinct commands that are asked for, instead of doing them."""
    told: list[list[str]] = []

    def job(steps: Steps, *command: object) -> None:
        words = [str(word) for word in command]
        if words not in told:
            told.append(words)

    def compare(steps: Steps, first: str, second: str, manifest: str) -> object:
        steps.job("analyze", "compare", "--detections", first, second, "--manifest", manifest)
        return FOUND

    monkeypatch.setattr(Steps, "job", job)
    monkeypatch.setattr(Steps, "compare", compare)
    monkeypatch.setattr(Steps, "seconds", lambda *_: [2.0, 1.0])
    monkeypatch.setattr(Steps, "seconds_of_vgg16", lambda *_: [6.0, 2.0])
    return told


@pytest.mark.parametrize("recipe", ablations.BASES)
def test_every_command_is_one_that_its_job_takes(
    recipe: str, tmp_path: Path, commands: list[list[str]]
) -> None:
    ablations.run(asked(tmp_path, recipe))
    assert {command[0] for command in commands} == {"train", "compress", "detect", "analyze"}
    trained = {}
    for job, *arguments in commands:
        if job == "analyze":
            continue
        parsed = tyro.cli(options_of(job, tuple(arguments))[0], args=arguments)
        if isinstance(parsed, train.Train):
            trained[Path(parsed.output).name] = parsed
    heads = ["fully_connected"] if ablations.BASES[recipe].fully_connected else []
    assert list(trained) == ["joint", "classification", "stage_wise", "scales", *heads]
    assert all(trained[name].fields.fc_widths == (1024, 1024) for name in heads)
    assert trained["joint"].fields.fc_widths is None
    assert {options.execution.workers for options in trained.values()} == {1}
    joint, scales = trained["joint"].fields, trained["scales"].fields
    assert trained["classification"].fields.box_loss_weight == 0
    assert trained["stage_wise"].fields.box_epochs == 2
    assert len(joint.short_sides) == 1
    assert len(scales.short_sides) == 5
    assert scales.max_side == 2 * joint.max_side
    told = (tmp_path / "ablations.md").read_text()
    assert "| classification loss only | 0.500 | -0.250 | -0.500 to +0.125 |" in told
    assert "2.000 to 1.000 s per image (2.00x)" in told


def test_only_what_is_asked_for(tmp_path: Path, commands: list[list[str]]) -> None:
    ablations.run(asked(tmp_path, "tiny", only=("svd",)))
    outputs = [Path(c[c.index("--output") + 1]).name for c in commands if "--output" in c]
    assert outputs == [
        "joint",
        "joint",
        "svd",
        "svd",
    ]  # trained and detected, compressed and detected


def test_a_step_is_done_once_and_a_failed_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, calls = iter([0, 3, 0]), []

    def done(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(command[1:])
        return SimpleNamespace(returncode=next(codes))

    monkeypatch.setattr(subprocess, "run", done)
    Steps(tmp_path).job("detect", "--output", tmp_path)
    again = Steps(tmp_path)
    again.job("detect", "--output", tmp_path)
    with pytest.raises(SystemExit, match="3"):
        again.job("train", "--epochs", "1")
    Steps(tmp_path).job("train", "--epochs", "1")
    assert [call[0] for call in calls] == ["jobs/detect.py", "jobs/train.py", "jobs/train.py"]
    assert f"$ python jobs/detect.py --output {tmp_path}" in capsys.readouterr().out


def test_what_is_measured_is_kept_while_it_is_of_the_same(tmp_path: Path) -> None:
    taken = iter([[1.0], [2.0]])
    for of, expected in (("a", [1.0]), ("a", [1.0]), ("b", [2.0])):
        assert Steps(tmp_path)._measured("svd", [of], lambda: next(taken)) == expected


def test_the_table() -> None:
    told = markdown(
        {
            "joint": [Row("jointly", FOUND, first=True)],
            "svd": [Row("rank 8", FOUND), Row("VGG16", note="1 to 2 s")],
        }
    )
    assert told.splitlines()[2:] == [
        "| jointly | 0.500 |  |  |  |",
        "| rank 8 | 0.500 | -0.250 | -0.500 to +0.125 |  |",
        "| VGG16 |  |  |  | 1 to 2 s |",
    ]


def test_an_unknown_claim_is_named() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="'rpn' is none of joint"):
        ablations._claims("joint,rpn")
