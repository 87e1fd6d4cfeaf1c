"""The jobs accept the commands of all tables, each command runs once, and the report holds the rows."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tyro

from jobs import train
from pipeline.detector.timing import LAYERS
from pipeline.training.recipes import PAPER as PAPER_RECIPE
from tests.benchmarks import (
    paper,
    paper_report,
    paper_runs,
    paper_steps,
    paper_systems,
    paper_tables,
    paper_trainings,
)
from tests.benchmarks.paper_report import build_systems, format_table, write_report
from tests.benchmarks.paper_rows import PAPER, TITLES, Row
from tests.benchmarks.paper_steps import Steps
from tests.jobs.command import get_options_and_main

COMPARISON = {"second": 0.5, "difference": -0.25, "low": -0.5, "high": 0.125}
SUMMARY = {
    "seconds": 8.0,
    "cpu_seconds": {"detect": 4.0, "train": 12.0},
    "images": 4,
    "stage_seconds": {"detect": 2.0, "propose": 1.0},
    "counts": {"feature_bytes": 3_000_000},
    "figures": {
        name: {"before": seconds, "after": seconds / 2}
        for name, seconds in {"seconds per image": 4.0, **dict.fromkeys(LAYERS, 1.0)}.items()
    },
}
RECALL = {
    "recall50": 0.9,
    "recall70": 0.7,
    "curve": [
        {"boxes": 10, "average_recall": 0.2},
        {"boxes": 5000, "average_recall": 0.6},
        {"boxes": None, "average_recall": 0.7},
    ],
}


def build_options(folder: Path, recipe: str, *more: str) -> argparse.Namespace:
    data = "--manifest m --proposals p --test-manifest tm --test-proposals tp --weights w.pth"
    words = [*data.split(), "--output", str(folder), "--recipe", recipe, "--epochs", "4", *more]
    return paper.parse_options([*words, "--", "--workers", "1"])


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The distinct commands that would run."""
    recorded: list[list[str]] = []

    def record_job(steps: Steps, *command: object) -> None:
        words = [str(word) for word in command]
        steps.commands.append(" ".join(words))
        if words not in recorded:
            recorded.append(words)

    def read_json(path: Path) -> Mapping[str, Any]:
        if path.name == "comparison.json":
            return {"voc07_map50": COMPARISON}
        if path.parent.name == "recall":
            return RECALL
        return {"voc07_map50": 0.5, "intervals": {"voc07_map50": [0.25, 0.75]}}

    monkeypatch.setattr(Steps, "run_job", record_job)
    for module in (paper_systems, paper_trainings, paper_runs):
        monkeypatch.setattr(module, "read_summary", lambda _: SUMMARY)
    for module in (paper_steps, paper_trainings):
        monkeypatch.setattr(module, "read_json", read_json)
    monkeypatch.setattr(paper_trainings, "measure_step_seconds", lambda _: 0.5)
    monkeypatch.setattr(paper, "_describe", lambda *_: {})
    return recorded


def test_every_job_accepts_its_command(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper_report, "draw_figure", lambda *_: None)
    paper.run(build_options(tmp_path, "mobilenet_v2", "--max-proposals", "300"))
    assert {command[0] for command in commands} == {"train", "compress", "detect", "analyze"}
    options_by_name = {}
    for job, *arguments in commands:
        parsed = tyro.cli(get_options_and_main(job, tuple(arguments))[0], args=arguments)
        if isinstance(parsed, train.Train):
            options_by_name[Path(parsed.output).name] = parsed
    systems = {name: options.system for name, options in options_by_name.items()}
    assert {"rcnn": "rcnn", "sppnet": "sppnet", "joint": "fast-rcnn"}.items() <= systems.items()
    assert systems["svm"] == "fast-rcnn-svm"
    assert options_by_name["svm"].weights == str(tmp_path / "trained" / "joint")
    assert options_by_name["classification"].fields.box_loss_weight == 0
    assert options_by_name["stage-wise"].fields.box_epochs == 4
    assert {options_by_name[name].fields.max_proposals for name in ("rcnn", "joint")} == {300}
    as_paper = options_by_name["joint-as-paper"].fields
    differing = ("optimiser", "schedule", "background_iou_low", "widen_background", "warm_up")
    own = {name: getattr(as_paper, name) for name in differing}
    assert own == {name: getattr(PAPER_RECIPE, name) for name in differing}
    assert len(options_by_name["scales"].fields.short_sides) == 5
    assert options_by_name["sampling-128"].fields.rois_per_image == 1
    own_boxes = next(c for c in commands if "--no-refine-boxes" in c)
    assert own_boxes[own_boxes.index("--checkpoint") + 1] == str(tmp_path / "trained" / "joint")
    written = json.loads((tmp_path / "paper.json").read_text())
    assert list(written["tables"]) == list(TITLES)
    assert written["systems"]["rcnn"] == {
        "map": 0.5,
        "train_seconds": 8.0,
        "stages": 1,
        "feature_bytes": 3_000_000,
        "seconds_per_image": 0.5,
    }
    first, second = written["tables"]["quality"][:2]
    assert (first["measure"], first["value"], first["interval"]) == ("mAP", 0.5, [0.25, 0.75])
    assert (second["difference"], second["interval"]) == (-0.25, [-0.5, 0.125])
    whole = written["tables"]["svd"][0]["figures"]
    assert whole == {"an image, s": 4.0} | {f"{name}, %": 25.0 for name in LAYERS}
    assert all(row["commands"] for rows in written["tables"].values() for row in rows[:1])


def test_only_the_requested_tables_run(tmp_path: Path, commands: list[list[str]]) -> None:
    paper.run(build_options(tmp_path, "tiny", "--only", "sampling"))
    outputs = [Path(c[c.index("--output") + 1]).name for c in commands]
    assert outputs == ["sampling-2", "sampling-128"]


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
    assert resumed.take_commands()[0] == f"python jobs/detect.py --output {tmp_path}"
    assert resumed.take_commands() == []


def test_a_table_has_the_columns_that_a_row_fills() -> None:
    rows = [
        Row("whole", 0.5, None, (0.25, 0.75), figures={"s": 0.25}, paper="66.9 mAP"),
        Row("small", 0.25, -0.25, (-0.5, 0.125), 3, figures={"s": 1250.4, "share": 0.5}),
    ]
    assert format_table(rows)[2:] == [
        "| whole | 0.500 |  | 0.250 to 0.750 | 1 | 0.25 |  | 66.9 mAP |",
        "| small | 0.250 | -0.250 | -0.500 to +0.125 | 3 | 1250 | 0.5 |  |",
    ]
    assert format_table([Row("a", figures={"x": 1.0})])[0] == "|  | x | the paper |"


def test_the_times_of_each_system_are_multiples_of_fast_rcnn_s() -> None:
    names = (paper_systems.TRAINING, paper_systems.DETECTION)
    rows = [
        Row("R-CNN", figures=dict(zip(names, (90.0, 2.0), strict=True))),
        Row("Fast R-CNN", figures=dict(zip(names, (10.0, 0.5), strict=True))),
    ]
    first, last = paper_systems._add_ratios(rows)
    ratios = ("training, x Fast R-CNN", "detection, x Fast R-CNN")
    assert [first.figures[name] for name in ratios] == [9, 4]
    assert [last.figures[name] for name in ratios] == [1, 1]


def test_a_report_of_one_table_has_its_figure_and_systems(tmp_path: Path) -> None:
    rows = [Row("Fast R-CNN", 0.75), Row("R-CNN", 0.5, -0.25, (-0.5, 0.0))]
    write_report(tmp_path, {"quality": rows}, {"recipe": "tiny"})
    assert build_systems({"quality": rows}) == {"fast_rcnn": {"map": 0.75}, "rcnn": {"map": 0.5}}
    assert (tmp_path / "figures" / "quality.png").stat().st_size > 1000
    assert "| R-CNN | 0.500 | -0.250 |" in (tmp_path / "paper.md").read_text()


def test_every_table_has_a_title_and_figures_of_the_paper() -> None:
    assert set(paper_tables.TABLES) == set(TITLES) == {table for table, _ in PAPER}


def test_an_unknown_table_is_rejected_by_name() -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"unknown table 'rpn' \(choose from speed"
    ):
        paper.parse_tables("quality,rpn")
