"""Training on Ray: workers that agree, workers that die, runs that are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import run_record
from pipeline.detector import checkpoint
from pipeline.engine.train import run as training_run
from pipeline.engine.train.run import Execution, TrainingSummary
from pipeline.engine.train.validation import Validation
from pipeline.engine.train.workers import fitting
from pipeline.errors import (
    InvalidCheckpoint,
    InvalidConfiguration,
    MismatchedOutput,
    NoCapacity,
    TrainingFailed,
    UnreadableDataset,
)
from pipeline.proposals.settings import ProposalSettings
from pipeline.sources.drawn import CLASSES
from pipeline.training import logs, state
from pipeline.training.loop import train as run_alone
from pipeline.training.recipe import Recipe
from pipeline.training.recipes import named
from pipeline.training.run import TrainingRun
from pipeline.training.source import open_manifests, open_sources
from pipeline.training.survey import survey
from tests.training.drawn import make_dataset

on_ray = pytest.mark.usefixtures("ray_cluster")

QUICK = dataclasses.replace(named("tiny"), short_sides=(64,), max_side=96, iterations=12)
ONE_IMAGE = dataclasses.replace(QUICK, images_per_step=1, rois_per_step=64)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    manifest, proposals, _ = make_dataset(tmp_path_factory.mktemp("drawn"))
    return manifest, proposals


def train(
    data: tuple[str, str], output: Path, recipe: Recipe = QUICK, **options: Any
) -> TrainingSummary:
    told = {name: options.pop(name) for name in ("weights", "overwrite", "seed") if name in options}
    execution = Execution(**{"workers": 1, "checkpoint_every": 5, "log_every": 2, **options})
    return training_run.run([data[0]], [data[1]], str(output), recipe, execution=execution, **told)


def losses(output: Path) -> list[float]:
    return [record.loss for record in logs.read(str(output))]


@pytest.fixture(scope="module")
def trained(
    ray_cluster: None, data: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("trained")
    summary = train(data, output)
    assert (summary.steps, summary.images) == (12, 8)
    return output


def test_two_workers_do_what_one_does_with_twice_the_images(
    trained: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    train(data, tmp_path, ONE_IMAGE, workers=2)
    assert [r.step for r in logs.read(str(tmp_path))] == [2, 4, 5, 6, 8, 10, 12]
    np.testing.assert_allclose(losses(trained), losses(tmp_path), rtol=1e-3)
    assert run_record.read_record(str(trained)) == run_record.read_record(str(tmp_path))
    assert checkpoint.load(str(tmp_path)).classes == CLASSES


@on_ray
def test_a_killed_worker_costs_nothing_but_time(data: tuple[str, str], tmp_path: Path) -> None:
    import psutil  # ray brings it along

    longer = dataclasses.replace(ONE_IMAGE, iterations=60)
    killed: list[int] = []

    def kill_one() -> None:
        while not killed:
            latest = state.latest(str(tmp_path / "broken"))
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
    assert killed[0] < 60
    sources = open_sources(open_manifests([data[0]]), [data[1]])
    alone = dataclasses.replace(QUICK, iterations=60)
    whole = TrainingRun(
        str(tmp_path / "whole"),
        alone,
        sources,
        survey(sources, alone),
        checkpoint_every=5,
        log_every=2,
    )
    run_alone(whole)
    steps = [[r.step for r in logs.read(str(tmp_path / name))] for name in ("whole", "broken")]
    assert steps[0] == steps[1]
    np.testing.assert_allclose(losses(tmp_path / "broken"), losses(tmp_path / "whole"), rtol=0.02)


@on_ray
def test_a_loss_that_is_not_finite_is_not_tried_again(
    data: tuple[str, str], tmp_path: Path
) -> None:
    wild = dataclasses.replace(QUICK, optimiser="sgd", learning_rate=1e20, gradient_clip=None)
    with pytest.raises(TrainingFailed, match=r"step \d+: .* is not finite"):
        train(data, tmp_path, wild)
    assert not (tmp_path / "model.json").exists()


def test_a_finished_training_says_so_and_another_is_refused(
    trained: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(trained, output)
    weights = (output / "model.safetensors").read_bytes()
    again = train(data, output)
    assert "finished already" in again.lines()[0]
    with pytest.raises(MismatchedOutput, match=r"seed: 0 there, 1 now.*--overwrite"):
        train(data, output, seed=1)
    assert (output / "model.safetensors").read_bytes() == weights
    train(data, output, seed=1, overwrite=True)
    assert (output / "model.safetensors").read_bytes() != weights
    assert json.loads((output / "run.json").read_text())["settings"]["seed"] == 1


def test_an_output_of_other_classes_is_refused(
    trained: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    more = str(tmp_path / "more.parquet")
    told = {name.decode(): value for name, value in pq.read_schema(data[0]).metadata.items()}
    told["classes"] = json.dumps(["other", *CLASSES]).encode()
    pq.write_table(pq.read_table(data[0]).replace_schema_metadata(told), more)
    with pytest.raises(MismatchedOutput, match=r'classes: \["circle", .* there, \["other", '):
        train((more, data[1]), trained)


def test_a_checkpoint_of_unknown_origin_is_kept(
    trained: Path, data: tuple[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(trained, output)
    (output / "run.json").unlink()
    weights = (output / "model.safetensors").read_bytes()
    with pytest.raises(MismatchedOutput, match=r"unknown origin, since run\.json is missing"):
        train(data, output)
    assert (output / "model.safetensors").read_bytes() == weights


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[TrainingRun]:
    """The runs that are ready to be trained; none of them is."""
    runs: list[TrainingRun] = []
    monkeypatch.setattr(training_run, "fit", lambda run, *_, **options: runs.append(run))
    return runs


@on_ray
def test_rates_grow_with_the_images_of_a_step(
    data: tuple[str, str], tmp_path: Path, told: list[TrainingRun]
) -> None:
    scaled = dataclasses.replace(QUICK, scale_rate_with_workers=True)
    for name, recipe, workers in (
        ("divided", scaled, None),  # 2 workers with an image each
        ("given", scaled, 2),  # 2 workers with two each
        ("not told", QUICK, 2),
    ):
        train(data, tmp_path / name, recipe, workers=workers)
    assert [(run.workers, run.rate_factor) for run in told] == [(2, 1), (2, 2), (2, 1)]


@on_ray
def test_an_unreadable_image_leaves_its_worker_in_step(tmp_path: Path) -> None:
    manifest, proposals, _ = make_dataset(tmp_path / "drawn")
    (tmp_path / "drawn" / "images" / "p3.png").write_bytes(b"no image")
    told = dataclasses.replace(ONE_IMAGE, precision="bf16")
    train((manifest, proposals), tmp_path / "two", told, workers=2)
    parts = dataclasses.replace(QUICK, accumulate=2, precision="bf16")
    train((manifest, proposals), tmp_path / "one", parts)
    assert logs.read(str(tmp_path / "two"))[-1].skipped == 3  # once in each of 3 epochs
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(tmp_path / "two"), rtol=0.02)


@on_ray
def test_what_one_worker_alone_finds_wrong_ends_the_others(
    data: tuple[str, str], tmp_path: Path
) -> None:
    manifest, proposals, _ = make_dataset(tmp_path / "held out")
    validation = Validation(manifest, proposals, every=4)
    for part in (tmp_path / "held out" / "proposals").glob("part-*.parquet"):
        part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(UnreadableDataset, match=r"part-.*\.parquet"):
        training_run.run(
            [data[0]],
            [data[1]],
            str(tmp_path / "out"),
            ONE_IMAGE,
            execution=Execution(workers=2),
            validation=validation,
        )


@on_ray
def test_workers_that_find_no_room_are_given_up(
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
            train(data, tmp_path, ONE_IMAGE, workers=2, no_capacity_after=4)
    finally:
        ray.kill(occupant)


@pytest.mark.parametrize(
    ("field", "value"),
    [("checkpoint_every", 0), ("log_every", 0), ("max_failures", -1), ("no_capacity_after", 0.0)],
)
def test_an_option_that_cannot_be_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(InvalidConfiguration, match=f"--{field.replace('_', '-')} is {value}"):
        Execution(**{field: value})


@on_ray
def test_a_damaged_state_is_named(trained: Path, data: tuple[str, str], tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(trained, output)
    state.point_to(str(output), 12, finished=False)
    (output / "steps" / "state-000000012.pt").write_bytes(b"rubbish")
    with pytest.raises(InvalidCheckpoint, match=r"state-000000012\.pt is damaged"):
        train(data, output)


@on_ray
@pytest.mark.skipif(
    torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="this processor computes in fp16"
)
def test_a_precision_that_the_workers_lack_is_not_tried_again(
    data: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfiguration, match="this processor has no fp16"):
        train(data, tmp_path, dataclasses.replace(QUICK, precision="fp16"))


@on_ray
def test_proposals_are_computed_into_the_output_where_none_are_given(
    data: tuple[str, str], tmp_path: Path, told: list[TrainingRun]
) -> None:
    settings = ProposalSettings(strategy="single", min_side=8)
    training_run.run([data[0]], settings, str(tmp_path), QUICK)
    training_run.run([data[0], data[0]], settings, str(tmp_path / "both"), QUICK)
    (source,) = told[0].sources
    assert source.proposals.parts.uri == str(tmp_path / "proposals")
    assert all(len(boxes) > 5 for boxes in source.read(0).proposals)
    places = [source.proposals.parts.uri for source in told[1].sources]
    assert places == [str(tmp_path / "both" / "proposals" / number) for number in "01"]
    assert told[1].survey.images == 16


@on_ray
def test_more_workers_than_the_nodes_hold_are_refused(
    data: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(NoCapacity, match=r"9 training workers do not fit: the nodes have 2 cores"):
        train(data, tmp_path, workers=9, no_capacity_after=0.2)


def test_weights_of_another_network_are_refused_before_ray_starts(
    data: tuple[str, str], tmp_path: Path
) -> None:
    import torch

    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InvalidCheckpoint, match="holds nothing for tiny"):
        train(data, tmp_path / "out", weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("nodes", "count", "expected"),
    [
        ([{"CPU": 2}], None, (2, 1, False, 1)),  # the step's two images, one for each core
        ([{"CPU": 8}], None, (2, 4, False, 1)),
        ([{"CPU": 8}], 1, (1, 8, False, 2)),
        ([{"CPU": 4}, {"CPU": 4}], 1, (1, 4, False, 2)),  # a worker does not span nodes
        ([{"CPU": 4}, {"CPU": 2}], 3, (3, 2, False, 2)),
        ([{"CPU": 16, "GPU": 4}], None, (4, 4, True, 2)),
        ([{"CPU": 16, "GPU": 4}], 2, (2, 8, True, 2)),
    ],
)
def test_workers_fill_the_nodes(
    nodes: list[dict[str, float]], count: int | None, expected: tuple[int, int, bool, int]
) -> None:
    found = fitting(Recipe(), count, nodes)
    assert found is not None
    assert (found.count, found.cpus, found.gpu, found.recipe.images_per_step) == expected


def test_workers_have_gpus_or_cores_as_told() -> None:
    one_gpu = [{"CPU": 16, "GPU": 1}]
    assert fitting(Recipe(), 4, one_gpu) is None  # never on cores by itself
    assert fitting(Recipe(), None, [{"CPU": 16}], gpu=True) is None
    for gpu, expected in ((True, (1, True)), (False, (2, False))):
        found = fitting(Recipe(), None, one_gpu, gpu)
        assert found is not None
        assert (found.count, found.gpu) == expected


def test_nodes_that_are_too_small_hold_none() -> None:
    assert fitting(Recipe(), 3, [{"CPU": 2}]) is None
    assert fitting(Recipe(), None, [{"CPU": 0}]) is None
