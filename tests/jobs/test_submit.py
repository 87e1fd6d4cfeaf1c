"""`ray job submit --working-dir` runs the submitted code on a head with token authentication."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from pipeline import shards
from pipeline.manifests import ManifestRow, write_manifest
from tests.chaos.raylets import Raylets
from tests.engine.drawn_images import draw_images

ROOT = Path(__file__).parents[2]
VERSION = "0.0.submitted"


def test_a_submitted_job_runs_the_submitted_code(tmp_path: Path) -> None:
    paths = draw_images(tmp_path / "images", 4)
    manifest = str(tmp_path / "manifest.parquet")
    write_manifest(manifest, [ManifestRow(p.stem, str(p), 80, 60, None) for p in paths], None)
    clone = tmp_path / "clone"
    for folder in ("pipeline", "jobs"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (clone / "pipeline" / "__init__.py").write_text(f'__version__ = "{VERSION}"\n')
    with Raylets(head_cpus=1, dashboard=True) as cluster:
        submit = [
            *(sys.executable, "-m", "ray.scripts.scripts", "job", "submit"),
            *("--address", f"http://127.0.0.1:{cluster.dashboard_port}"),
            *("--working-dir", str(clone), "--", sys.executable, "jobs/propose.py"),
            *("--manifest", manifest, "--output", str(tmp_path / "boxes"), "--strategy", "single"),
        ]
        deadline = time.monotonic() + 120
        while True:  # the dashboard starts before the agent that starts jobs
            process = subprocess.run(
                submit,
                env=os.environ | cluster.environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=400,
            )
            if "No available agent" not in process.stderr or time.monotonic() > deadline:
                break
    assert process.returncode == 0, process.stdout + process.stderr
    assert "4 images in 1 shards, 0 failed" in process.stdout
    record = json.loads((tmp_path / "boxes" / "run.json").read_text())
    assert record["versions"]["fast-rcnn-pipeline"] == VERSION
    assert shards.open_parts(str(tmp_path / "boxes")).rows == 4
