"""The detect job against plain loops: the cost of Ray, shards, transfers and commits.

python -m tests.benchmarks.detect_job --manifest devval.parquet --checkpoint checkpoint --json result.json

With --recipe instead of --checkpoint, the recipe's network gets random weights.

First N processes without Ray, one per core, run at once; each loops over every N-th image (read, decode,
propose, detect). Then the job processes the same images on a local Ray of N cores and computes the
proposals too. Neither figure includes start-up (imports, compiled kernels, checkpoints, Ray), which is
printed separately. Efficiency is the job's images/s over the loops' and holds on an idle machine. On a
busy one compare the CPU seconds per image, which include the driver and Ray's own processes.

With `--ways fast wide:500 wide:300:2`, the job runs once for each way instead, without the loops: a
strategy, how many of its best boxes are scored, and the batches of `--stop-after`. The first is the one that
the others are compared with. `--output FOLDER` keeps their detections, for `jobs/analyze.py compare`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline import imaging, storage, uris
from pipeline.detector.cascade_settings import CascadeSettings
from pipeline.detector.checkpoint_record import read_checkpoint_record
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.engine.detect.run import run_detection
from pipeline.engine.propose.proposing import read_and_propose
from pipeline.engine.shards.runner import ShardRunner
from pipeline.manifests import open_manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import ListedImage
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput
from pipeline.runs.report import Report
from pipeline.runs.summary import Summary
from tests.benchmarks import plain_loops
from tests.benchmarks.process_watch import ProcessWatch


@dataclass(frozen=True)
class Way:
    """Which proposals the job scores."""

    strategy: str = "fast"
    boxes: int = 2000
    """How many of an image's best proposals are computed and scored."""
    stop_after: int | None = None

    @classmethod
    def parse(cls, text: str) -> Way:
        """Read STRATEGY[:BOXES[:STOP_AFTER]]."""
        strategy, *numbers = text.split(":")
        return cls(strategy, *map(int, numbers))

    def __str__(self) -> str:
        """As in a table."""
        stop = "" if self.stop_after is None else f", --stop-after {self.stop_after}"
        return f"{self.strategy} {self.boxes}{stop}"


def main() -> None:
    """Run the loops and the job, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True, help="URI of the manifest")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--checkpoint", help="URI of the checkpoint")
    network.add_argument("--recipe", help="use the network of this recipe with random weights")
    parser.add_argument("--limit", type=int, default=400, help="number of images")
    parser.add_argument("--json", help="output file for the figures")
    parser.add_argument("--output", help="new folder that keeps the detections")
    parser.add_argument(
        "--ways", nargs="+", type=Way.parse, metavar="STRATEGY[:BOXES[:STOP_AFTER]]"
    )
    parser.add_argument("--loop", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.output and Path(options.output).exists():
        parser.error(f"--output {options.output} exists: its runs would have nothing to measure")
    if options.loop:
        _plain_loop(options.manifest, options.checkpoint, options.limit, *options.loop)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or temporary
        if options.recipe:
            options.checkpoint = str(Path(temporary) / "checkpoint")
            _save_random(options.recipe, options.manifest, options.checkpoint)
        source = options.manifest, options.checkpoint, options.limit, folder
        if options.ways:
            result: dict[str, Any] = {"ways": compare_ways(options.ways, *source)}
            _print_ways(result["ways"])
        else:
            result = compare(*source)
            _print(result)
    if options.json:
        storage.put(uris.make_absolute(options.json), json.dumps(result, indent=2).encode())


def compare(manifest: str, checkpoint: str, limit: int, folder: str) -> dict[str, Any]:
    """Run the loops, then the job, which writes into `folder`."""
    cores = len(os.sched_getaffinity(0))
    arguments = ["--manifest", manifest, "--checkpoint", checkpoint, "--limit", str(limit)]
    loops = plain_loops.time_loops("tests.benchmarks.detect_job", arguments, cores)
    summary, job_cpu = _run_job(
        Way(), manifest, checkpoint, limit, str(Path(folder) / "detections")
    )
    return {
        "network": read_checkpoint_record(checkpoint).architecture.backbone,
        "images": limit,
        "cores": cores,
        "loops": {"images_per_second": limit / loops.wall, "cpu_seconds": loops.cpu},
        "job": {"images_per_second": summary.rate, "cpu_seconds": job_cpu},
        "efficiency": summary.rate * loops.wall / limit,
        "cpu_efficiency": loops.cpu / job_cpu,
        "start_seconds": summary.start_seconds,
        "shards": summary.shards,
        "stage_seconds": summary.report.seconds,
    }


def compare_ways(
    ways: Sequence[Way], manifest: str, checkpoint: str, limit: int, folder: str
) -> list[dict[str, Any]]:
    """Run the job once for each way, one after the other: images/s, CPU seconds and what was scored."""
    rows: list[dict[str, Any]] = []
    for way in ways:
        output = str(Path(folder) / str(way).replace(", --", "-").replace(" ", "-"))
        summary, cpu = _run_job(way, manifest, checkpoint, limit, output)
        first = rows[0] if rows else {"images_per_second": summary.rate}
        rows.append(
            {
                **asdict(way),
                "images": limit,
                "images_per_second": summary.rate,
                "times_the_first": summary.rate / first["images_per_second"],
                "cpu_seconds": cpu,
                "stage_seconds": summary.report.seconds,
            }
        )
    return rows


def _run_job(
    way: Way, manifest: str, checkpoint: str, limit: int, output: str
) -> tuple[Summary, float]:
    """Run the detect job; returns its summary, and the CPU seconds of all its processes for the shards."""
    with _watch_shards() as watch:
        summary = run_detection(
            manifest,
            checkpoint,
            output,
            proposals=ProposalSettings(way.strategy, max_boxes=way.boxes),
            settings=DetectionSettings(cascade=CascadeSettings(way.stop_after)),
            options=RunOptions(limit=limit),
        )
    return summary, watch.stages[1].cpu_seconds


@contextmanager
def _watch_shards() -> Iterator[ProcessWatch]:
    """Watch this process and Ray's; the second stage is from the first shard's start to the last end."""
    watch = ProcessWatch(os.getpid())

    def end_stage_before(function):
        def end_stage_and_call(*arguments):
            watch.end_stage(function.__name__)
            return function(*arguments)

        return end_stage_and_call

    try:
        with (
            mock.patch.object(ShardRunner, "run", end_stage_before(ShardRunner.run)),
            mock.patch.object(RunOutput, "finish", end_stage_before(RunOutput.finish)),
        ):
            yield watch
    finally:
        watch.stop()


def _print(result: dict[str, Any]) -> None:
    stages = ", ".join(f"{name} {spent:.1f} s" for name, spent in result["stage_seconds"].items())
    print(
        f"{result['network']}, {result['images']} images, {result['cores']} cores, proposals included"
    )
    for name, figures in (("plain loops", result["loops"]), ("detect job", result["job"])):
        milliseconds = 1e3 * figures["cpu_seconds"] / result["images"]
        print(
            f"{name:11} {figures['images_per_second']:7.3f} images/s, {milliseconds:.0f} CPU ms per image"
        )
    print(
        f"{result['shards']} shards, start {result['start_seconds']:.1f} s (not counted); "
        f"worker time: {stages}"
    )
    print(
        f"efficiency {result['efficiency']:.3f} by the wall clock, {result['cpu_efficiency']:.3f} in CPU time"
    )


def _print_ways(rows: Sequence[dict[str, Any]]) -> None:
    print(f"\n{rows[0]['images']} images, {len(os.sched_getaffinity(0))} cores, proposals included")
    print(f"{'way':24} {'images/s':>8} {'ratio':>6} {'CPU ms per image':>17}")
    for row in rows:
        way = Way(row["strategy"], row["boxes"], row["stop_after"])
        milliseconds = 1e3 * row["cpu_seconds"] / row["images"]
        print(
            f"{way!s:24} {row['images_per_second']:8.3f} {row['times_the_first']:6.2f} {milliseconds:17.0f}"
        )


def _save_random(recipe: str, manifest: str, target: str) -> None:
    from pipeline.detector.checkpoint import save_checkpoint
    from tests.benchmarks.predictor import build_untrained_network

    random = build_untrained_network(recipe, tuple(open_manifest(manifest).classes or ("object",)))
    save_checkpoint(target, random.network, random.preprocessing)


def _plain_loop(manifest: str, checkpoint: str, limit: int, rank: int, world: int) -> None:
    import torch

    from pipeline import proposals
    from pipeline.detector.predictor import Predictor

    torch.set_num_threads(1)
    predictor = Predictor(checkpoint)
    settings = ProposalSettings()
    rows = open_manifest(manifest).read(0, limit, ["image_id", "uri"]).to_pylist()[rank::world]
    proposals.warm_up_kernels(settings.strategy)

    def work() -> None:
        for row in rows:
            (image,) = read_and_propose(
                [ListedImage(row["image_id"], row["uri"])], settings, Report(), image_seconds=3600.0
            )
            assert image.data is not None
            assert image.boxes is not None
            predictor([imaging.decode_image(image.data)], [image.boxes])

    plain_loops.run_loop(work)


if __name__ == "__main__":
    main()
