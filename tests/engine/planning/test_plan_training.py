"""The plan of a small training, and what the training says of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.engine.planning.plan_training import MeasuredTraining, plan_training
from pipeline.engine.train.run import run_training
from pipeline.engine.train.training_request import Execution, TrainingRequest
from pipeline.errors import InvalidConfiguration, MismatchedOutput
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.plan_options import GpuPlanOptions
from pipeline.runs.run_plan import RunPlan
from pipeline.training.recipes import get_recipe
from tests.training.training_dataset import write_dataset

QUICK = dataclasses.replace(get_recipe("tiny"), short_sides=(64,), max_side=96, iterations=12)
EXECUTION = Execution(workers=1, checkpoint_every=5, log_every=2)
PLAN_OPTIONS = GpuPlanOptions(plan=True, plan_images=8, cores=2, gpus=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    manifest, proposals, _ = write_dataset(tmp_path_factory.mktemp("drawn"))
    return manifest, proposals


def _plan(data: tuple[str, str], output: Path, **changes: Any) -> RunPlan:
    plan_options = changes.pop("plan_options", PLAN_OPTIONS)
    return plan_training(dataclasses.replace(_request(data, output), **changes), plan_options)


def _request(data: tuple[str, str], output: Path) -> TrainingRequest:
    return TrainingRequest([data[0]], [data[1]], str(output), QUICK, execution=EXECUTION)


@pytest.mark.usefixtures("ray_cluster")
def test_a_training_is_planned_from_its_first_steps(data: tuple[str, str], tmp_path: Path) -> None:
    plan = _plan(data, tmp_path / "out")
    assert (plan.images, plan.parts, plan.sampled) == (24, 3, 8)  # states at 5, 10 and 12
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]

    summary = run_training(_request(data, tmp_path / "out"))
    stored = json.loads((tmp_path / "out" / "summary.json").read_bytes())
    assert stored["cpu_seconds"]["train"] > 0
    assert abs(stored["plan"]["bytes_read"]["relative"]) < 0.3  # 8 of 12 steps were measured
    assert {"core_hours", "wall_seconds"} <= stored["plan"].keys()
    assert summary.format_lines()[1].startswith("plan against run: core-hours of computing ")
    with pytest.raises(MismatchedOutput, match="the training in --output is finished"):
        _plan(data, tmp_path / "out")


def test_steps_of_the_box_layer_and_the_first_ones_of_all_are_measured_apart(
    data: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm_up = np.array([1000.0, 2000.0])
    monkeypatch.setattr(MeasuredTraining, "compute_warm_up", lambda _: warm_up)
    monkeypatch.setattr(MeasuredTraining, "start_seconds", 4000.0)
    recipe = dataclasses.replace(QUICK, iterations=6, box_epochs=5.0)  # 20 steps of two images
    plan = _plan(data, tmp_path / "out", recipe=recipe)
    assert (plan.images, plan.sampled) == (2 * (6 + 20), 2 * 6)
    assert 3600 * plan.figures["core_hours"].value > 1000
    # Of the 2000, the share is left out in which others had the cores.
    assert plan.figures["wall_seconds"].value > 4000 + 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overwrite": True}, "--plan does not take --overwrite into account"),
        ({"proposals": ProposalSettings()}, "--plan of a training needs stored --proposals"),
        (
            {"plan_options": GpuPlanOptions(plan=True, gpus=1)},
            "GPU-hours of a training need a GPU on this machine",
        ),
    ],
)
def test_what_cannot_be_planned_is_rejected(
    changes: dict[str, Any],
    message: str,
    data: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.engine.planning.plan_training.count_gpus", lambda: 0)
    with pytest.raises(InvalidConfiguration, match=message):
        _plan(data, tmp_path / "out", **changes)
