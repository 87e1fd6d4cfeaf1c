"""`detect` killed with SIGKILL half way and run again: every image once, no shard done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import shards
from pipeline.manifests import ManifestRow, write_manifest
from tests.engine.drawn_images import draw_images, write_random_checkpoint

ROOT = Path(__file__).parents[2]
IMAGES = 160


def _parts(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    paths = draw_images(tmp_path / "images", IMAGES)
    manifest = str(tmp_path / "manifest.parquet")
    write_manifest(manifest, [ManifestRow(p.stem, str(p), 80, 60, None) for p in paths], None)
    options = {
        "manifest": manifest,
        "checkpoint": write_random_checkpoint(tmp_path),
        "output": str(tmp_path / "detections"),
        "strategy": "single",
        "shard-size": "2",
        "actors": "1",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, str(ROOT / "jobs" / "detect.py"), *arguments]


def test_a_rerun_after_sigkill_does_the_rest(command: list[str], tmp_path: Path) -> None:
    output = tmp_path / "detections"
    first = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(_parts(output)) < 10 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    time.sleep(3)  # what was in flight may still be written
    before = _parts(output)
    assert 10 <= len(before) < IMAGES // 2, first.stderr and first.stderr.read()

    rerun = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True
    )
    assert f"{2 * len(before)} were done before" in rerun.stdout
    after = _parts(output)
    assert {name: after[name] for name in before} == before
    rows = [
        i for t in shards.open_parts(str(output)).read_tables() for i in t["image_id"].to_pylist()
    ]
    assert rows == [f"{index:03d}" for index in range(IMAGES)]
