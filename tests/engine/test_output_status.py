"""The state of the outputs of training, analysis and export, without Ray."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.engine.export.run import ExportSettings, run_export
from pipeline.engine.output_status import read_output_status
from pipeline.run_record import RunRecord
from pipeline.runs.run_status import Rate
from pipeline.training import state
from pipeline.training.logs import TrainingRecord
from tests.outputs import make_object, write_annotations, write_detections
from tests.runs.reuse_outputs import write_images, write_output


def _write_training(folder: Path, step: int) -> str:
    record = RunRecord("train", {"recipe": {"epochs": 12.0}}, schema_version=0)
    record.write(str(folder))
    if step:
        state.set_latest_state(str(folder), step, is_finished=False, run=record.fingerprint)
        log = TrainingRecord(step, 1.5, {"total": 0.25}, 0.1, 1.0, 9.0, 9.0, 80, 2, 7.5, 0.1)
        (folder / "logs").mkdir()
        (folder / "logs" / "train.jsonl").write_text(json.dumps(log.as_json()) + "\n")
    return str(folder)


def test_a_training_that_has_not_begun_and_one_on_its_way(tmp_path: Path) -> None:
    status = read_output_status(_write_training(tmp_path / "a", 0))
    assert (status.job, status.state, status.committed) == ("train", "not begun", 0)
    status = read_output_status(_write_training(tmp_path / "b", 40))
    assert (status.state, status.unit, status.committed) == ("unfinished", "steps", 40)
    assert status.left is None
    assert status.rate == Rate(7.5, "images", "up to step 40, logs/train.jsonl")
    assert status.notes == ("epoch 1.50 of 12, loss 0.2500", "2 images could not be read")


def test_an_analysis_is_finished_with_its_metrics(tmp_path: Path) -> None:
    write_output(str(tmp_path / "out" / "matches"), write_images(tmp_path, ["a", "b"]))
    record = json.loads((tmp_path / "out" / "matches" / "run.json").read_text())
    analysis = RunRecord("analyze", record["settings"])
    analysis.write(str(tmp_path / "out" / "matches"))
    status = read_output_status(str(tmp_path / "out"))
    assert (status.job, status.output) == ("analyze", str(tmp_path / "out" / "matches"))
    assert status.state == "unfinished"  # the part is the other run's
    assert "another run" in next(iter(status.faults.values()))


def test_an_export_is_finished_with_its_files(tmp_path: Path) -> None:
    uri = write_annotations(
        str(tmp_path / "m.parquet"), {"a": [make_object("cat", (0, 0, 9, 9))], "b": []}, ("cat",)
    )
    output = write_detections(
        str(tmp_path / "d"), uri, {"a": [("cat", 0.9, (0, 0, 9, 9))], "b": []}, ("cat",)
    )
    target = tmp_path / "export"
    run_export(ExportSettings("coco"), uri, str(target), output)
    status = read_output_status(str(target))
    assert (status.job, status.state, status.committed, status.left) == ("export", "finished", 2, 0)
    (target / "summary.json").unlink()
    status = read_output_status(str(target))
    assert (status.state, status.total, status.committed) == ("unfinished", 2, 0)
