"""plan.json: written, read back, compared with its run, and left alone by runs that it is not for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import InvalidConfiguration
from pipeline.runs.plan_errors import PlanError, compare_with_plan, format_plan_errors
from pipeline.runs.plan_estimation import Estimate
from pipeline.runs.plan_options import DetectionPlanOptions, GpuPlanOptions, PlanOptions
from pipeline.runs.run_plan import (
    PlannedCluster,
    RunPlan,
    format_bytes,
    read_plan,
    remove_foreign_plan,
)
from tests.project_log import read_project_log

PLAN = RunPlan(
    "propose",
    "f" * 64,
    images=400,
    parts=50,
    cluster=PlannedCluster(4, 16),
    sampled=64,
    sampled_failed=1,
    seed=3,
    figures={
        "core_hours": Estimate(2.0, 1.5, 2.5),
        "wall_seconds": Estimate(125.0, 100.0, 150.0),
        "bytes_written": Estimate(2.5e6, 2.5e6, 2.5e6),
    },
    notes=("nothing is left out",),
)


def test_a_plan_is_read_back_by_the_run_that_it_is_for(tmp_path: Path) -> None:
    PLAN.write(str(tmp_path))
    assert read_plan(str(tmp_path), "f" * 64) == PLAN
    assert read_plan(str(tmp_path), "e" * 64) is None
    assert read_plan(str(tmp_path / "other"), "f" * 64) is None


@pytest.mark.parametrize("content", ["", "[]", '{"job": "propose"}', '{"figures": NaN}'])
def test_a_damaged_plan_counts_as_none_and_is_logged(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "plan.json").write_text(content)
    assert read_plan(str(tmp_path), "f" * 64) is None
    (message,) = read_project_log(caplog)
    assert message.startswith(f"{tmp_path}/plan.json is damaged and is left out: ")


def test_overwriting_removes_the_plan_of_another_run_alone(tmp_path: Path) -> None:
    PLAN.write(str(tmp_path))
    remove_foreign_plan(str(tmp_path), "f" * 64)
    assert (tmp_path / "plan.json").is_file()
    remove_foreign_plan(str(tmp_path), "e" * 64)
    assert not (tmp_path / "plan.json").exists()


def test_lines_have_each_figure_with_its_interval() -> None:
    lines = PLAN.format_lines()
    assert lines[0] == (
        "plan of propose on 4 nodes with 16 cores: 400 images, 50 parts; "
        "measured on 64 images, 1 of which failed"
    )
    assert [line.split("  ")[-1].strip() for line in lines[1:4]] == [
        "2 (1.5 to 2.5)",
        "0:02:05 (0:01:40 to 0:02:30)",
        "2.5 MB",
    ]
    assert lines[-1] == "nothing is left out"


def test_plans_are_stored_as_json_without_times_or_places(tmp_path: Path) -> None:
    PLAN.write(str(tmp_path))
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert stored["cluster"] == {"nodes": 4, "cores": 16, "gpus": 0}
    assert stored["figures"]["core_hours"] == {"value": 2.0, "low": 1.5, "high": 2.5}


def test_a_whole_run_is_compared_with_all_figures() -> None:
    actual = {"core_hours": 1.6, "wall_seconds": 100.0, "bytes_read": 5.0}
    errors = compare_with_plan(PLAN, actual, 400, 64, 0.0)
    assert {name: error.relative for name, error in errors.items()} == {
        "core_hours": pytest.approx(0.25),
        "wall_seconds": pytest.approx(0.25),
    }
    assert format_plan_errors(errors) == (
        "plan against run: core-hours of computing +25.0%, wall time, without Ray's own start +25.0%"
    )


def test_half_a_run_is_compared_with_half_of_what_is_in_proportion() -> None:
    errors = compare_with_plan(PLAN, {"core_hours": 1.0, "wall_seconds": 60.0}, 200, 64, 0.0)
    assert errors == {"core_hours": PlanError(1.0, 1.0)}


def test_the_wall_time_of_another_cluster_is_not_compared() -> None:
    assert not compare_with_plan(PLAN, {"wall_seconds": 60.0}, 400, 2, 0.0)


def test_prices_count_all_cores_and_gpus_of_the_cluster() -> None:
    cluster = PlannedCluster(2, 8, 1)
    options = GpuPlanOptions(plan=True, core_hour_price=0.05, gpu_hour_price=3.0)
    assert cluster.compute_price_per_hour(options) == pytest.approx(16 * 0.05 + 2 * 3.0)
    assert cluster.compute_price_per_hour(PlanOptions(plan=True)) is None


@pytest.mark.parametrize(
    ("make_options", "message"),
    [
        (lambda: PlanOptions(nodes=2), "--nodes is an option of --plan: add --plan"),
        (lambda: PlanOptions(plan=True, nodes=0), "--nodes is 0, expected at least 1"),
        (lambda: PlanOptions(plan=True, plan_images=2), "--plan-images is 2, expected at least 8"),
        (lambda: GpuPlanOptions(plan=True, gpus=-1), "--gpus is -1, expected at least 0"),
        (
            lambda: DetectionPlanOptions(plan=True, detector_seconds_per_image=0.0),
            "--detector-seconds-per-image is 0.0, expected more than 0",
        ),
    ],
)
def test_options_are_checked(make_options: object, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        make_options()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (5.678e9, "5.68 GB")]
)
def test_bytes_are_readable(count: float, text: str) -> None:
    assert format_bytes(count) == text
