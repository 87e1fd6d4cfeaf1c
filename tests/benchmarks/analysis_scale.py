"""The analysis of large detection runs: seconds of each step and memory of each process.

python -m tests.benchmarks.analysis_scale --images 50000 --detections-per-image 100 [--one-class]

The inputs are drawn by shard in several processes, then jobs/analyze.py runs as its command line does;
arguments after `--` are the job's. `--folder F` keeps inputs and output (45 and 50 bytes per detection);
a second run takes the inputs from there. Use one folder per dataset.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter

import pyarrow.parquet as pq

from pipeline import schema, shards
from pipeline.manifests import open_manifest
from pipeline.run_record import RunRecord
from pipeline.shards import Shard
from tests.benchmarks.analysis_inputs import DrawnDataset, draw_rows
from tests.benchmarks.process_watch import ProcessWatch, StageUse, sum_stages

ROOT = Path(__file__).parents[2]
SHARDS_PER_FILE = 64
"""Shards whose images share a file of the manifest."""


def main() -> None:
    """Draw the inputs, analyse them, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--detections-per-image", type=int, default=100)
    parser.add_argument("--one-class", action="store_true", help="nearly all are of one class")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--folder", help="for inputs and output; kept, and reused if it has inputs")
    parser.add_argument("arguments", nargs="*", help="for the job, after --")
    options = parser.parse_args()
    dataset = DrawnDataset(
        options.images,
        options.classes,
        options.detections_per_image,
        main_share=1.0 if options.one_class else 0.0,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.folder or scratch)
        start = perf_counter()
        write_inputs(dataset, folder, options.processes)
        detections = dataset.images * dataset.detections_per_image
        print(f"{dataset.images} images, {detections} detections, {dataset.classes} classes")
        print(f"inputs: {perf_counter() - start:.0f} s, {_measure_size(folder) / 1e9:.2f} GB")
        stages = run_job(folder, options.arguments)
        print_stages(stages, detections)
        each = 1e6 * sum_stages(stages).seconds / detections
        print(f"{each:.2f} us per detection on {os.cpu_count()} cores")
        print(f"matches: {_measure_size(folder / 'out' / 'matches') / 1e9:.2f} GB")


def write_inputs(dataset: DrawnDataset, folder: Path, processes: int) -> None:
    """Write manifest and detections, unless they are there."""
    manifest, detections = folder / "manifest", str(folder / "detections")
    if (folder / "detections" / "run.json").exists():
        return
    manifest.mkdir(parents=True)
    with ProcessPoolExecutor(processes) as pool:
        block = dataset.shard_size * SHARDS_PER_FILE
        firsts = range(0, dataset.images, block)
        list(pool.map(functools.partial(_write_manifest_file, dataset, manifest), firsts))
        cut = shards.cut_manifest(open_manifest(str(manifest)), dataset.shard_size)
        record = RunRecord("detect", {"dataset": cut.dataset})
        planned = cut.build_shards(record.fingerprint)
        shards.write_shard_table(detections, planned)
        write = functools.partial(_write_part, dataset, detections, record.fingerprint)
        list(pool.map(write, planned, chunksize=8))
    record.write(detections)


def _write_manifest_file(dataset: DrawnDataset, folder: Path, first: int) -> None:
    stop = min(first + dataset.shard_size * SHARDS_PER_FILE, dataset.images)
    target = schema.add_metadata(schema.MANIFEST, {"classes": list(dataset.labels)})
    with pq.ParquetWriter(folder / f"{first:09d}.parquet", target, compression="zstd") as writer:
        for row in range(first, stop, dataset.shard_size):
            rows, _ = draw_rows(dataset, row, min(dataset.shard_size, dataset.images - row))
            writer.write_table(rows.cast(target))


def _write_part(dataset: DrawnDataset, output: str, fingerprint: str, shard: Shard) -> None:
    metadata = {"classes": list(dataset.labels), "fingerprint": fingerprint}
    _, rows = draw_rows(dataset, shard.first_row, shard.rows)
    shards.put_part(output, shard, rows.cast(schema.add_metadata(schema.DETECTIONS, metadata)))


def run_job(folder: Path, arguments: list[str]) -> list[StageUse]:
    """Run the job, pass its log on, and return what each of its stages took."""
    command = [
        *(sys.executable, "jobs/analyze.py", "detections"),
        *("--detections", str(folder / "detections"), "--manifest", str(folder / "manifest")),
        *("--output", str(folder / "out"), *arguments),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    watch = ProcessWatch(process.pid)
    for line in process.stderr or ():
        print(line, end="", flush=True)
        if stage := name_ended_stage(line):
            watch.end_stage(stage)
    code = process.wait()
    watch.end_stage("the end")
    watch.stop()
    if code:
        sys.exit(f"the job ended with {code}")
    return watch.stages


def name_ended_stage(line: str) -> str | None:
    """The stage whose end a line of the job's log says; None for other lines."""
    if re.search(r"images with about \d+ detections: analysing", line):
        return "inputs opened"
    ended = re.search(r"\b(matches|metrics|diagnostics|report): \d+\.\d s", line)
    return ended and ended[1]


def print_stages(stages: list[StageUse], detections: int) -> None:
    """Print seconds, seconds of cores, and memory of each stage, and of all."""
    print(f"{'':14}{'s':>8}{'CPU s':>9}{'CPU us per detection':>22}   memory, MB")
    for stage in (*stages, sum_stages(stages)):
        each = 1e6 * stage.cpu_seconds / detections
        memory = ", ".join(f"{kind} {peak / 1e6:.0f}" for kind, peak in stage.peaks.items())
        print(f"{stage.name:14}{stage.seconds:8.1f}{stage.cpu_seconds:9.1f}{each:22.2f}   {memory}")


def _measure_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
