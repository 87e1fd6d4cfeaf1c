"""`--precision auto` is settled once for a training, whatever the workers of a rerun support."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import torch

from pipeline.detector import device_selection
from pipeline.engine.train.precision import settle_precision
from pipeline.engine.train.training_output import make_run_record, prepare_output
from pipeline.run_record import read_record
from pipeline.runs.resume import TakenOver
from pipeline.training.recipes import get_recipe
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from tests.training.training_dataset import open_drawn_datasets

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn_spec(tmp_path_factory: pytest.TempPathFactory) -> TrainingSpec:
    datasets, _ = open_drawn_datasets(tmp_path_factory.mktemp("drawn"))
    recipe = dataclasses.replace(get_recipe("tiny"), precision="auto")
    return TrainingSpec("", recipe, datasets, survey_datasets(datasets, recipe))


def _settle(
    spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, *, supports_bf16: bool
) -> TrainingSpec:
    monkeypatch.setattr(device_selection, "_supports_bf16", lambda device: supports_bf16)
    record = make_run_record(spec)
    prepare_output(spec.output, record, overwrite=False)
    return settle_precision(spec, record, rank=0, device=CPU)


@pytest.mark.parametrize("first", [True, False])
def test_a_rerun_keeps_the_precision_of_the_first_start(
    drawn_spec: TrainingSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    spec = dataclasses.replace(drawn_spec, output=str(tmp_path))
    expected: Literal["bf16", "fp32"] = "bf16" if first else "fp32"
    for supports_bf16 in (first, not first, first):
        settled = _settle(spec, monkeypatch, supports_bf16=supports_bf16)
        assert settled.recipe == dataclasses.replace(spec.recipe, precision=expected)
    record = read_record(spec.output)
    assert record is not None
    assert record.resolved == {"precision": expected}
    assert record.fingerprint == make_run_record(spec).fingerprint


def test_a_chosen_precision_is_not_recorded(drawn_spec: TrainingSpec, tmp_path: Path) -> None:
    recipe = dataclasses.replace(drawn_spec.recipe, precision="fp32")
    spec = dataclasses.replace(drawn_spec, output=str(tmp_path), recipe=recipe)
    assert settle_precision(spec, make_run_record(spec), rank=0, device=CPU) is spec


def test_an_output_that_another_training_took_over_is_left_alone(
    drawn_spec: TrainingSpec, tmp_path: Path
) -> None:
    spec = dataclasses.replace(drawn_spec, output=str(tmp_path))
    other = make_run_record(dataclasses.replace(spec, seed=1))
    other.write(spec.output)
    with pytest.raises(TakenOver):
        settle_precision(spec, make_run_record(spec), rank=0, device=CPU)
    assert read_record(spec.output) == other
