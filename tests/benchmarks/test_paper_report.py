"""The report holds the rows, what limits them, and the tables of earlier starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.run_record import RunRecord
from tests.benchmarks import paper_systems, paper_tables
from tests.benchmarks.paper_report import (
    Report,
    build_systems,
    format_markdown,
    format_table,
    list_precisions,
)
from tests.benchmarks.paper_rows import (
    DETECTION,
    NOTES,
    PAPER,
    STORED,
    TITLES,
    TRAINING,
    Estimate,
    Row,
)


def test_a_table_without_times_is_still_drawn(tmp_path: Path) -> None:
    rows = [Row("Fast R-CNN", figures={TRAINING: 2.0, "stages": 1, STORED: 0})]
    Report(tmp_path, {}).add("speed", paper_systems._add_ratios(rows))
    systems = json.loads((tmp_path / "paper.json").read_text())["systems"]
    assert systems["fast_rcnn"]["seconds_per_image"] is None
    assert (tmp_path / "figures" / "speed.png").stat().st_size > 1000


def test_a_table_has_the_columns_that_a_row_fills() -> None:
    rows = [
        Row("whole", 0.5, None, (0.25, 0.75), figures={"s": 0.25}, paper="66.9 mAP"),
        Row("small", 0.25, -0.25, (-0.5, 0.125), 3, "whole", {"s": 1250.4, "share": 0.5}),
    ]
    assert format_table(rows)[2:] == [
        "| whole | 0.500 |  | 0.250 to 0.750 | 1 | 0.25 |  | 66.9 mAP |",
        "| small | 0.250 | -0.250 | -0.500 to +0.125 | 3 | 1250 | 0.5 |  |",
    ]
    assert format_table([Row("a", figures={"x": 1.0})])[0] == "|  | x | the paper |"
    finer = {"coco_ap": Estimate(0.25, -0.125, 0.0, -0.0625)}
    header, _, first, second = format_table([Row("a", 0.5), Row("b", 0.25, finer=finer)])
    assert header.split(" | ")[4:6] == ["COCO AP", "seeds"]
    assert first.split(" | ")[4] == ""
    assert second.split(" | ")[4] == "0.250, -0.062 (-0.125 to +0.000)"
    others = [*rows, Row("third", 0.5, 0.25, (0.0, 0.5), compared_with="small")]
    names = [line.split(" | ")[5] for line in format_table(others)]
    assert names == ["compared with", "---", "", "whole", "small"]


def test_a_table_of_several_seeds_has_the_values_of_each() -> None:
    rows = [
        Row("first", 0.5, None, (0.25, 0.75), 2, map50_by_seed=(0.375, 0.625)),
        Row("second", 0.5, 0.0, map50_by_seed=(0.5, 0.5), differences_by_seed=(0.125, -0.125)),
    ]
    header, _, *lines = format_table(rows)
    assert header.split(" | ")[4:6] == ["seeds", "by seed"]
    assert [line.split(" | ")[5] for line in lines] == ["0.375 0.625", "+0.125 -0.125"]


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
    Report(tmp_path, {"recipe": "tiny"}).add("quality", rows)
    assert build_systems({"quality": rows}) == {"fast_rcnn": {"map": 0.75}, "rcnn": {"map": 0.5}}
    assert (tmp_path / "figures" / "quality.png").stat().st_size > 1000
    assert "| R-CNN | 0.500 | -0.250 |" in (tmp_path / "paper.md").read_text()


def test_a_report_names_the_precisions_of_its_runs(tmp_path: Path) -> None:
    for output, values in (("trained/joint", {"precision": "fp32"}), ("detected/joint", {})):
        RunRecord("train", {}, resolved=values).write(str(tmp_path / output))
    assert list_precisions(tmp_path) == ["fp32"]
    RunRecord("detect", {}, resolved={"precision": "bf16"}).write(str(tmp_path / "detected/svd"))
    Report(tmp_path, {}).add("quality", [Row("Fast R-CNN", 0.75)])
    lines = (tmp_path / "paper.md").read_text().splitlines()
    assert lines[2:4] == ["- networks compute in: bf16", "- networks compute in: fp32"]


def test_a_later_start_joins_its_tables_with_those_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finer = {"coco_ap": Estimate(0.25, 0.125, 0.5)}
    quality = [Row("Fast R-CNN", 0.75, None, (0.5, 1.0), 3, note="n", commands=["c"], finer=finer)]
    Report(tmp_path, {"recipe": "tiny", "seeds": 3}).add("quality", quality)
    report = Report(tmp_path, {"recipe": "tiny", "seeds": 1})
    figures = {TRAINING: 2.0, "stages": 1, STORED: 0, DETECTION: 0.5}
    speed = [Row("Fast R-CNN", figures=figures, commands=[])]
    report.add("speed", speed)
    assert Report(tmp_path, {"recipe": "tiny", "seeds": 1}).tables == report.tables
    assert report.tables["quality"][0].interval == (0.5, 1.0)
    written = json.loads((tmp_path / "paper.json").read_text())
    assert list(written["tables"]) == ["speed", "quality"]
    assert written["facts"] == {"recipe": "tiny", "seeds": [3, 1], "networks compute in": []}
    assert written["systems"]["fast_rcnn"]["map"] == 0.75
    assert written["systems"]["fast_rcnn"]["seconds_per_image"] == 0.5
    with pytest.raises(SystemExit, match="2"):
        Report(tmp_path, {"recipe": "mobilenet_v2", "seeds": 1})
    assert "(recipe: tiny there, mobilenet_v2 now)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):  # tables of an earlier version do not state the rule
        Report(tmp_path, {"recipe": "tiny", "rule of detection": "paper"})
    assert "(rule of detection: not stated there, paper now)" in capsys.readouterr().err


def test_the_report_says_what_limits_its_figures() -> None:
    assert set(NOTES) <= set(TITLES)
    assert "random noise" in NOTES["svd"]
    text = format_markdown({"svd": [Row("whole", 0.5, note="timed on 2 of 10 images")]}, {})
    assert NOTES["svd"] in text
    assert "whole: timed on 2 of 10 images" in text


def test_every_table_has_a_title_and_figures_of_the_paper() -> None:
    assert set(paper_tables.TABLES) == set(TITLES) == {table for table, _ in PAPER}
