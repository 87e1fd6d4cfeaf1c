"""What the logs of a run keep of workers that raise or die, and of the nodes that did the work."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipeline import log_files, storage
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.shards.node_images import count_on_node
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.retry_policy import RetryPolicy
from pipeline.engine.shards.runner import ShardRunner
from pipeline.engine.shards.single_task_work import SingleTaskWork
from pipeline.engine.shards.work import Flight
from pipeline.errors import StorageError
from pipeline.runs.backoff import Backoff
from pipeline.runs.report import Report
from pipeline.runs.run_logs import RunLogs
from pipeline.shards import Shard, put_part

SECRET = "hunter2-hunter2"
RAISES, DIES, STORE_FAILS = 1, 3, 0
"""Numbers of images: one whose code raises, one that ends its worker once, one whose store fails once."""


@ray.remote(num_cpus=1, max_retries=0)
def _count_images(folder: str, piece: Piece) -> Report:
    rows = range(piece.shard.rows) if piece.row is None else [piece.row]
    numbers = [piece.shard.first_row + row for row in rows]
    if STORE_FAILS in numbers and _is_first(folder, STORE_FAILS):
        raise StorageError("s3://user:secret-word@host/a: SlowDown")
    if RAISES in numbers:
        _raise_with_secret()
    if DIES in numbers and _is_first(folder, DIES):
        os._exit(1)
    report = Report(images=len(numbers), table=pa.table({"number": numbers}))
    count_on_node(report, "count", len(numbers))
    if piece.is_whole:
        put_part(folder, piece.shard, report.table)
    return report


def _is_first(folder: str, number: int) -> bool:
    marker = Path(folder) / f"tried-{number}"
    is_first = not marker.exists()
    marker.touch()
    return is_first


def _raise_with_secret() -> None:
    raise ValueError(f"no box fits {SECRET}\nsecond line")


def _run(folder: str, logs: RunLogs) -> Report:
    # A shard is isolated only if others that start after its first error succeed.
    planned = [Shard(i, f"{i:024x}", 2 * i, 2) for i in range(10)]

    def start_task(flight: Flight) -> Any:
        return _count_images.remote(folder, flight.piece)

    work = SingleTaskWork(
        "count", "counting", start_task, lambda piece, _: pa.table({"number": [piece.row]})
    )
    policy = RetryPolicy(Backoff(first=0.01, longest=0.02))
    with RunProgress("count", 20, 0, logs=logs) as progress:
        runner = ShardRunner(work, folder, planned, progress, policy=policy, logs=logs)
        return runner.run()


def _read(folder: Path, kind: str) -> list[dict[str, Any]]:
    (name,) = (n for n in log_files.list_log_files(str(folder)) if n.startswith(kind))
    text = storage.read(f"{folder}/logs/{name}").decode()
    assert SECRET not in text
    assert "secret-word" not in text
    return [json.loads(line) for line in text.splitlines()]


def test_tracebacks_losses_and_nodes_are_in_the_logs(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANTED_PASSWORD", SECRET)
    with RunLogs(str(tmp_path)) as logs:
        report = _run(str(tmp_path), logs)
    assert (report.images, sum(report.failed.values())) == (20, 1)
    errors = _read(tmp_path, "errors")

    of_store = [error for error in errors if error["error"].startswith("StorageError")]
    assert [error["consequence"] for error in of_store] == ["retried"]
    assert "SlowDown" in of_store[0]["traceback"]

    raised = [error for error in errors if error["error"].startswith("ValueError")]
    assert raised[0]["error"] == "ValueError: no box fits ***"
    assert (raised[0]["shard"], raised[0]["rows"], raised[0]["stage"]) == (0, 2, "count")
    assert "_raise_with_secret" in raised[0]["traceback"]
    assert "its images are done one by one" in {error["consequence"] for error in raised}
    assert (raised[-1]["consequence"], raised[-1]["first_row"], raised[-1]["rows"]) == (
        "the image is failed",
        RAISES,
        1,
    )
    assert all("traceback_of_line" in error for error in raised[1:])

    (died,) = (error for error in errors if error["cause"] == "worker_ended")
    assert (died["shard"], died["rows"], died["consequence"]) == (1, 2, "retried")
    assert "died" in died["traceback"]

    last = _read(tmp_path, "progress")[-1]
    (node,) = last["nodes"]
    assert last["nodes"][node]["cpus"] == 2
    assert last["images_by_node"] == {"count": {node: 19}}
    assert (last["images"], last["failed"], last["left"]) == (20, 1, 0)
