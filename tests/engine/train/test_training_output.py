"""The output of a training: a new one, one to resume, one to reject."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pipeline.engine.train.training_output import prepare_output
from pipeline.errors import MismatchedOutput
from pipeline.training import state
from pipeline.training.recipes import get_recipe
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from tests.training.training_dataset import open_drawn_datasets


@pytest.fixture(scope="module")
def new_spec(tmp_path_factory: pytest.TempPathFactory) -> TrainingSpec:
    datasets, _ = open_drawn_datasets(tmp_path_factory.mktemp("drawn"))
    recipe = get_recipe("tiny")
    return TrainingSpec("", recipe, datasets, survey_datasets(datasets, recipe))


@pytest.fixture
def spec(new_spec: TrainingSpec, tmp_path: Path) -> TrainingSpec:
    """The specification of a training that came to step 5."""
    spec = dataclasses.replace(new_spec, output=str(tmp_path / "out"))
    assert prepare_output(spec, overwrite=False) is None
    state.save_state(spec.output, 5, {})
    return spec


def test_the_same_training_resumes_from_its_latest_state(spec: TrainingSpec) -> None:
    assert prepare_output(spec, overwrite=False) == state.LatestState(5, is_finished=False)


def test_a_training_begun_before_run_json_had_a_schema_version_resumes(spec: TrainingSpec) -> None:
    path = Path(spec.output) / "run.json"
    record = json.loads(path.read_text())
    del record["schema_version"]
    path.write_text(json.dumps(record))
    assert prepare_output(spec, overwrite=False) == state.LatestState(5, is_finished=False)


def test_a_training_with_other_settings_is_rejected_and_leaves_the_output(
    spec: TrainingSpec,
) -> None:
    other = dataclasses.replace(spec, seed=1)
    with pytest.raises(MismatchedOutput, match=r"seed: 0 there, 1 now.*--overwrite"):
        prepare_output(other, overwrite=False)
    assert prepare_output(spec, overwrite=False) == state.LatestState(5, is_finished=False)


def test_a_state_of_unknown_origin_is_rejected(spec: TrainingSpec) -> None:
    (Path(spec.output) / "run.json").unlink()
    with pytest.raises(MismatchedOutput, match=r"holds steps/latest\.json of an unknown run"):
        prepare_output(spec, overwrite=False)


def test_overwriting_removes_the_earlier_training(spec: TrainingSpec) -> None:
    other = dataclasses.replace(spec, seed=1)
    assert prepare_output(other, overwrite=True) is None
    assert not list((Path(spec.output) / "steps").iterdir())
    assert json.loads((Path(spec.output) / "run.json").read_text())["settings"]["seed"] == 1
