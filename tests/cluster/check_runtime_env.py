"""Submits a job with a package in its runtime environment, which Ray installs with pip on the node.

    nice .venv/bin/python -m tests.cluster.check_runtime_env

The jobs must run in the virtual environment that Ray builds for them, which sees the node's packages through
its own. It needs a package index and takes a minute, so `make test` leaves it out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline import shards
from pipeline.manifests import ManifestRow, write_manifest
from tests.chaos.raylets import Raylets
from tests.engine.drawn_images import draw_images

ROOT = Path(__file__).parents[2]
PACKAGE = "tabulate"
"""A small package that the project does not need."""
ENTRYPOINT = (
    f"import {PACKAGE}, runpy, sys; sys.argv.pop(0); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


def main() -> None:
    """Submit `propose` and exit with 1 if it does not end well."""
    with tempfile.TemporaryDirectory() as folder:
        manifest, boxes = f"{folder}/manifest.parquet", f"{folder}/boxes"
        paths = draw_images(Path(folder, "images"), 3)
        write_manifest(manifest, [ManifestRow(p.stem, str(p), 80, 60, None) for p in paths], None)
        job = ("-c", ENTRYPOINT, "jobs/propose.py", "--manifest", manifest, "--output", boxes)
        with Raylets(head_cpus=1, dashboard=True) as cluster:
            address = f"http://127.0.0.1:{cluster.dashboard_port}"
            submit = [
                *(
                    sys.executable,
                    "-m",
                    "ray.scripts.scripts",
                    "job",
                    "submit",
                    "--address",
                    address,
                ),
                *("--working-dir", str(ROOT), "--runtime-env-json", f'{{"pip": ["{PACKAGE}"]}}'),
                *("--", "python", *job, "--strategy", "single"),
            ]
            ended = _submit(submit, os.environ | cluster.environment)
        print(ended.stdout[-3000:], ended.stderr[-3000:])
        if ended.returncode or shards.open_parts(boxes).rows != len(paths):
            sys.exit("the job did not end well")


def _submit(
    command: list[str], environment: dict[str, str], seconds: float = 180
) -> subprocess.CompletedProcess[str]:
    """Submit until the dashboard's agent, which starts jobs, is there."""
    deadline = time.monotonic() + seconds
    while True:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=900
        )
        if "No available agent" not in ended.stderr or time.monotonic() > deadline:
            return ended


if __name__ == "__main__":
    main()
