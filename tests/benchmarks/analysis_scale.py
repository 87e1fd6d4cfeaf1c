"""The analysis of large detection runs: seconds of each step and memory of each process.

python -m tests.benchmarks.analysis_scale --images 50000 --detections-per-image 100 [--one-class]

The inputs are drawn by shard in several processes, then jobs/analyze.py runs as its
command line does. Memory is each process's own: its pages without those that it shares with others, such as
Ray's object store, sampled four times a second.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter

import pyarrow.parquet as pq

from pipeline import schema, shards
from pipeline.manifests import open_manifest
from pipeline.run_record import RunRecord
from pipeline.shards import Shard
from tests.benchmarks.analysis_inputs import DrawnDataset, draw_rows

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
        seconds, busy = run_job(folder, options.arguments)
        for name, value in (("job", seconds), ("of all cores", busy)):
            print(f"{name}: {value:.1f} s, {1e6 * value / detections:.2f} us per detection")
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


def run_job(folder: Path, arguments: list[str]) -> tuple[float, float]:
    """Run the job and print the memory of its processes; returns its seconds, and those of all cores."""
    command = [
        *(sys.executable, "jobs/analyze.py", "detections"),
        *("--detections", str(folder / "detections"), "--manifest", str(folder / "manifest")),
        *("--output", str(folder / "out"), *arguments),
    ]
    start = perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    watch = ProcessWatch(process.pid)
    code = process.wait()
    seconds = perf_counter() - start
    watch.stop()
    for name, peak in sorted(watch.peaks.items(), key=lambda item: -item[1])[:6]:
        print(f"{peak / 1e6:8.0f} MB {name}")
    if code:
        sys.exit(f"the job ended with {code}")
    return seconds, sum(watch.busy.values())


class ProcessWatch:
    """Samples the private memory and the time of a process and of all that descend from it."""

    def __init__(self, pid: int) -> None:
        self.peaks: dict[str, int] = {}
        """Bytes by kind of process: the most of any process of this kind."""
        self.busy: dict[int, float] = {}
        """Seconds of a core by process."""
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the sampling."""
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(0.25):
            for pid in _list_family(self._pid):
                try:
                    name = _name_process(pid) if pid != self._pid else "driver"
                    private = _read_private(pid)
                    self.busy[pid] = _read_busy_seconds(pid)
                except (OSError, ValueError):
                    continue  # it ended meanwhile
                self.peaks[name] = max(self.peaks.get(name, 0), private)


def _list_family(root: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += parents.get(pid, [])


def _name_process(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    if words[0].startswith("ray::"):
        return "ray task" if words[0] != "ray::IDLE" else "idle ray worker"
    return Path(words[0]).name


def _read_private(pid: int) -> int:
    """Bytes of a process's resident pages without shared ones."""
    fields = [int(word) for word in Path(f"/proc/{pid}/statm").read_text().split()]
    return (fields[1] - fields[2]) * os.sysconf("SC_PAGE_SIZE")


def _read_busy_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _measure_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
