"""A training of R-CNN on Ray from its command to a report's numbers, and what its status says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.engine.output_status import read_output_status
from pipeline.training import training_files
from tests.jobs.command import read_error_output, run_job
from tests.training.training_dataset import write_dataset


@pytest.mark.usefixtures("ray_cluster")
def test_a_training_in_stages_resumes_detects_and_is_analysed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, proposals, _ = write_dataset(tmp_path / "data", images=5)
    output = str(tmp_path / "rcnn")
    command = (
        *("train", "--manifest", manifest, "--proposals", proposals, "--recipe", "tiny"),
        *("--system", "rcnn", "--window-size", "32", "--window-context", "2"),
        *("--fine-tune-steps", "4", "--windows-per-step", "16", "--max-proposals", "30"),
        *("--images-per-part", "2", "--output", output),
    )
    assert run_job(*command) == 0
    printed = capsys.readouterr().out
    assert "pass 1 of mining: " in printed
    assert "mAP on the training images: " in printed
    summary = json.loads((tmp_path / "rcnn" / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == [
        "fine-tune",
        "features",
        "svm",
        "boxes",
    ]
    parts = sorted((tmp_path / "rcnn" / "features").glob("part-*.parquet"))
    assert len(parts) == 3
    assert summary["counts"]["feature_bytes"] == sum(part.stat().st_size for part in parts)
    assert read_output_status(output).state == "finished"

    # Without its last two stages and one part, the same command does only these.
    for name in ("boxes", "svm", "features"):
        storage.remove(f"{output}/stages/{name}.json")
    parts[1].unlink()
    assert read_output_status(output).committed == 1
    kept = parts[0].stat().st_mtime_ns
    assert run_job(*command) == 0
    assert parts[1].exists()
    assert parts[0].stat().st_mtime_ns == kept
    capsys.readouterr()
    assert run_job(*command) == 0
    assert "training was finished already: 4 stages" in capsys.readouterr().out

    assert run_job(*command, "--seed", "1") == 2  # another training does not go on from it
    assert "other settings" in read_error_output(capsys)

    detections = str(tmp_path / "detections")
    detect = ("--manifest", manifest, "--proposals", proposals, "--checkpoint", output)
    assert run_job("detect", *detect, "--scales", "96", "--output", detections) == 2
    assert "leave out --scales" in read_error_output(capsys)
    assert run_job("detect", *detect, "--output", detections) == 0
    analysis = tmp_path / "analysis"
    scored = ("--detections", detections, "--manifest", manifest, "--output", str(analysis))
    assert run_job("analyze", "detections", *scored, "--resamples", "0") == 0
    assert (analysis / "report" / "index.html").exists()

    training_files.clear_training(output)  # what --overwrite removes
    assert training_files.list_training_files(output) == []
