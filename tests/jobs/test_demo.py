"""The demo on a few images: every stage through Ray, and every file that it promises."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest

from jobs import demo
from pipeline import imaging

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_the_demo_writes_every_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "demo"
    demo.main(demo.Demo(output=str(output), train_images=16, test_images=6))
    for path in (
        "manifests/train.parquet",
        "manifests/test.parquet",
        "proposals/train/shards.parquet",
        "proposals/test/shards.parquet",
        "checkpoint/model.safetensors",
        "checkpoint/model.json",
        "detections/test/shards.parquet",
    ):
        assert (output / path).exists(), path
    metrics = json.loads((output / "metrics.json").read_text())
    expected = {"voc07_map50", "voc_map50", "coco_ap", "images", "failed", "detections"}
    assert expected <= metrics.keys()
    assert (metrics["images"], metrics["failed"]) == (6, 0)
    sheet = imaging.decode_image((output / demo.SHEET_NAME).read_bytes())
    assert sheet.shape[1] > 600
    assert sheet.std() > 10

    printed = capsys.readouterr().out
    for stage in ("prepare", "propose", "train", "detect", "analyze"):
        assert f"python jobs/{stage}.py" in printed
    query = printed[printed.index("SELECT") : printed.index("DESC") + 4]
    rows = duckdb.sql(query).fetchall()
    assert all(len(row) == 3 for row in rows)
