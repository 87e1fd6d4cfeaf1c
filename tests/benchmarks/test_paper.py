"""The jobs accept the commands of all tables, and rows rest on what they compare."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from jobs import train
from pipeline.baselines.system_options import check_options
from pipeline.detector.architecture import Architecture
from pipeline.detector.network import build_network
from pipeline.detector.timing import LAYERS
from pipeline.run_record import RunRecord
from pipeline.training.recipes import PAPER as PAPER_RECIPE
from pipeline.training.recipes import get_recipe
from tests.benchmarks import (
    paper,
    paper_report,
    paper_steps,
    paper_systems,
    paper_trainings,
)
from tests.benchmarks.paper_rows import (
    DETECTION,
    DETECTION_CPU,
    FINER,
    IMAGE,
    MAP,
    STEP,
    TITLES,
    Estimate,
)
from tests.benchmarks.paper_runs import Reference, Runs
from tests.benchmarks.paper_sizes import SIZES
from tests.benchmarks.paper_steps import Score, Steps
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
        {"boxes": 10, "average_recall": 0.2, "recall50": 0.5, "recall70": 0.1},
        {"boxes": 5000, "average_recall": 0.6, "recall50": 0.9, "recall70": 0.5},
        {"boxes": None, "average_recall": 0.7, "recall50": 0.95, "recall70": 0.6},
    ],
}


def build_options(folder: Path, recipe: str, *more: str) -> argparse.Namespace:
    data = "--manifest m --proposals p --test-manifest tm --test-proposals tp --weights w.pth"
    words = [*data.split(), "--output", str(folder), "--recipe", recipe, "--epochs", "4", *more]
    return paper.parse_options([*words, "--", "--workers", "1"])


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that run."""
    recorded: list[list[str]] = []

    def execute(_steps: Steps, job: str, arguments: Sequence[str]) -> int:
        recorded.append([job, *arguments])
        return 0

    def read_json(path: Path) -> Mapping[str, Any]:
        if path.name == "comparison.json":
            return dict.fromkeys((MAP, *FINER), COMPARISON)
        if path.parent.name == "recall":
            return RECALL
        names = (MAP, *FINER)
        return dict.fromkeys(names, 0.5) | {"intervals": {name: [0.25, 0.75] for name in names}}

    monkeypatch.setattr(Steps, "execute", execute)
    monkeypatch.setattr(paper_systems, "read_summary", lambda _: SUMMARY)
    for module in (paper_systems, paper_trainings):
        monkeypatch.setattr(
            module, "measure_detection", lambda _: {DETECTION: 0.5, DETECTION_CPU: 1.0}
        )
        monkeypatch.setattr(module, "describe_sample", lambda *_: "")
    monkeypatch.setattr(paper_trainings, "measure_image_seconds", lambda *_: 0.5)
    for module in (paper_steps, paper_trainings):
        monkeypatch.setattr(module, "read_json", read_json)
    monkeypatch.setattr(
        paper_trainings, "measure_step_seconds", lambda output: 8.0 if "128" in output else 0.5
    )
    monkeypatch.setattr(paper, "_describe", lambda *_: {})
    monkeypatch.setattr(paper_report, "draw_figure", lambda *_: None)
    return recorded


def test_every_job_accepts_its_command(tmp_path: Path, commands: list[list[str]]) -> None:
    paper.run(build_options(tmp_path, "mobilenet_v2", "--max-proposals", "300"))
    assert {command[0] for command in commands} == {"train", "compress", "detect", "analyze"}
    options_by_name = {}
    forms = set()
    for job, *arguments in commands:
        form = (job, arguments[0], *(word for word in arguments if word.startswith("--")))
        if job != "train" and form in forms:
            continue  # it differs in names of folders only
        forms.add(form)
        parsed = tyro.cli(get_options_and_main(job, tuple(arguments))[0], args=arguments)
        if isinstance(parsed, train.Train):
            options_by_name[Path(parsed.output).name] = parsed
            recipe = get_recipe(parsed.recipe)
            check_options(parsed.system, parsed.fields, recipe, parsed.baseline)
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
    assert {c[c.index("--rule") + 1] for c in commands if c[0] == "detect"} == {"paper"}
    own_boxes = next(c for c in commands if "--no-refine-boxes" in c)
    assert own_boxes[own_boxes.index("--checkpoint") + 1] == str(tmp_path / "trained" / "joint")
    check_written_report(json.loads((tmp_path / "paper.json").read_text()))


def check_written_report(written: Mapping[str, Any]) -> None:
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
    finer = {"value": 0.5, "low": -0.5, "high": 0.125, "difference": -0.25}
    assert second["finer"] == {"voc_map50": finer, "coco_ap": finer}
    whole, small = (row["figures"] for row in written["tables"]["svd"])
    assert whole == {IMAGE: 4.0} | {f"{name}, %": 25.0 for name in LAYERS}
    assert small[paper_systems.SPEED_UP] == 2.0
    assert written["tables"]["speed"][-1]["figures"][paper_systems.SPEED_UP] == 1.0
    assert written["tables"]["speed"][-2]["paper"] == "0.10 / 0.15 / 0.32 s per image"
    few, many = (row["figures"] for row in written["tables"]["sampling"])
    assert few == {STEP: 0.5, paper_trainings.SPEED_UP: 16.0}
    assert many == {STEP: 8.0}
    layers, joint = written["tables"]["layers"], written["tables"]["multi_task"][-1]
    assert [row["compared_with"] for row in layers] == ["", "head only", "from block 7"]
    assert joint["compared_with"] == "stage-wise training"
    assert joint["paper"] == "+2.5 / +2.6 / +2.9 mAP"
    proposals = written["tables"]["proposals"]
    # The other tables' 300 is not among them, so the largest number takes its place.
    assert [row["compared_with"] for row in proposals] == [*["4000 proposals"] * 3, ""]
    (fixed,) = written["tables"]["fixed_proposals"]
    # 300 lies between 10 and 5000 boxes, where the recall rises from .5 to .9.
    expected = 0.5 + 0.4 * 290 / 4990
    assert fixed["figures"]["recall of the best 300 at IoU 0.5"] == pytest.approx(expected)
    compared = [row["compared_with"] for row in written["tables"]["svm"]]
    assert compared == ["", "softmax", "softmax", "softmax, the paper's recipe"]


def test_the_rule_of_detection_is_chosen(tmp_path: Path, commands: list[list[str]]) -> None:
    paper.run(build_options(tmp_path, "tiny", "--only", "scales", "--rule", "default"))
    rules = {c[c.index("--rule") + 1] for c in commands if c[0] == "detect"}
    assert rules == {"default"}


def list_trainings(row: Mapping[str, Any]) -> list[str]:
    outputs = [c.rpartition("--output ")[2] for c in row["commands"] if "jobs/train.py" in c]
    return [Path(output).name for output in outputs]


def test_a_row_has_the_commands_of_what_it_rests_on(
    tmp_path: Path, commands: list[list[str]]
) -> None:
    paper.run(build_options(tmp_path, "tiny", "--only", "multi_task,scales,svd,svm"))
    tables = json.loads((tmp_path / "paper.json").read_text())["tables"]
    assert [list_trainings(row) for row in tables["multi_task"]] == [
        ["classification"],
        ["classification", "joint"],
        ["classification", "stage-wise"],
        ["classification", "joint"],
        ["stage-wise", "joint"],
    ]
    assert [list_trainings(row) for row in tables["scales"]] == [
        ["joint"],
        ["joint"],
        ["joint", "scales"],
        ["joint", "scales"],
    ]
    assert any("compress" in command for command in tables["svd"][0]["commands"])
    last = tables["svm"][-1]["commands"]
    jobs = [(command.split()[1], command.rpartition("/")[2]) for command in last]
    assert jobs == [
        ("jobs/train.py", "joint-as-paper"),
        ("jobs/detect.py", "joint-as-paper"),
        ("jobs/train.py", "svm-as-paper"),
        ("jobs/detect.py", "svm-as-paper"),
        ("jobs/analyze.py", "joint-as-paper-svm-as-paper"),
    ]


def test_only_the_requested_tables_run(tmp_path: Path, commands: list[list[str]]) -> None:
    paper.run(build_options(tmp_path, "tiny", "--only", "sampling"))
    outputs = [Path(c[c.index("--output") + 1]).name for c in commands]
    assert outputs == ["sampling-2", "sampling-128"]


@pytest.mark.parametrize(("recipe", "shared"), [("mobilenet_v2", "block6"), ("tiny", "none")])
def test_what_equals_the_joint_training_is_not_trained_again(
    tmp_path: Path, commands: list[list[str]], recipe: str, shared: str
) -> None:
    counts = ("--max-proposals", "30", "--proposal-counts", "10", "30")
    paper.run(build_options(tmp_path, recipe, "--only", "layers,proposals", *counts))
    trained = [Path(c[c.index("--output") + 1]).name for c in commands if c[0] == "train"]
    frozen = {freeze for _, freeze in SIZES[recipe].freezes}
    assert shared in frozen
    layers = {f"layers-{freeze}" for freeze in frozen if freeze != shared}
    assert sorted(trained) == sorted({"joint", "proposals-10"} | layers)
    assert len(commands) == len({tuple(command) for command in commands})


def test_training_the_head_only_fixes_the_whole_trunk() -> None:
    for size in SIZES.values():
        freeze = dict(size.freezes)["head only"]
        network = get_recipe(size.recipe).network
        backbone = build_network(Architecture(("a",), network, freeze_until=freeze)).backbone
        before = {name for name, p in backbone.named_parameters() if not p.requires_grad}
        backbone.zero_grad()
        backbone.requires_grad_(True)
        backbone.trunk(torch.zeros(1, 3, 64, 64)).sum().backward()
        trunk = {name for name, p in backbone.named_parameters() if p.grad is not None}
        assert before == trunk


def test_seeds_are_compared_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = {"a": 0.75, "a-1": 0.5, "b": 0.25, "b-1": 0.5}

    def compare(_steps: Steps, first: str, second: str, _manifest: str) -> Score:
        map50 = Estimate(maps[second], -1, maps[first], maps[second] - maps[first])
        area = Estimate(maps[second] / 2, -0.5, 0.5, 0.25)
        return Score("o", {MAP: map50, "voc_map50": area, "coco_ap": area})

    monkeypatch.setattr(Steps, "compare", compare)
    options = build_options(tmp_path, "tiny")
    runs = Runs(Steps(tmp_path), SIZES["tiny"], options)
    first = Reference("first", ["a", "a-1"])
    row = runs.build_row("quality", "two seeds", ["b", "b-1"], first)
    assert (row.map50, row.difference, row.compared_with) == (0.375, 0.375 - 0.625, "first")
    assert (row.interval, row.seeds, row.map50_by_seed) == ((-1, 0.625), 2, (0.25, 0.5))
    assert row.differences_by_seed == (-0.5, 0.0)
    assert row.finer["voc_map50"] == Estimate(0.1875, -0.5, 0.5, 0.25)
    with pytest.raises(ValueError, match="zip"):
        runs.build_row("quality", "one seed", ["b"], first)


def test_each_seed_is_trained_and_the_first_is_timed(
    tmp_path: Path, commands: list[list[str]]
) -> None:
    paper.run(build_options(tmp_path, "tiny", "--only", "speed,quality", "--seeds", "2"))
    outputs = [Path(c[c.index("--output") + 1]).name for c in commands if c[0] == "train"]
    assert outputs == [
        *("rcnn", "sppnet", "joint", "fully-connected"),
        *("joint-1", "rcnn-1", "sppnet-1", "joint-as-paper", "joint-as-paper-1"),
    ]
    tables = json.loads((tmp_path / "paper.json").read_text())["tables"]
    assert {row["seeds"] for row in tables["speed"]} == {1}
    assert {row["seeds"] for row in tables["quality"]} == {2}


def test_an_unknown_table_is_rejected_by_name() -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"unknown table 'rpn' \(choose from speed"
    ):
        paper.parse_tables("quality,rpn")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "0 is not at least 1"),
        (["--epochs", "inf"], "inf is not a number above 0"),
        (["--images", "3"], "--images is the number of images that --quick draws"),
        (["--", "--network", "squeezenet1_0"], "the tables set --network"),
        (["--", "--freeze_until=none"], "the tables set --freeze-until"),
    ],
)
def test_options_that_no_table_can_use_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    data = [
        "--manifest",
        "m",
        "--proposals",
        "p",
        "--test-manifest",
        "tm",
        "--test-proposals",
        "tp",
    ]
    with pytest.raises(SystemExit, match="2"):
        paper.parse_options([*data, "--output", str(tmp_path), *words])
    assert message in capsys.readouterr().err


def test_more_proposals_than_are_stored_are_left_out_or_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = build_options(tmp_path, "mobilenet_v2")
    options.test_proposals = str(tmp_path)
    assert paper.choose_size(options).proposal_counts == (50, 200, 1000, 4000)
    RunRecord("propose", {"proposals": {"max_boxes": 400}}).write(str(tmp_path))
    size = paper.choose_size(options)
    assert (size.proposals, size.proposal_counts) == (400, (50, 200))
    assert "at most 400 boxes per image: no row with 1000, 4000" in capsys.readouterr().out
    options.proposal_counts = [50, 4000]
    with pytest.raises(SystemExit, match="2"):
        paper.choose_size(options)
    assert "run propose with --max-boxes 4000 or more" in capsys.readouterr().err
