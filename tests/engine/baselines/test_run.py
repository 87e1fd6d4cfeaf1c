"""The smallest form of the paper's command, on Ray; how its R-CNN resumes, and what its status says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch

from pipeline import storage
from pipeline.detector.architecture import Architecture
from pipeline.detector.network import build_network
from pipeline.engine import cluster
from pipeline.engine.output_status import read_output_status
from pipeline.training import training_files
from tests.benchmarks import paper, paper_systems
from tests.benchmarks.paper_rows import DETECTION, DETECTION_CPU, STORED, TRAINING, TRAINING_CPU
from tests.benchmarks.paper_seconds import measure_detection
from tests.jobs.command import read_error_output, run_job


def write_trunk(path: Path) -> None:
    """Random weights in the place of pretrained ones."""
    network = build_network(Architecture(("any",), "tiny", fc_widths=(32, 32)))
    state = network.backbone.state_dict()
    trunk = {name: t.contiguous() for name, t in state.items() if not name.startswith("fc.")}
    safetensors.torch.save_file(trunk, path)


@pytest.mark.usefixtures("ray_cluster")
def test_three_systems_are_trained_and_compared_and_r_cnn_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "trunk.safetensors"
    write_trunk(weights)
    words = "--quick --images 6 --epochs 1 --fine-tune-steps 4 --max-proposals 40 --only quality"
    folder = tmp_path / "paper"
    options = ("--own-recipe", "--weights", str(weights), "--output", str(folder))
    paper.run(paper.parse_options([*words.split(), *options]))
    printed = capsys.readouterr().out
    assert "pass 1 of mining: " in printed
    assert "mAP on the training images: " in printed
    written = json.loads((folder / "paper.json").read_text())
    assert all(0 <= written["systems"][name]["map"] <= 1 for name in ("rcnn", "sppnet"))
    assert [row["name"] for row in written["tables"]["quality"]] == [
        *("Fast R-CNN", "R-CNN", "SPPnet")
    ]
    finished = len((folder / "steps.jsonl").read_text().splitlines())
    paper.run(paper.parse_options([*words.split(), *options]))
    assert len((folder / "steps.jsonl").read_text().splitlines()) == finished  # nothing ran again

    output = folder / "trained" / "rcnn"
    check_figures(folder)
    summary = read_summary(output)
    stages = ["fine-tune", "features", "svm", "boxes"]
    assert [stage["name"] for stage in summary["stages"]] == stages
    assert sorted(summary["cpu_seconds"]) == sorted(stages)
    (part,) = sorted((output / "features").glob("part-*.parquet"))
    assert summary["counts"]["feature_bytes"] == part.stat().st_size
    mined = summary["stages"][2]["passes"][1]["new_negatives"]
    assert sum(mined) > 0
    assert read_output_status(str(output)).state == "finished"

    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    _, *command = next(line["command"] for line in lines if "rcnn" in line["command"])
    check_resume(output, part, command)
    check_rejections(tmp_path, output, command, capsys)
    check_that_a_missing_gpu_harms_nothing(output, command, capsys)
    training_files.clear_training(str(output))  # what --overwrite removes
    assert training_files.list_training_files(str(output)) == []


def read_summary(output: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return summary


def check_figures(folder: Path) -> None:
    """The table of speed finds its figures in what the jobs wrote."""
    for system, name, stages in (
        ("rcnn", "rcnn", 4),
        ("sppnet", "sppnet", 5),
        ("joint", "fast_rcnn", 1),
    ):
        training = paper_systems._measure_training(str(folder / "trained" / system))
        assert training[TRAINING] > 0
        assert training[TRAINING_CPU] > 0
        assert training["stages"] == stages
        assert (training[STORED] > 0) == (stages > 1)
        detection = measure_detection(str(folder / "detected" / name))
        assert detection[DETECTION] > 0
        assert detection[DETECTION_CPU] > 0


def check_that_a_missing_gpu_harms_nothing(
    output: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no node can join, the training that --overwrite would remove is still there."""
    before = (output / "summary.json").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "is_local", lambda: True)
        assert run_job("train", *command, "--gpu", "True", "--overwrite") == 1
    assert "this machine lacks GPU 1" in read_error_output(capsys)
    assert (output / "summary.json").read_bytes() == before


def write_totals(output: Path) -> None:
    """What killed starts left of the sums of two stages."""
    features = {"seconds": 1000.0, "cpu_seconds": 500.0, "windows": 70, "bytes_read": 5}
    for name, sums in (
        ("features-driver", features),
        ("svm-driver", {"seconds": 2000.0}),
        ("svm-worker", {"cpu_seconds": 900.0}),
    ):
        (output / "stages" / f"{name}.json").write_text(json.dumps(sums))


def check_resume(output: Path, part: Path, command: list[str]) -> None:
    """Without its last stages and its part of features, the same command does only these.

    Times and counts of earlier starts are in the sums.
    """
    before = {stage["name"]: stage for stage in read_summary(output)["stages"]}
    for name in ("features", "svm", "boxes"):
        storage.remove(f"{output}/stages/{name}.json")
    part.unlink()
    assert read_output_status(str(output)).committed == 1
    write_totals(output)  # of starts that were killed in these stages
    fine_tuned = (output / "stages" / "fine-tune.json").stat().st_mtime_ns
    assert run_job("train", *command) == 0
    assert part.exists()
    assert (output / "stages" / "fine-tune.json").stat().st_mtime_ns == fine_tuned
    after = {stage["name"]: stage for stage in read_summary(output)["stages"]}
    features = after["features"]
    assert features["windows"] == before["features"]["windows"] + 70
    assert features["bytes_read"] == before["features"]["bytes_read"] + 5
    assert 1000 < features["seconds"] < 1300
    assert 500 < features["cpu_seconds"] < 700
    assert 2000 < after["svm"]["seconds"] < 2300
    assert 900 < after["svm"]["cpu_seconds"] < 1100
    assert after["boxes"]["seconds"] < 300
    assert not list((output / "stages").glob("*-driver.json"))
    assert not list((output / "stages").glob("*-worker.json"))


def check_rejections(
    folder: Path, output: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Another training does not go on from it, and R-CNN has no scales."""
    pq.write_table(pa.table({"image_id": ["drawn_00000"]}), folder / "exclude.parquet")
    for change in (("--seed", "1"), ("--exclude", str(folder / "exclude.parquet"))):
        capsys.readouterr()
        assert run_job("train", *command, *change) == 2
        assert "other settings" in read_error_output(capsys)
    (test_manifest,) = (folder / "paper" / "data").glob("drawn-*/test.parquet")
    data = ("--manifest", str(test_manifest))
    scales = ("--checkpoint", str(output), "--output", str(folder / "detections"), "--scales", "96")
    assert run_job("detect", *data, *scales) == 2
    assert "leave out --scales" in read_error_output(capsys)
    detections = str(folder / "paper" / "detected" / "rcnn")
    scored = ("--detections", detections, *data, "--output", str(folder / "analysis"))
    assert run_job("analyze", "detections", *scored, "--resamples", "0") == 0
    assert (folder / "analysis" / "report" / "index.html").exists()
