"""Training on Ray: workers that agree, workers that die, rejected runs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import run_record, storage
from pipeline.detector.checkpoint import load_checkpoint
from pipeline.engine.train.run import run_training
from pipeline.engine.train.training_request import Execution, TrainingRequest
from pipeline.engine.train.training_summary import TrainingSummary
from pipeline.engine.train.validation import Validation
from pipeline.errors import (
    InvalidCheckpoint,
    InvalidConfiguration,
    MismatchedOutput,
    NoCapacity,
    TrainingFailed,
    UnreadableDataset,
)
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.start_totals import read_start_totals
from pipeline.sources.drawn_dataset import CLASSES
from pipeline.training import logs, state
from pipeline.training.annotated_dataset import open_annotated_datasets, open_annotated_manifests
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import get_recipe
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from pipeline.training.trainer import Trainer
from tests.training.training_dataset import write_dataset

on_ray = pytest.mark.usefixtures("ray_cluster")

QUICK = dataclasses.replace(get_recipe("tiny"), short_sides=(64,), max_side=96, iterations=12)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    manifest, proposals, _ = write_dataset(tmp_path_factory.mktemp("drawn"))
    return manifest, proposals


def train(
    data: tuple[str, str], output: Path, recipe: Recipe = QUICK, **options: Any
) -> TrainingSummary:
    names = ("weights", "overwrite", "seed")
    arguments = {name: options.pop(name) for name in names if name in options}
    execution = Execution(**{"workers": 1, "checkpoint_every": 5, "log_every": 2, **options})
    return run_training(
        TrainingRequest([data[0]], [data[1]], str(output), recipe, execution=execution, **arguments)
    )


def train_in_process(data: tuple[str, str], output: Path, recipe: Recipe = QUICK) -> None:
    """Train without Ray, which takes seconds to start a worker."""
    datasets = open_annotated_datasets(open_annotated_manifests([data[0]]), [data[1]])
    survey = survey_datasets(datasets, recipe)
    spec = TrainingSpec(str(output), recipe, datasets, survey, checkpoint_every=5, log_every=2)
    Trainer(spec).train()


def read_losses(output: Path) -> list[float]:
    return [record.loss for record in logs.read_log(str(output))]


@pytest.fixture(scope="module")
def complete_output(
    ray_cluster: None, data: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("trained")
    on_interrupt = signal.getsignal(signal.SIGINT)
    summary = train(data, output)
    assert signal.getsignal(signal.SIGINT) is on_interrupt  # Ray Train would replace it
    assert (summary.steps, summary.images) == (12, 8)
    return output


def test_two_workers_that_divide_a_step_match_one_worker(
    complete_output: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    train(data, tmp_path, workers=2)
    assert [r.step for r in logs.read_log(str(tmp_path))] == [2, 4, 5, 6, 8, 10, 12]
    np.testing.assert_allclose(read_losses(complete_output), read_losses(tmp_path), rtol=1e-3)
    assert run_record.read_record(str(complete_output)) == run_record.read_record(str(tmp_path))
    assert load_checkpoint(str(tmp_path)).classes == CLASSES


@on_ray
def test_a_killed_worker_costs_nothing_but_time(data: tuple[str, str], tmp_path: Path) -> None:
    import psutil  # ray brings it along

    longer = dataclasses.replace(QUICK, iterations=30)
    killed: list[int] = []

    def kill_one() -> None:
        while not killed:
            latest = state.read_latest_state(str(tmp_path / "broken"))
            if latest is not None and latest.step >= 5:
                workers = [
                    child
                    for child in psutil.Process().children(recursive=True)
                    if "RayTrainWorker" in " ".join(child.cmdline())
                ]
                workers[0].kill()
                killed.append(latest.step)
            time.sleep(0.02)

    thread = threading.Thread(target=kill_one)
    thread.start()
    train(data, tmp_path / "broken", longer, workers=2)
    thread.join()
    assert killed[0] < 30
    train_in_process(data, tmp_path / "whole", dataclasses.replace(QUICK, iterations=30))
    steps = [[r.step for r in logs.read_log(str(tmp_path / name))] for name in ("whole", "broken")]
    assert steps[0] == steps[1]
    np.testing.assert_allclose(
        read_losses(tmp_path / "broken"), read_losses(tmp_path / "whole"), rtol=0.02
    )


@on_ray
def test_a_loss_that_is_not_finite_is_not_retried(data: tuple[str, str], tmp_path: Path) -> None:
    wild = dataclasses.replace(QUICK, optimiser="sgd", learning_rate=1e20, gradient_clip=None)
    with pytest.raises(TrainingFailed, match=r"step \d+: .* is not finite"):
        train(data, tmp_path, wild)
    assert not (tmp_path / "model.json").exists()


def test_a_finished_training_does_nothing_and_another_is_rejected(
    complete_output: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(complete_output, output)
    weights = (output / "model.safetensors").read_bytes()
    path = output / "summary.json"
    summary = json.loads(path.read_text())
    storage.put(f"{output}/steps/totals.json", b'{"seconds": 1000.5}')
    again = train(data, output)
    assert "finished already" in again.format_lines()[0]
    assert json.loads(path.read_text()) == summary
    path.unlink()  # a driver that is killed at the end does not come to it
    train(data, output)
    assert json.loads(path.read_text()) == summary | {"seconds": 1000.5, "output": str(output)}
    with pytest.raises(MismatchedOutput, match=r"seed: 0 there, 1 now.*--overwrite"):
        train(data, output, seed=1)
    assert (output / "model.safetensors").read_bytes() == weights
    train(data, output, seed=1, overwrite=True)
    assert (output / "model.safetensors").read_bytes() != weights
    assert json.loads((output / "run.json").read_text())["settings"]["seed"] == 1


def test_an_output_with_other_classes_is_rejected(
    complete_output: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    more = str(tmp_path / "more.parquet")
    metadata = {name.decode(): value for name, value in pq.read_schema(data[0]).metadata.items()}
    metadata["classes"] = json.dumps(["other", *CLASSES]).encode()
    pq.write_table(pq.read_table(data[0]).replace_schema_metadata(metadata), more)
    with pytest.raises(MismatchedOutput, match=r'classes: \["circle", .* there, \["other", '):
        train((more, data[1]), complete_output)


def test_a_checkpoint_of_unknown_origin_is_kept(
    complete_output: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(complete_output, output)
    (output / "run.json").unlink()
    weights = (output / "model.safetensors").read_bytes()
    with pytest.raises(
        MismatchedOutput,
        match=r"holds steps/latest\.json and \d+ more files of an unknown run, since run",
    ):
        train(data, output)
    assert (output / "model.safetensors").read_bytes() == weights


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[TrainingSpec]:
    """The specifications that reach Ray Train, which is not run."""
    specs: list[TrainingSpec] = []
    monkeypatch.setattr(
        "pipeline.engine.train.run.run_ray_train", lambda spec, *_, **options: specs.append(spec)
    )
    return specs


@on_ray
def test_learning_rates_scale_with_the_global_batch_size(
    data: tuple[str, str], tmp_path: Path, specs: list[TrainingSpec]
) -> None:
    scaled = dataclasses.replace(QUICK, scale_rate_with_workers=True)
    for name, recipe, workers in (
        ("divided", scaled, None),  # 2 workers with an image each
        ("given", scaled, 2),  # 2 workers with two each
        ("not scaled", QUICK, 2),  # 2 workers with an image each
        ("too many", QUICK, 9),  # 2 workers: the step has no more images
    ):
        train(data, tmp_path / name, recipe, workers=workers)
    assert [(spec.workers, spec.rate_factor, spec.images_per_step) for spec in specs] == [
        (2, 1, 2),
        (2, 2, 4),
        (2, 1, 2),
        (2, 1, 2),
    ]


@on_ray
def test_the_seconds_are_those_of_all_starts(
    data: tuple[str, str], tmp_path: Path, specs: list[TrainingSpec]
) -> None:
    train(data, tmp_path, workers=1)
    storage.put(f"{tmp_path}/steps/totals.json", b'{"seconds": 1000}')  # as a killed start left it
    second = train(data, tmp_path, workers=1)
    assert 1000 < second.seconds < 1300
    stored = json.loads((tmp_path / "summary.json").read_text())["seconds"]
    assert stored == round(second.seconds, 3)
    assert read_start_totals(f"{tmp_path}/steps/totals.json")["seconds"] == second.seconds
    assert len(specs) == 2


@on_ray
def test_a_worker_with_an_unreadable_image_stays_in_step(tmp_path: Path) -> None:
    manifest, proposals, _ = write_dataset(tmp_path / "drawn")
    (tmp_path / "drawn" / "images" / "p3.png").write_bytes(b"no image")
    half = dataclasses.replace(QUICK, precision="bf16")
    train((manifest, proposals), tmp_path / "two", half, workers=2)
    parts = dataclasses.replace(QUICK, accumulate=2, precision="bf16")
    train_in_process((manifest, proposals), tmp_path / "one", parts)
    assert logs.read_log(str(tmp_path / "two"))[-1].skipped == 3  # once in each of 3 epochs
    np.testing.assert_allclose(
        read_losses(tmp_path / "one"), read_losses(tmp_path / "two"), rtol=0.02
    )


@on_ray
def test_an_error_of_one_worker_ends_the_others(data: tuple[str, str], tmp_path: Path) -> None:
    manifest, proposals, _ = write_dataset(tmp_path / "held out")
    validation = Validation(manifest, proposals, every=4)
    for part in (tmp_path / "held out" / "proposals").glob("part-*.parquet"):
        part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(UnreadableDataset, match=r"part-.*\.parquet"):
        run_training(
            TrainingRequest(
                [data[0]],
                [data[1]],
                str(tmp_path / "out"),
                QUICK,
                execution=Execution(workers=2),
                validation=validation,
            )
        )


@on_ray
def test_a_training_without_room_for_its_workers_fails(
    data: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "2")

    @ray.remote(num_cpus=2)
    class Occupant:
        def ready(self) -> None: ...

    occupant = Occupant.remote()  # type: ignore[attr-defined]
    ray.get(occupant.ready.remote())
    try:
        with pytest.raises(NoCapacity, match=r"no room for 2 training workers of 1 CPU each"):
            train(data, tmp_path, workers=2, no_capacity_after=4)
    finally:
        ray.kill(occupant)


@pytest.mark.parametrize(
    ("field", "value"),
    [("checkpoint_every", 0), ("log_every", 0), ("max_failures", -1), ("no_capacity_after", 0.0)],
)
def test_an_option_outside_its_range_is_rejected_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidConfiguration, match=f"--{field.replace('_', '-')} is {value}"):
        Execution(**{field: value})


def test_a_damaged_state_is_named(
    complete_output: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(complete_output, output)
    state.set_latest_state(str(output), 12, is_finished=False)
    (output / "steps" / "state-000000012.pt").write_bytes(b"rubbish")
    with pytest.raises(InvalidCheckpoint, match=r"state-000000012\.pt is damaged"):
        train_in_process(data, output)


@on_ray
def test_missing_proposals_are_computed_into_the_output(
    data: tuple[str, str], tmp_path: Path, specs: list[TrainingSpec]
) -> None:
    settings = ProposalSettings(strategy="single", min_side=8)
    run_training(TrainingRequest([data[0]], settings, str(tmp_path), QUICK))
    both = [data[0], data[0]]
    run_training(TrainingRequest(both, settings, str(tmp_path / "both"), QUICK))
    (dataset,) = specs[0].datasets
    assert dataset.proposals.parts.uri == str(tmp_path / "proposals")
    assert all(len(boxes) > 5 for boxes in dataset.read(0).proposals)
    proposal_uris = [dataset.proposals.parts.uri for dataset in specs[1].datasets]
    assert proposal_uris == [str(tmp_path / "both" / "proposals" / number) for number in "01"]
    assert specs[1].survey.images == 16


@on_ray
def test_more_workers_than_the_nodes_hold_are_rejected(
    data: tuple[str, str], tmp_path: Path
) -> None:
    scaled = dataclasses.replace(QUICK, scale_rate_with_workers=True)
    with pytest.raises(NoCapacity, match=r"9 training workers do not fit: the nodes have 2 cores"):
        train(data, tmp_path, scaled, workers=9, no_capacity_after=0.2)


def test_weights_of_another_network_are_rejected_before_ray_starts(
    data: tuple[str, str], tmp_path: Path
) -> None:

    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InvalidCheckpoint, match="holds nothing for tiny"):
        train(data, tmp_path / "out", weights=str(tmp_path / "other.pth"))
