"""Where detectors and training workers go on a cluster with GPUs, and what the loss of detectors costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.training import logs
from pipeline.training.annotated_dataset import open_annotated_datasets, open_annotated_manifests
from pipeline.training.specification import TrainingSpec
from pipeline.training.survey import survey_datasets
from pipeline.training.trainer import Trainer
from tests.engine.fake_gpus import IMAGES, QUICK

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a detection run and a training on a Ray of its own with two GPUs."""
    folder = tmp_path_factory.mktemp("gpus")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.engine.fake_gpus", str(folder)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


def _read(folder: Path, part: str) -> Any:
    return json.loads((folder / "result.json").read_text())[part]


def test_detectors_of_half_a_gpu_share_gpus(folder: Path) -> None:
    detection = _read(folder, "detection")
    first = detection["detectors"][:3]
    by_gpu = Counter(gpu for record in first for gpu in record["gpus"])
    assert sorted(by_gpu.values()) == [1, 2]
    for record in first:  # a process sees its GPU alone, as cuda:0
        assert record["visible"] == record["gpus"][0]
    assert detection["summary"]["images"] == IMAGES


def test_a_lost_detector_is_replaced_on_its_gpu_and_no_image_is_lost(folder: Path) -> None:
    detection = _read(folder, "detection")
    assert detection["statuses"] == ["ok"] * IMAGES
    (lost,) = (r for r in detection["detectors"] if r["pid"] in detection["killed"])
    (replacement,) = detection["detectors"][3:]
    assert replacement["gpus"] == lost["gpus"]


def test_training_takes_a_worker_per_gpu(folder: Path, tmp_path: Path) -> None:
    training = _read(folder, "training")
    assert sorted(record["gpus"] for record in training["workers"]) == [["0"], ["1"]]
    # Ray Train shows each worker all GPUs of its node, so that NCCL can connect them.
    assert {record["visible"] for record in training["workers"]} == {"0,1"}
    manifest, proposals = (
        str(folder / "drawn" / name) for name in ("manifest.parquet", "proposals")
    )
    datasets = open_annotated_datasets(open_annotated_manifests([manifest]), [proposals])
    spec = TrainingSpec(
        str(tmp_path),
        QUICK,
        datasets,
        survey_datasets(datasets, QUICK),
        checkpoint_every=3,
        log_every=2,
    )
    Trainer(spec).train()
    alone = [record.loss for record in logs.read_log(str(tmp_path))]
    np.testing.assert_allclose(training["losses"], alone, rtol=1e-3)
