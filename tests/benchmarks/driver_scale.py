"""The cost of the driver itself on a large dataset: memory, time per shard, resuming.

python -m tests.benchmarks.driver_scale --images 1000000 --json result.json

The real shard runner opens and cuts a synthetic manifest of many Parquet files, and runs each job's real
work with tasks and actors that do nothing. Then a driver resumes and closes an output in which every
shard is committed. Each measurement runs in a separate driver process.

`loop` starts no task: each piece's result already exists, so that only the driver's own loop remains.
`unlogged` is the same without the run's logs (`OUTPUT/logs`), which shows what these cost.
`propose` starts one task per shard, `detect` a reading task and an actor call. The wall time of these two
is mostly Ray's and the workers', which share the cores with the driver. CPU time is that of the driver
process, including all its threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from pipeline import storage, uris
from pipeline.engine import cluster
from pipeline.engine.monitor.metrics import RunMetrics
from pipeline.engine.monitor.progress import RunProgress
from pipeline.engine.shards.runner import ShardRunner
from pipeline.manifests import open_manifest
from pipeline.runs.cut_planning import plan_cut
from pipeline.runs.options import RunOptions
from pipeline.runs.output import open_run
from pipeline.runs.report import Report
from pipeline.runs.run_logs import RunLogs
from pipeline.runs.summary import WorkDone, complete_run
from tests.benchmarks.driver_scale_inputs import build_record, write_committed, write_manifest_files
from tests.benchmarks.driver_scale_work import WORK_BY_KIND

KINDS = ["unlogged", "loop", "propose", "detect", "resume"]
SETTLING = 0.1
"""Share of the first shards that is not measured, because workers are still starting."""


def main() -> None:
    """Write the inputs, measure each kind in a separate process and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000, help="images in the manifest")
    parser.add_argument("--shard-size", type=int, default=256, help="images per shard")
    parser.add_argument(
        "--committed",
        type=int,
        default=100_000,
        help="committed shards of the output to resume",
    )
    parser.add_argument(
        "--only", nargs="+", choices=KINDS, default=KINDS, help="the only measurements"
    )
    parser.add_argument("--json", help="output file for the figures")
    parser.add_argument("--drive", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        kind, folder = options.drive
        figures = _resume(folder) if kind == "resume" else _drive(kind, folder, options.shard_size)
        print(json.dumps(figures))
        return
    result: dict[str, Any] = {"images": options.images, "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(prefix="driver-scale-") as folder:
        write_manifest_files(Path(folder) / "manifest", options.images)
        for kind in options.only:
            if kind == "resume":
                write_committed(folder, options.committed)
            result[kind] = _measure_in_process(kind, folder, options.shard_size)
            print(_format_figures(kind, result[kind]), flush=True)
    if options.json:
        storage.put(uris.make_absolute(options.json), json.dumps(result, indent=2).encode())


def _measure_in_process(kind: str, folder: str, shard_size: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.benchmarks.driver_scale", "--drive", kind, folder]
    command += ["--shard-size", str(shard_size)]
    driver = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(driver.stdout.splitlines()[-1]))


def _format_figures(kind: str, figures: dict[str, Any]) -> str:
    if kind == "resume":
        return (
            f"resume   {figures['shards']} committed shards: {figures['open_seconds']:.1f} s to open "
            f"manifest and output, {figures['close_seconds']:.1f} s to count failures and close, "
            f"{figures['cpu_seconds']:.1f} s of CPU; peak {figures['peak_mb']:.0f} MB"
        )
    cpu, wall = figures["cpu_ms"], figures["wall_ms"]
    return (
        f"{kind:8} {figures['shards']} shards, cut in {figures['cut_seconds']:.1f} s; per shard "
        f"{cpu['mean']:.2f} ms driver CPU (first tenth {cpu['first']:.2f}, last {cpu['last']:.2f}), "
        f"{wall['mean']:.2f} ms wall ({wall['first']:.2f}, {wall['last']:.2f}); "
        f"peak {figures['peak_mb']:.0f} MB"
    )


def _read_peak_mb() -> float:
    """Peak resident memory of this process, in MB."""
    assert "torch" not in sys.modules
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 / 1e6


class _Clock(RunProgress):
    """Progress that records the time of each committed shard."""

    def __init__(self, total: int, logs: RunLogs | None) -> None:
        super().__init__("drive", total, 0, logs=logs)
        self.ticks = [(perf_counter(), process_time())]

    def advance(self, report: Report) -> None:
        super().advance(report)
        self.ticks.append((perf_counter(), process_time()))

    def average_per_shard(self, clock: int) -> dict[str, float]:
        """Milliseconds per shard: over all, over the first tenth and over the last, after settling."""
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
    manifest = open_manifest(uris.join(folder, "manifest"))
    target = uris.join(folder, kind)
    options = RunOptions(shard_size=shard_size)
    with cluster.connect_to_cluster():
        connected = perf_counter()
        cut = plan_cut(manifest, target, options)
        cut_seconds = perf_counter() - connected
        ready = open_run(target, build_record(cut), cut, options)
        logs = None if kind == "unlogged" else ready.logs
        with (
            nullcontext() if logs is None else logs,
            WORK_BY_KIND[kind](manifest, target) as work,
            _Clock(ready.rows, logs) as clock,
        ):
            metrics = RunMetrics("benchmark", ready.record.fingerprint)
            runner = ShardRunner(work, ready.uri, ready.todo, clock, metrics=metrics, logs=logs)
            report = runner.run()
        assert report.images == manifest.rows
    return {
        "shards": len(ready.shards),
        "start_seconds": connected - start,
        "cut_seconds": cut_seconds,
        "wall_ms": clock.average_per_shard(0),
        "cpu_ms": clock.average_per_shard(1),
        "peak_mb": _read_peak_mb(),
    }


def _resume(folder: str) -> dict[str, Any]:
    start, busy = perf_counter(), process_time()
    manifest = open_manifest(uris.join(folder, "manifest"))
    target = uris.join(folder, "committed")
    cut = plan_cut(manifest, target, RunOptions())
    ready = open_run(target, build_record(cut), cut, RunOptions())
    assert not ready.todo
    opened = perf_counter()
    options = RunOptions(max_failed_fraction=1.0)
    summary = complete_run(ready, options, lambda: WorkDone(ready))
    assert summary.images_failed == len(range(0, len(ready.shards), 100))
    return {
        "shards": len(ready.shards),
        "open_seconds": opened - start,
        "close_seconds": perf_counter() - opened,
        "cpu_seconds": process_time() - busy,
        "peak_mb": _read_peak_mb(),
    }


if __name__ == "__main__":
    main()
