"""Seconds and memory of jobs/status.py and jobs/verify.py on a large output.

python -m tests.benchmarks.output_audit --images 100000

Writes a manifest of images that do not exist, and outputs of propose and detect over them as their runs
commit them. Then it runs both jobs as commands.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import tyro
from numpy.typing import NDArray

from pipeline import shards
from pipeline.image_keys import compute_image_key
from pipeline.manifests import Manifest, open_manifest
from pipeline.run_record import RunRecord
from pipeline.runs.encoded_image import EncodedImage, ImageContent
from pipeline.runs.tables import build_detections_table, build_proposals_table
from pipeline.shards import Shard
from tests.benchmarks.driver_scale_inputs import write_manifest_files

REPOSITORY = Path(__file__).parents[2]
CLASSES = tuple(f"class {number}" for number in range(20))
CONTENT = ImageContent(100_000, "0" * 32)


@dataclass(frozen=True)
class Options:
    """How large the outputs are."""

    images: int = 100_000
    proposals: int = 500
    """Boxes per image of the propose output."""
    detections: int = 20
    """Per image of the detect output."""
    shard_size: int = 256


class _Detections(NamedTuple):
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]


def main() -> None:
    """Write the outputs, run the jobs, print a table."""
    options = tyro.cli(Options, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        write_manifest_files(Path(folder) / "manifest", options.images)
        manifest = open_manifest(f"{folder}/manifest")
        for job in ("propose", "detect"):
            _write_output(f"{folder}/{job}", job, manifest, options)
        print("| job | output | processes | s | CPU s | peak MB of the largest process |")
        print("|---|---|---|---|---|---|")
        for job in ("propose", "detect"):
            output = f"{folder}/{job}"
            size = sum(path.stat().st_size for path in Path(output).iterdir()) / 1e6
            title = f"{job}, {size:.0f} MB"
            _time("status", title, "1", output)
            for processes in ("1", "2"):
                arguments = ("--manifest", manifest.uri, "--processes", processes)
                _time("verify", title, processes, output, *arguments)


def _write_output(output: str, job: str, manifest: Manifest, options: Options) -> None:
    cut = shards.cut_manifest(manifest, options.shard_size)
    record = RunRecord(job, {"dataset": cut.dataset, "images": cut.images}, {})
    planned = cut.build_shards(record.fingerprint)
    record.write(output)
    shards.write_shard_table(output, planned)
    rng = np.random.default_rng(0)
    for shard in planned:
        table = _build_rows(shard, manifest, record, rng, options)
        shards.put_part(output, shard, table)
    summary = {"images": cut.images, "images_failed": 0, "failed": {}, "shards": len(planned)}
    Path(output, "summary.json").write_text(json.dumps(summary))


def _build_rows(
    shard: Shard, manifest: Manifest, record: RunRecord, rng: np.random.Generator, options: Options
) -> pa.Table:
    job, fingerprint = record.job, record.fingerprint
    listed = manifest.read(shard.first_row, shard.rows, ["image_id", "uri"]).to_pylist()
    count = options.proposals if job == "propose" else options.detections
    starts = rng.integers(0, 180, (shard.rows, count, 2)).astype(np.float32)
    boxes = np.concatenate([starts, starts + rng.integers(20, 195, starts.shape)], axis=2)
    images = [
        EncodedImage(
            row["image_id"],
            row["uri"],
            500,
            375,
            boxes=of_image.astype(np.float32),
            key=compute_image_key(row["image_id"], row["uri"], None, manifest.decoding),
            content=CONTENT,
        )
        for row, of_image in zip(listed, boxes, strict=True)
    ]
    if job == "propose":
        return build_proposals_table(images, {"algorithm": "drawn"}, fingerprint)
    detections = [
        _Detections(
            image.boxes,  # type: ignore[arg-type]
            np.sort(rng.random(count).astype(np.float32))[::-1],
            rng.integers(0, len(CLASSES), count).astype(np.int32),
        )
        for image in images
    ]
    return build_detections_table(images, detections, CLASSES, fingerprint)


def _time(job: str, title: str, processes: str, output: str, *arguments: str) -> None:
    command = [sys.executable, f"jobs/{job}.py", output, *arguments]
    watched = ["/usr/bin/env", sys.executable, "-c", _WATCH, *command]
    began = perf_counter()
    run = subprocess.run(watched, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    seconds = perf_counter() - began
    if run.returncode:
        raise RuntimeError(f"{command} failed:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    cpu, peak = run.stderr.split()[-2:]
    print(f"| {job} | {title} | {processes} | {seconds:.1f} | {cpu} | {peak} |", flush=True)


_WATCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(round(usage.ru_utime + usage.ru_stime, 1), usage.ru_maxrss // 1000, file=sys.stderr)
sys.exit(code)
"""

if __name__ == "__main__":
    main()
