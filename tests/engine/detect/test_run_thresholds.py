"""`--rule paper` over a run: thresholds that depend on all images, also on those that are retried."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import shards
from pipeline.candidate_thresholds import THRESHOLDS_NAME
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.engine.detect.resources import ActorOptions
from pipeline.engine.detect.run import run_detection
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from tests.engine.drawn_images import draw_images, write_damaged_manifest, write_random_checkpoint

pytestmark = pytest.mark.usefixtures("ray_cluster")

CAP, MEAN = 6, 2
SETTINGS = DetectionSettings(
    PostprocessingSettings(rule="paper", max_per_image=CAP, mean_per_image=MEAN), "fp32"
)


def _detect(folder: Path, **options: bool) -> None:
    run_detection(
        str(folder / "manifest.parquet"),
        str(folder / "checkpoint"),
        str(folder / "output"),
        proposals=ProposalSettings(strategy="single", max_boxes=50, min_side=8),
        settings=SETTINGS,
        actors=ActorOptions(1),
        options=RunOptions(shard_size=4, max_failed_fraction=1, **options),
    )


def _check_thresholds(output: Path, images: int) -> bytes:
    """Compare the thresholds and what readers get with the candidates of all parts, sorted at once."""
    opened = shards.open_parts(str(output))
    rows = [
        row
        for table in shards.Parts(opened.uri, opened.shards, opened.fingerprint).read_tables()
        for row in table.to_pylist()
    ]
    per_class = [
        np.reshape(row["candidate_scores"], (2, CAP)) for row in rows if row["status"] == "ok"
    ]
    assert len(per_class) == images
    expected = -np.sort(-np.stack(per_class, axis=1).reshape(2, -1))[:, MEAN * images - 1]
    stored = (output / THRESHOLDS_NAME).read_bytes()
    limits = json.loads(stored)["thresholds"]
    assert limits == dict(zip(("cat", "dog"), expected.tolist(), strict=True))
    read = [row["detections"] for table in opened.read_tables() for row in table.to_pylist()]
    above = [
        row["detections"] and [d for d in row["detections"] if d["score"] > limits[d["label"]]]
        for row in rows
    ]
    assert read == above != [row["detections"] for row in rows]
    return stored


def test_thresholds_follow_all_images_of_the_output(tmp_path: Path) -> None:
    write_damaged_manifest(tmp_path, 6)
    write_random_checkpoint(tmp_path)
    _detect(tmp_path)
    before = _check_thresholds(tmp_path / "output", images=3)
    draw_images(tmp_path / "images", 6)  # repairs the damaged images
    _detect(tmp_path, retry_failed=True)
    assert _check_thresholds(tmp_path / "output", images=6) != before
