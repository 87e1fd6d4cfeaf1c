"""The short form of the demo: a submitted job on s3:// is stopped, and resumed while a node is killed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import pytest

from pipeline import storage
from pipeline.manifest_writer import write_manifest
from pipeline.manifests import ManifestRow
from tests.chaos import outputs
from tests.chaos.processes import send_signal
from tests.cluster.demo.disturbances import (
    find_resumed_from,
    lose_node,
    stop_job,
    submit_without_waiting,
)
from tests.cluster.demo.local_cluster import LocalCluster
from tests.cluster.demo.outcome import Outcome, OutputCount, StoppedJob, count_rows
from tests.cluster.submission import RayJobs, select_line
from tests.engine.drawn_images import draw_images

ROOT = Path(__file__).parents[2]
VERSION = "0.0.submitted"
IMAGES, SHARD_SIZE = 100, 2


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project's code with another version than that of the nodes' Python."""
    for folder in ("pipeline", "jobs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / "clone" / folder, ignore=ignore)
    (tmp_path / "clone" / "pipeline" / "__init__.py").write_text(f'__version__ = "{VERSION}"\n')
    return tmp_path / "clone"


def _upload_images(folder: Path, uri: str) -> list[str]:
    """Put drawn images and their manifest into the store; returns the images' ids."""
    paths = draw_images(folder, IMAGES)
    store, _ = storage.get_filesystem(uri)
    store.put([str(path) for path in paths], [f"{uri}/images/{path.name}" for path in paths])
    rows = [ManifestRow(p.stem, f"{uri}/images/{p.name}", 80, 60, None) for p in paths]
    write_manifest(f"{uri}/manifest.parquet", rows, None)
    return [path.stem for path in paths]


def test_a_submitted_job_survives_a_stop_and_a_lost_node(
    s3_folder: str, clone: Path, tmp_path: Path
) -> None:
    ids = _upload_images(tmp_path / "images", s3_folder)
    output = f"{s3_folder}/proposals"
    arguments = f"--manifest {s3_folder}/manifest.parquet --output {output} --strategy single"
    words = f"python jobs/propose.py {arguments} --shard-size {SHARD_SIZE}".split()
    with LocalCluster() as cluster:
        nodes = [cluster.add_node() for _ in range(2)]
        jobs = RayJobs(cluster.raylets, clone)
        job_id = submit_without_waiting(jobs, output, *words, parts=2)
        # A job of small images could end before the signal arrives.
        frozen = [pid for node in nodes for pid in node.list_workers("")]
        send_signal(frozen, signal.SIGSTOP)
        stopped, _ = stop_job(jobs, output, job_id)
        send_signal(frozen, signal.SIGCONT)
        submission, committed = lose_node(jobs, cluster, output, *words, parts=5)
    assert submission.process.returncode == 0, submission.text
    assert f"{IMAGES} images in {IMAGES // SHARD_SIZE} shards, 0 failed" in submission.text
    stopped = dataclasses.replace(stopped, resumed_from=find_resumed_from(submission))
    outcome = Outcome(
        [count_rows(output, ids)],
        nodes_started=2,
        nodes_killed=1,
        parts=IMAGES // SHARD_SIZE,
        parts_at_kill=committed,
        stopped_job=stopped,
    )
    assert outcome.is_right, outcome
    record = json.loads(storage.read(f"{output}/run.json"))
    assert record["versions"]["fast-rcnn-pipeline"] == VERSION


def test_rows_are_counted_against_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"image_id": name, "status": "ok"} for name in "aabx"] + [
        {"image_id": "c", "status": "failed"}
    ]
    monkeypatch.setattr(outputs, "read_rows", lambda output: rows)
    counted = count_rows("s3://bucket/run", ["a", "b", "c", "d"])
    assert counted == OutputCount("s3://bucket/run", 4, 5, 4, lost=1, foreign=1, failed=1)


def test_any_image_that_is_not_there_once_is_wrong(tmp_path: Path) -> None:
    count = OutputCount("s3://bucket/run", 4, 4, 4, 0, 0, 0)
    stopped = StoppedJob(4, 1, 2, 1.0, 2)
    right = Outcome(
        [count], nodes_started=2, nodes_killed=1, parts=3, parts_at_kill=1, stopped_job=stopped
    )
    assert right.is_right
    for field in ("rows", "distinct_ids", "lost", "foreign", "failed"):
        wrong_count = dataclasses.replace(count, **{field: getattr(count, field) + 1})
        other = dataclasses.replace(right, outputs=[count, wrong_count])
        assert not other.is_right
    for wrong in ({"reported": 0}, {"stored": 0}, {"resumed_from": 1}, {"resumed_from": 4}):
        other = dataclasses.replace(right, stopped_job=dataclasses.replace(stopped, **wrong))
        assert not other.is_right
    assert not dataclasses.replace(right, nodes_killed=0).is_right
    assert dataclasses.replace(right, parts_at_kill=2).is_right
    for committed in (0, 3):  # the node was killed before the first part, or after the last one
        assert not dataclasses.replace(right, parts_at_kill=committed).is_right
    assert not dataclasses.replace(right, outputs=[]).is_right
    written = json.loads(
        dataclasses.replace(right, outputs=[count] * 2).write(tmp_path).read_text()
    )
    assert (written["images"], written["rows"], written["distinct_ids"]) == (8, 8, 8)
    assert (written["failed"], written["nodes_killed"], written["right"]) == (0, 1, True)


def test_only_the_jobs_own_lines_are_shown() -> None:
    ray = "2026-11-26 05:17:24,505\tSUCC cli.py:67 -- \x1b[32m"
    lines = [
        f"{ray}Job 'raysubmit_a' succeeded\x1b[39m\n",
        f"{ray}------\x1b[39m\n",
        "2026-11-26 05:16:33,860\tINFO packaging.py:385 -- Ignoring upload\n",
        "Running entrypoint for job raysubmit_a: python jobs/propose.py\n",
        "\n",
        "05:16:52 propose: 48 of 200 images are done already\n",
    ]
    shown = ["Job 'raysubmit_a' succeeded", "05:16:52 propose: 48 of 200 images are done already"]
    assert [line for line in map(select_line, lines) if line is not None] == shown
