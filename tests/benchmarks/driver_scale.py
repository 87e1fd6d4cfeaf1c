"""What the driver itself costs on a large dataset: memory, time per shard, resuming.

python -m tests.benchmarks.driver_scale --images 1000000 --json result.json

A synthetic manifest of many Parquet files is opened, cut and run through by the real shard runner with
the real work of each job, whose tasks and actors do nothing. Then an output in which every shard is
committed already is opened again and closed. Each measurement is a driver process of its own.

`loop` starts no task at all: each piece's result is there already, so that what is left is the driver's
own loop. `propose` starts one task per shard; `detect` a reading task and a call of an actor. Wall time
of these two is mostly Ray's and the workers', who share the cores with the driver; CPU time is that of
the driver's process with all its threads.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from pipeline import schema, shards, storage
from pipeline.detector.keep import Keep
from pipeline.detector.pyramid import Pyramid
from pipeline.engine import cluster
from pipeline.engine.detect import pool as detector_pool
from pipeline.engine.detect import work as detection_work
from pipeline.engine.detect.actor import DetectionPlan
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.detect.work import DetectionWork
from pipeline.engine.monitor.metrics import RunMetrics
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.monitor.stages import FlowState, StageLoad
from pipeline.engine.propose import run as proposal_run
from pipeline.engine.propose.run import ProposalPlan, ProposalWork
from pipeline.engine.shards.piece import Piece
from pipeline.engine.shards.runner import ShardRunner
from pipeline.engine.shards.work import Flight, ShardWork
from pipeline.manifests import ROW_GROUP, Manifest, open_manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.run_record import RunRecord
from pipeline.runs import output
from pipeline.runs.options import RunOptions
from pipeline.runs.report import Failure, Report
from pipeline.runs.summary import summarise

FILES = 16
SETTLING = 0.1
"""Share of the shards at the start that is left out: workers are being started."""


def main() -> None:
    """Write the inputs, measure in processes of their own, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--committed", type=int, default=100_000, help="shards to resume from")
    parser.add_argument("--only", choices=["loop", "propose", "detect", "resume"])
    parser.add_argument("--json")
    parser.add_argument("--drive", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        kind, folder = options.drive
        measured = _resume(folder) if kind == "resume" else _drive(kind, folder, options.shard_size)
        print(json.dumps(measured))
        return
    result: dict[str, Any] = {"images": options.images, "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(prefix="driver-scale-") as folder:
        write_manifest_files(Path(folder) / "manifest", options.images)
        for kind in [options.only] if options.only else ["loop", "propose", "detect", "resume"]:
            if kind == "resume":
                write_committed(folder, options.committed)
            result[kind] = _measured(kind, folder, options.shard_size)
            print(_told(kind, result[kind]), flush=True)
    if options.json:
        storage.put(storage.absolute(options.json), json.dumps(result, indent=2).encode())


def _measured(kind: str, folder: str, shard_size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.driver_scale", "--drive", kind, folder]
    command += ["--shard-size", str(shard_size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _told(kind: str, found: dict[str, Any]) -> str:
    if kind == "resume":
        return (
            f"resume   {found['shards']} committed shards: {found['open_seconds']:.1f} s to open manifest "
            f"and output, {found['close_seconds']:.1f} s to count failures and close, "
            f"{found['cpu_seconds']:.1f} s of CPU; peak {found['peak_mb']:.0f} MB"
        )
    cpu, wall = found["cpu_ms"], found["wall_ms"]
    return (
        f"{kind:8} {found['shards']} shards, cut in {found['cut_seconds']:.1f} s; per shard "
        f"{cpu['mean']:.2f} ms driver CPU (first tenth {cpu['first']:.2f}, last {cpu['last']:.2f}), "
        f"{wall['mean']:.2f} ms wall ({wall['first']:.2f}, {wall['last']:.2f}); "
        f"peak {found['peak_mb']:.0f} MB"
    )


def write_manifest_files(folder: Path, images: int, files: int = FILES) -> None:
    """A manifest of so many images, of which none exists, in several Parquet files."""
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(images), files)):
        table = pa.table(
            {
                "image_id": [f"{index:09d}" for index in part],
                "uri": [
                    f"s3://bucket/images/{index // 1000:06d}/{index:09d}.jpg" for index in part
                ],
                "width": pa.array(np.full(len(part), 500), pa.int32()),
                "height": pa.array(np.full(len(part), 375), pa.int32()),
                "objects": pa.nulls(len(part), schema.MANIFEST.field("objects").type),
            },
            schema=schema.MANIFEST,
        )
        pq.write_table(table, folder / f"{number:03d}.parquet", row_group_size=ROW_GROUP)


def write_committed(folder: str, count: int) -> None:
    """An output of proposals in which all of `count` shards are committed, by small valid parts."""
    target = storage.join(folder, "committed")
    manifest = open_manifest(storage.join(folder, "manifest"))
    cut = shards.cut(manifest, -(-manifest.rows // count))
    record = _record(cut)
    planned = cut.shards(record.fingerprint)
    record.write(target)
    shards.write_table(target, planned)
    for shard in planned:
        data = _part(shard.rows, failed=shard.ordinal % 100 == 0)
        (Path(target) / shard.part_name).write_bytes(data)


@functools.cache
def _part(rows: int, *, failed: bool) -> bytes:
    return shards.part_bytes(_rows_of(rows, failed=failed))


def _rows_of(rows: int, *, failed: bool) -> pa.Table:
    status = ["failed" if failed and row == 0 else "ok" for row in range(rows)]
    return pa.Table.from_pylist(
        [
            {"image_id": str(row), "status": one, "error_type": "X" if one == "failed" else None}
            for row, one in enumerate(status)
        ],
        schema=schema.PROPOSALS,
    )


def _record(cut: shards.Cut) -> RunRecord:
    return RunRecord("propose", {"dataset": cut.dataset}, {})


def _peak_mb() -> float:
    """Peak resident memory of this process, in MB."""
    assert "torch" not in sys.modules
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e6


class _Clock(RunProgress):
    """Progress that notes the time of each committed shard."""

    def __init__(self, total: int) -> None:
        super().__init__("drive", total, 0)
        self.ticks = [(perf_counter(), process_time())]

    def advance(self, report: Report) -> None:
        super().advance(report)
        self.ticks.append((perf_counter(), process_time()))

    def per_shard(self, clock: int) -> dict[str, float]:
        """Milliseconds per shard: the mean, and those of the first and last tenth after settling."""
        times = np.array(self.ticks)[:, clock] * 1000
        times = times[round(len(times) * SETTLING) :]
        tenth = max(1, len(times) // 10)
        return {
            "mean": (times[-1] - times[0]) / (len(times) - 1),
            "first": (times[tenth] - times[0]) / tenth,
            "last": (times[-1] - times[-1 - tenth]) / tenth,
        }


def _drive(kind: str, folder: str, shard_size: int) -> dict[str, Any]:
    start = perf_counter()
    manifest = open_manifest(storage.join(folder, "manifest"))
    target = storage.join(folder, kind)
    options = RunOptions(shard_size=shard_size)
    with cluster.connected():
        connected = perf_counter()
        cut = output.plan_cut(manifest, target, options)
        cut_seconds = perf_counter() - connected
        ready = output.open_run(target, _record(cut), cut, options)
        with WORKS[kind](manifest, target) as work, _Clock(ready.rows) as clock:
            metrics = RunMetrics("benchmark", ready.record.fingerprint)
            report = ShardRunner(work, ready.uri, ready.todo, clock, metrics=metrics).run()
        assert report.images == manifest.rows
    return {
        "shards": len(ready.shards),
        "start_seconds": connected - start,
        "cut_seconds": cut_seconds,
        "wall_ms": clock.per_shard(0),
        "cpu_ms": clock.per_shard(1),
        "peak_mb": _peak_mb(),
    }


def _resume(folder: str) -> dict[str, Any]:
    start, busy = perf_counter(), process_time()
    manifest = open_manifest(storage.join(folder, "manifest"))
    target = storage.join(folder, "committed")
    cut = output.plan_cut(manifest, target, RunOptions())
    ready = output.open_run(target, _record(cut), cut, RunOptions())
    assert not ready.todo
    opened = perf_counter()
    with summarise(ready, RunOptions(max_failed_fraction=1.0)) as summary:
        pass
    assert summary.images_failed == len(range(0, len(ready.shards), 100))
    return {
        "shards": len(ready.shards),
        "open_seconds": opened - start,
        "close_seconds": perf_counter() - opened,
        "cpu_seconds": process_time() - busy,
        "peak_mb": _peak_mb(),
    }


class _ReadyWork:
    """Work whose every piece is done when it is started; it needs no task."""

    def follow(self, capacity: cluster.Capacity) -> None:
        """No node matters here."""

    def has_room(self, flights: Collection[Flight], capacity: cluster.Capacity) -> bool:
        return len(flights) < 2 * capacity.cpus

    def flow(self, flights: Collection[Flight], capacity: cluster.Capacity) -> FlowState:
        return FlowState([StageLoad("none", "no work", capacity.cpus, 0, 0)])

    def needs(self) -> Sequence[dict[str, float]]:
        return [{"CPU": 1.0}]

    def start(self, flight: Flight) -> Any:
        return ray.put(Report(images=flight.piece.shard.rows))

    def proceed(self, flight: Flight) -> None:
        return None

    def lost(self, flight: Flight, error: Exception) -> bool:
        return True

    def failed_table(self, piece: Piece, failure: Failure) -> pa.Table:
        raise AssertionError("nothing fails here")


@ray.remote(num_cpus=1, max_retries=0)
def _no_proposals(plan: ProposalPlan, piece: Piece, last_chance: bool) -> Report:
    return Report(images=piece.shard.rows, seconds={"propose": 0.0})


@ray.remote(num_cpus=1, max_retries=0)
def _no_reading(
    plan: DetectionPlan, piece: Piece, stored: None, last_chance: bool
) -> Iterator[Any]:
    yield [], Report()
    yield 1, ray.get_runtime_context().get_node_id()


@ray.remote(max_restarts=0, max_task_retries=0)
class _NoDetector:
    def __init__(self, plan: DetectionPlan, precision: str) -> None:
        self.precision = precision

    def ready(self) -> str:
        return self.precision

    def detect(self, piece: Piece, chunks: Sequence[Any]) -> Report:
        return Report(images=piece.shard.rows, seconds={"detect": 0.0})


@contextlib.contextmanager
def _ready(manifest: Manifest, target: str) -> Iterator[ShardWork]:
    yield _ReadyWork()


@contextlib.contextmanager
def _proposing(manifest: Manifest, target: str) -> Iterator[ShardWork]:
    plan = ProposalPlan(manifest, target, "0" * 64, ProposalSettings(), {}, 120.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposal_run, "_propose_piece", _no_proposals)
        yield ProposalWork(plan)


@contextlib.contextmanager
def _detecting(manifest: Manifest, target: str) -> Iterator[ShardWork]:
    plan = DetectionPlan(
        manifest=manifest,
        output=target,
        fingerprint="0" * 64,
        checkpoint="",
        checkpoint_digest="",
        classes=("thing",),
        keep=Keep(),
        device="cpu",
        pyramid=Pyramid(),
        max_proposals=None,
        proposals=ProposalSettings(),
        image_seconds=120.0,
        threads=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection_work, "_read_piece", _no_reading)
        patch.setattr(detector_pool, "DetectorActor", _NoDetector)
        with DetectionWork(plan, ActorResources(0.0, 1, most=2), 60.0, "fp32") as work:
            yield work


WORKS = {"loop": _ready, "propose": _proposing, "detect": _detecting}


if __name__ == "__main__":
    main()
