"""Submits a job with a package in its runtime environment, which Ray installs with pip on the node.

    nice .venv/bin/python -m tests.cluster.check_runtime_env

The job must run in the environment that Ray builds for it, with the node's packages and the new one. Prints
how long the environment took and how large it is: beside a system-wide Python, as in the images, it holds
only the new package; of a virtual environment, Ray first makes a full copy. It needs a package index and
minutes, so `make test` leaves it out.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from pipeline import shards
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.chaos.raylets import Raylets
from tests.cluster.submission import RayJobs
from tests.engine.drawn_images import draw_images

ROOT = Path(__file__).parents[2]
PACKAGE = "tabulate"
"""A small package that the project does not need."""
ENTRYPOINT = (
    f"import {PACKAGE}, os, sys; print('{PACKAGE} is in', {PACKAGE}.__file__, flush=True); "
    "os.execvp('python', ['python', *sys.argv[1:]])"
)


def main() -> None:
    """Submit `propose` and exit with 1 if it does not end well."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (
        tempfile.TemporaryDirectory() as folder,
        Raylets({"PATH": path}, head_cpus=1, dashboard=True) as cluster,
    ):
        manifest, boxes = f"{folder}/manifest.parquet", f"{folder}/boxes"
        paths = draw_images(Path(folder, "images"), 3)
        write_manifest(manifest, [ManifestRow(p.stem, str(p), 80, 60, None) for p in paths], None)
        words = ("python", "-c", ENTRYPOINT, "jobs/propose.py", "--manifest", manifest)
        jobs = RayJobs(cluster, ROOT, print)
        submission = jobs.submit(
            *(*words, "--output", boxes, "--strategy", "single"),
            options=("--runtime-env-json", f'{{"pip": ["{PACKAGE}"]}}'),
        )
        print(submission.text[-3000:])
        _print_size(cluster.folder)
        is_complete = submission.process.returncode == 0 and shards.open_parts(boxes).rows == 3
        if not is_complete or "/virtualenv/lib/" not in submission.text:
            sys.exit("the job did not end well, or not in the environment that Ray built for it")


def _print_size(session: Path) -> None:
    """Print what each environment took: its files, and the time from its folder to its new package."""
    for environment in session.glob("*/session_2*/runtime_resources/pip/*/virtualenv"):
        files = [path.lstat() for path in environment.rglob("*") if path.is_file()]
        (package,) = environment.glob(f"lib/python*/site-packages/{PACKAGE}")
        seconds = package.stat().st_mtime - (environment.parent / "exec_cwd").stat().st_mtime
        size = sum(file.st_size for file in files) / 1e6
        print(f"environment: {size:.0f} MB in {len(files)} files, built in {seconds:.0f} s")


if __name__ == "__main__":
    main()
