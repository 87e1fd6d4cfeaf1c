"""The train job: errors in one line, options that override the recipe, a killed driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jobs import entry
from jobs.train import Train, make_options_class
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow, open_manifest
from pipeline.sources.drawn_dataset import CLASSES
from pipeline.training import logs, state
from pipeline.training.annotated_dataset import open_annotated_datasets, open_annotated_manifests
from pipeline.training.recipes import get_recipe
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from pipeline.training.trainer import Trainer
from tests.training.training_dataset import write_dataset, write_proposals

JOB = [sys.executable, str(Path(__file__).parents[2] / "jobs" / "train.py")]
QUICK = ["--recipe", "tiny", "--short-sides", "64", "--max-side", "96", "--images-per-step", "1"]
QUICK += ["--rois-per-step", "64", "--workers", "1", "--checkpoint-every", "8", "--log-every", "4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    manifest, proposals, _ = write_dataset(tmp_path_factory.mktemp("drawn"))
    return ["--manifest", manifest, "--proposals", proposals]


def run_rejected(folder: Path, *arguments: str) -> str:
    output = str(folder / "out")
    ended = subprocess.run(
        [*JOB, "--output", output, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr.splitlines()[-1]


def test_an_unknown_recipe_is_rejected_with_the_names(data: list[str], tmp_path: Path) -> None:
    message = run_rejected(tmp_path, *data, "--recipe", "vgg")
    assert message.startswith("error: there is no recipe 'vgg'; recipes are mobilenet_v2")


def test_a_recipe_field_out_of_range_is_named(data: list[str], tmp_path: Path) -> None:
    message = run_rejected(tmp_path, *data, "--recipe", "tiny", "--flip", "2")
    assert message == "error: --flip is 2.0, expected 0 to 1"


def test_a_missing_manifest_and_missing_proposals_are_named(
    data: list[str], tmp_path: Path
) -> None:
    message = run_rejected(
        tmp_path, "--manifest", "/nowhere.parquet", *data[2:], "--recipe", "tiny"
    )
    assert "/nowhere.parquet does not exist" in message
    message = run_rejected(tmp_path, *data[:2], "--proposals", str(tmp_path), "--recipe", "tiny")
    assert "holds no shards.parquet" in message


def test_weights_that_do_not_exist_are_named(data: list[str], tmp_path: Path) -> None:
    message = run_rejected(tmp_path, *data, "--recipe", "tiny", "--weights", "/nowhere.pth")
    assert "/nowhere.pth does not exist" in message


def test_a_manifest_without_objects_is_named(tmp_path: Path) -> None:
    manifest = str(tmp_path / "empty.parquet")
    write_manifest(manifest, [ManifestRow("a", "/a.png", 9, 9, None)], CLASSES)
    write_proposals(open_manifest(manifest), str(tmp_path / "p"), [None], 1)
    arguments = ["--manifest", manifest, "--proposals", str(tmp_path / "p")]
    message = run_rejected(tmp_path, *arguments, "--recipe", "tiny")
    assert "empty.parquet: no image holds an object" in message


def test_the_recipe_sets_the_defaults_of_the_options() -> None:
    for arguments in (["--seed", "1", "--recipe", "tiny"], ["--recipe=tiny"]):
        options_class = make_options_class(arguments)
        assert issubclass(options_class, Train)
        assert options_class(manifest=(), proposals=(), output="", recipe="").fields == get_recipe(
            "tiny"
        )


@pytest.mark.parametrize("recipe", ["mobilenet_v2", "caffenet"])
@pytest.mark.parametrize("value", [True, False])
def test_a_flag_of_the_recipe_can_be_set_whatever_its_default_is(recipe: str, value: bool) -> None:
    paths = ["--manifest", "m", "--output", "o"]
    arguments = [*paths, "--recipe", recipe, "--widen-background", str(value)]
    options = entry.parse(make_options_class(arguments), arguments)
    assert options.fields.widen_background is value


def train_in_process(options: list[str], output: str) -> None:
    """Train by the job's options without Ray, which takes seconds to start."""
    parsed = entry.parse(make_options_class(options), options)
    manifests = open_annotated_manifests(parsed.manifest)
    datasets = open_annotated_datasets(manifests, parsed.proposals)
    spec = TrainingSpec(
        output,
        parsed.fields,
        datasets,
        survey_datasets(datasets, parsed.fields),
        checkpoint_every=parsed.execution.checkpoint_every,
        log_every=parsed.execution.log_every,
    )
    Trainer(spec).train()


def test_a_rerun_after_a_killed_driver_resumes_from_the_latest_state(
    data: list[str], tmp_path: Path
) -> None:
    broken = str(tmp_path / "broken")
    options = [*data, *QUICK, "--iterations", "48", "--output", broken]
    train_in_process(options, str(tmp_path / "whole"))
    first = subprocess.Popen([*JOB, *options], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while first.poll() is None and time.monotonic() < deadline:
        latest = state.read_latest_state(broken)
        if latest is not None and latest.step >= 16:
            break
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "broken" / "model.json").exists()
    again = subprocess.run(
        [*JOB, *options], check=True, capture_output=True, text=True, timeout=300
    )
    assert "an earlier run of this training came to step" in again.stderr
    curves = [logs.read_log(str(tmp_path / name)) for name in ("whole", "broken")]
    assert [r.step for r in curves[0]] == [r.step for r in curves[1]]
    losses = [[r.loss for r in curve] for curve in curves]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)  # other threads round differently
