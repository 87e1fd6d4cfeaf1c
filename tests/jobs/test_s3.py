"""The jobs with every path on an object store: dataset, checkpoint, parts and metrics."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline import shards, storage
from pipeline.manifests import open_manifest
from pipeline.sources.drawn_dataset import CLASSES, draw_dataset
from tests.engine.drawn_images import write_random_checkpoint
from tests.jobs.command import run_job

pytestmark = pytest.mark.usefixtures("ray_cluster")


def upload(folder: Path, uri: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            storage.put(f"{uri}/{path.relative_to(folder)}", path.read_bytes())


def list_put_times(uri: str) -> dict[str, Any]:
    """When each object of a folder was put."""
    store, path = storage.get_filesystem(uri)
    store.invalidate_cache()
    return {
        entry["name"]: entry["LastModified"]
        for entry in store.ls(path, detail=True)
        if "LastModified" in entry
    }


def test_every_job_reads_from_and_writes_to_an_object_store(
    s3_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_dataset(tmp_path / "data", 1, 6, 0)
    upload(tmp_path / "data", f"{s3_folder}/data")
    upload(Path(write_random_checkpoint(tmp_path, CLASSES)), f"{s3_folder}/checkpoint")
    manifest = f"{s3_folder}/test.parquet"
    prepare_voc = ("voc", "--root", f"{s3_folder}/data", "--split", "test", "--output", manifest)
    assert run_job("prepare", *prepare_voc) == 0
    opened = open_manifest(manifest)
    assert opened.rows == 6

    proposals, detections = f"{s3_folder}/proposals", f"{s3_folder}/detections"
    propose = ("--manifest", manifest, "--output", proposals, "--strategy", "single")
    propose += ("--shard-size", "4")
    assert run_job("propose", *propose) == 0
    detect = (
        "--manifest",
        manifest,
        "--proposals",
        proposals,
        "--output",
        detections,
        "--actors",
        "1",
    )
    detect += ("--checkpoint", f"{s3_folder}/checkpoint")
    assert run_job("detect", *detect) == 0
    rows = [
        row for table in shards.open_parts(detections).read_tables() for row in table.to_pylist()
    ]
    ids = opened.read(0, 6, ["image_id"])["image_id"].to_pylist()
    assert [(row["image_id"], row["status"]) for row in rows] == [(name, "ok") for name in ids]
    assert all(row["num_proposals"] for row in rows)

    before = list_put_times(proposals) | list_put_times(detections)
    capsys.readouterr()
    assert run_job("propose", *propose) == run_job("detect", *detect) == 0
    assert capsys.readouterr().out.count("6 were done before") == 2
    after = list_put_times(proposals) | list_put_times(detections)
    parts = [name for name in before if "/part-" in name]
    assert len(parts) == 4
    assert [after[name] for name in parts] == [before[name] for name in parts]
    assert after.keys() == before.keys()

    for kind, output in (("proposals", proposals), ("detections", detections)):
        scored = f"{s3_folder}/{kind}-scored"
        arguments = (f"--{kind}", output, "--manifest", manifest, "--output", scored)
        assert run_job("analyze", kind, *arguments) == 0
        metrics = json.loads(storage.read(f"{scored}/metrics.json"))
        assert metrics["images"] == 6
    assert storage.exists(f"{s3_folder}/proposals-scored/recall.png")


def test_the_next_command_prints_the_detections_of_a_folder_of_images(
    s3_folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_dataset(tmp_path / "data", 1, 2, 0)
    upload(tmp_path / "data" / "JPEGImages", f"{s3_folder}/images")
    arguments = ("--images", f"{s3_folder}/images", "--output", f"{s3_folder}/out")
    assert run_job("prepare", "folder", *arguments) == 0
    manifest = open_manifest(f"{s3_folder}/out")
    uris = manifest.read(0, 3, ["uri"])["uri"].to_pylist()
    assert len(uris) == 3
    assert all(uri.startswith(f"{s3_folder}/images/") for uri in uris)
    assert fsspec.filesystem("s3").exists(uris[0])

    detect = ("--manifest", f"{s3_folder}/out", "--checkpoint", write_random_checkpoint(tmp_path))
    detect += ("--output", f"{s3_folder}/detections", "--strategy", "single", "--actors", "1")
    capsys.readouterr()
    assert run_job("detect", *detect) == 0
    program, *arguments = shlex.split(capsys.readouterr().out.splitlines()[-1].split("next: ")[1])
    assert program == "python"
    process = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert process.returncode == 0, process.stderr
    for uri in uris:
        assert uri.rpartition("/")[2] in process.stdout
