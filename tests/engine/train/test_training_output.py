"""The output of a training: a new one, one to resume, one to reject."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engine.train.training_output import make_run_record, prepare_output, report_stop
from pipeline.errors import MismatchedOutput
from pipeline.manifests import open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.resume import TakenOver
from pipeline.runs.run_plan import PlannedCluster, RunPlan
from pipeline.training import state
from pipeline.training.recipes import get_recipe
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from tests.training.training_dataset import open_drawn_datasets


def _prepare(spec: TrainingSpec, *, overwrite: bool = False) -> state.LatestState | None:
    return prepare_output(spec.output, make_run_record(spec), overwrite=overwrite)


@pytest.fixture(scope="module")
def new_spec(tmp_path_factory: pytest.TempPathFactory) -> TrainingSpec:
    datasets, _ = open_drawn_datasets(tmp_path_factory.mktemp("drawn"))
    recipe = get_recipe("tiny")
    return TrainingSpec("", recipe, datasets, survey_datasets(datasets, recipe))


@pytest.fixture
def spec(new_spec: TrainingSpec, tmp_path: Path) -> TrainingSpec:
    """The specification of a training that came to step 5."""
    spec = dataclasses.replace(new_spec, output=str(tmp_path / "out"))
    assert _prepare(spec) is None
    state.save_state(spec.output, 5, {})
    return spec


def test_the_same_training_resumes_from_its_latest_state(spec: TrainingSpec) -> None:
    assert _prepare(spec) == state.LatestState(5, is_finished=False)


def test_a_training_begun_before_run_json_had_a_schema_version_resumes(spec: TrainingSpec) -> None:
    path = Path(spec.output) / "run.json"
    record = json.loads(path.read_text())
    del record["schema_version"]
    path.write_text(json.dumps(record))
    assert _prepare(spec) == state.LatestState(5, is_finished=False)


def test_a_training_begins_where_its_plan_is_and_overwriting_removes_another(
    new_spec: TrainingSpec, tmp_path: Path
) -> None:
    spec = dataclasses.replace(new_spec, output=str(tmp_path / "out"))
    plan = tmp_path / "out" / "plan.json"
    RunPlan("train", make_run_record(spec).fingerprint, 1, 1, PlannedCluster(1, 2), 1).write(
        spec.output
    )
    assert _prepare(spec) is None
    assert _prepare(spec, overwrite=True) is None
    assert plan.is_file()
    assert _prepare(dataclasses.replace(spec, seed=1), overwrite=True) is None
    assert not plan.exists()


def test_a_training_with_other_settings_is_rejected_and_leaves_the_output(
    spec: TrainingSpec,
) -> None:
    other = dataclasses.replace(spec, seed=1)
    with pytest.raises(MismatchedOutput, match=r"seed: 0 there, 1 now.*--overwrite"):
        _prepare(other)
    assert _prepare(spec) == state.LatestState(5, is_finished=False)


def test_a_training_over_other_annotations_of_the_same_images_is_rejected(
    spec: TrainingSpec, tmp_path: Path
) -> None:
    """Corrected labels: the images, classes and proposals are the same."""
    folder = tmp_path / "corrected"
    datasets, _ = open_drawn_datasets(folder)
    manifest = open_manifest(datasets[0].manifest.uri)
    table = pq.read_table(manifest.uri)
    objects = table["objects"].to_pylist()
    objects[0][0]["x2"] += 1.0
    column = table.schema.get_field_index("objects")
    field = table.schema.field(column)
    moved = table.set_column(column, field, pa.array(objects, field.type))
    pq.write_table(moved, manifest.uri)
    corrected = [dataclasses.replace(datasets[0], manifest=open_manifest(manifest.uri))]
    survey = survey_datasets(corrected, spec.recipe)
    other = dataclasses.replace(spec, datasets=corrected, survey=survey)
    with pytest.raises(MismatchedOutput, match=r"annotations: .* there, .* now"):
        _prepare(other)
    same = survey_datasets(spec.datasets, spec.recipe)
    assert _prepare(dataclasses.replace(spec, survey=same)) is not None


def test_a_state_of_unknown_origin_is_rejected(spec: TrainingSpec) -> None:
    (Path(spec.output) / "run.json").unlink()
    with pytest.raises(
        MismatchedOutput, match=r"holds steps/latest\.json and 1 more file of an unknown run"
    ):
        _prepare(spec)


def test_overwriting_removes_the_earlier_training(spec: TrainingSpec) -> None:
    other = dataclasses.replace(spec, seed=1)
    assert _prepare(other, overwrite=True) is None
    assert not list((Path(spec.output) / "steps").iterdir())
    assert json.loads((Path(spec.output) / "run.json").read_text())["settings"]["seed"] == 1


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "best/model.json", "logs/train.jsonl", "steps/state-000000009.pt"],
)
def test_files_of_unknown_origin_are_neither_removed_nor_replaced(
    new_spec: TrainingSpec, tmp_path: Path, name: str
) -> None:
    """A user's own weights may have the name that the final network gets."""
    spec = dataclasses.replace(new_spec, output=str(tmp_path / "out"))
    path = Path(spec.output, name)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(MismatchedOutput, match=rf"holds {name} of an unknown run"):
        _prepare(spec)
    assert [p for p in Path(spec.output).rglob("*") if p.is_file()] == [path]
    assert _prepare(spec, overwrite=True) is None
    assert not path.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_files_in_the_folders_of_a_training_stay(
    new_spec: TrainingSpec, tmp_path: Path, overwrite: bool
) -> None:
    spec = dataclasses.replace(new_spec, output=str(tmp_path / "out"))
    names = ["logs/app.log", "best/plot.png", "steps/howto.md", "notes.txt"]
    for name in names:
        Path(spec.output, name).parent.mkdir(parents=True, exist_ok=True)
        Path(spec.output, name).write_bytes(b"mine")
    _prepare(spec, overwrite=overwrite)
    assert all(Path(spec.output, name).read_bytes() == b"mine" for name in names)


def test_a_state_that_another_training_put_late_is_left_out(spec: TrainingSpec) -> None:
    """The other checked that the output was its own, was overwritten, and then finished its put."""
    other = dataclasses.replace(spec, seed=1)
    assert _prepare(other, overwrite=True) is None
    state.save_state(spec.output, 700, {}, make_run_record(spec).fingerprint)
    assert _prepare(other) is None
    state.save_state(spec.output, 5, {}, make_run_record(other).fingerprint)
    assert _prepare(other) == state.LatestState(5, is_finished=False)


def test_a_training_whose_record_another_replaced_does_not_start(
    new_spec: TrainingSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataclasses.replace(new_spec, output=str(tmp_path / "out"))
    write = RunRecord.write

    def write_before_the_other(record: RunRecord, output: str) -> None:
        write(record, output)
        write(RunRecord("train", {"seed": 7}), output)

    monkeypatch.setattr(RunRecord, "write", write_before_the_other)
    with pytest.raises(TakenOver, match=r"run\.json is not of this run"):
        _prepare(spec)


@pytest.mark.parametrize(
    ("overwrite", "rerun"),
    [(False, "the same command"), (True, "the same command without --overwrite")],
)
def test_a_stopped_training_says_what_is_kept(
    spec: TrainingSpec, caplog: pytest.LogCaptureFixture, overwrite: bool, rerun: str
) -> None:
    record = make_run_record(spec)
    with pytest.raises(KeyboardInterrupt), report_stop(spec, record, overwrite=overwrite):
        raise KeyboardInterrupt
    (line,) = caplog.messages
    assert (
        line == f"stopped: step 5 of {spec.steps} is kept in {spec.output}; {rerun} goes on from it"
    )


def test_a_stopped_training_without_a_readable_state_says_so(
    spec: TrainingSpec, caplog: pytest.LogCaptureFixture
) -> None:
    (pointer,) = Path(spec.output, "steps").glob("*.json")
    pointer.write_text("{")
    with (
        pytest.raises(KeyboardInterrupt),
        report_stop(spec, make_run_record(spec), overwrite=False),
    ):
        raise KeyboardInterrupt
    assert caplog.messages[0].startswith("stopped: an unknown step of ")
