"""Plans of small runs from end to end, and what their runs say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.detector.detection_settings import DetectionSettings
from pipeline.engine.detect.resources import ActorOptions
from pipeline.engine.detect.run import run_detection
from pipeline.engine.planning.plan_detection import plan_detection
from pipeline.engine.planning.plan_proposals import plan_proposals
from pipeline.engine.propose.run import run_proposals
from pipeline.errors import InvalidConfiguration, MismatchedOutput
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.plan_options import DetectionPlanOptions, PlanOptions
from pipeline.shards import open_parts
from tests.engine.drawn_images import write_damaged_manifest, write_random_checkpoint

on_ray = pytest.mark.usefixtures("ray_cluster")

SETTINGS = ProposalSettings(strategy="single", max_boxes=50)
OPTIONS = RunOptions(shard_size=4, max_failed_fraction=0.5)


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_bytes())
    return content


@on_ray
def test_a_plan_is_put_before_its_run_and_compared_after_it(tmp_path: Path) -> None:
    manifest, output = write_damaged_manifest(tmp_path), tmp_path / "out"
    plan_options = PlanOptions(plan=True, cores=2, core_hour_price=1.0)
    plan = plan_proposals(manifest, str(output), SETTINGS, OPTIONS, plan_options)
    assert [path.name for path in output.iterdir()] == ["plan.json"]
    assert (plan.images, plan.parts, plan.sampled, plan.sampled_failed) == (10, 3, 10, 3)

    summary = run_proposals(manifest, str(output), SETTINGS, OPTIONS)
    stored = _read_json(output, "summary.json")
    assert stored["cpu_seconds"]["propose"] > 0
    compared = stored["plan"]
    # All images were measured: bytes read are exact, those written as far as parts are alike.
    assert compared["bytes_read"]["relative"] == 0
    assert abs(compared["bytes_written"]["relative"]) < 0.15
    assert compared["core_hours"]["actual"] > 0
    assert "wall_seconds" in compared
    assert summary.format_lines()[-2].startswith("plan against run: core-hours of computing ")

    with pytest.raises(MismatchedOutput, match="holds a finished run"):
        plan_proposals(manifest, str(output), SETTINGS, OPTIONS, plan_options)
    assert open_parts(str(output)).rows == 10


@on_ray
def test_another_run_may_begin_where_a_plan_is_and_says_nothing_of_it(tmp_path: Path) -> None:
    manifest, output = write_damaged_manifest(tmp_path), tmp_path / "out"
    plan_proposals(manifest, str(output), SETTINGS, OPTIONS, PlanOptions(plan=True))
    other = ProposalSettings(strategy="single", max_boxes=10)
    run_proposals(manifest, str(output), other, OPTIONS)
    assert "plan" not in _read_json(output, "summary.json")


@on_ray
def test_a_detection_is_planned_with_the_detector_on_the_cores(tmp_path: Path) -> None:
    manifest, output = write_damaged_manifest(tmp_path), tmp_path / "out"
    checkpoint = write_random_checkpoint(tmp_path)
    settings = DetectionSettings()
    plan = plan_detection(
        manifest,
        checkpoint,
        str(output),
        proposals=SETTINGS,
        settings=settings,
        actors=ActorOptions(),
        options=OPTIONS,
        plan_options=DetectionPlanOptions(plan=True, cores=2, gpus=0),
    )
    assert "gpu_hours" not in plan.figures
    assert plan.sampled_failed == 3
    run_detection(
        manifest,
        checkpoint,
        str(output),
        proposals=SETTINGS,
        settings=settings,
        options=OPTIONS,
    )
    stored = _read_json(output, "summary.json")
    assert set(stored["cpu_seconds"]) == {"propose", "detect"}
    assert stored["plan"]["bytes_read"]["relative"] == 0
    assert abs(stored["plan"]["bytes_written"]["relative"]) < 0.3


def _plan_on_gpus(folder: Path, **options: Any) -> Any:
    return plan_detection(
        write_damaged_manifest(folder),
        write_random_checkpoint(folder),
        str(folder / "out"),
        proposals=SETTINGS,
        settings=DetectionSettings(),
        actors=ActorOptions(gpus_per_actor=0.5),
        options=OPTIONS,
        plan_options=DetectionPlanOptions(plan=True, nodes=2, cores=8, **options),
    )


def test_seconds_of_another_machine_stand_for_a_gpu(tmp_path: Path) -> None:
    plan = _plan_on_gpus(
        tmp_path, gpus=1, detector_seconds_per_image=36.0, gpu_hour_price=2.0, plan_images=8
    )
    # Half a GPU for 36 s per image.
    assert plan.figures["gpu_hours"].value == pytest.approx(10 * 36 * 0.5 / 3600)
    # Three shards of four images at most, on four detectors: one shard each.
    assert plan.figures["wall_seconds"].value == pytest.approx(4 * 36, abs=20)
    assert plan.figures["price"].value == pytest.approx(
        plan.figures["wall_seconds"].value / 3600 * 4.0
    )
    assert "bytes_written" not in plan.figures


def test_gpu_hours_without_a_gpu_are_rejected_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.planning.plan_detection.count_gpus", lambda: 0)
    with pytest.raises(InvalidConfiguration, match="GPU-hours need a GPU on this machine"):
        _plan_on_gpus(tmp_path, gpus=1)
    with pytest.raises(InvalidConfiguration, match="--gpus-per-actor needs nodes with GPUs"):
        _plan_on_gpus(tmp_path, gpus=0)
    assert not (tmp_path / "out" / "plan.json").exists()
