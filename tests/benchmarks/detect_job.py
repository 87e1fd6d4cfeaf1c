"""The detect job against plain loops: the cost of Ray, shards, transfers and commits.

python -m tests.benchmarks.detect_job --manifest devval.parquet --checkpoint checkpoint --json result.json

With --recipe instead of --checkpoint, the recipe's network gets random weights.

First N processes without Ray, one per core, run at once; each loops over every N-th image (read, decode,
propose, detect). Then the job processes the same images on a local Ray of N cores and computes the
proposals too. Neither figure includes start-up (imports, compiled kernels, checkpoints, Ray), which is
printed separately. Efficiency is the job's images/s over the loops' and holds on an idle machine. On a
busy one compare the CPU seconds per image, which include Ray's own processes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from pipeline import imaging, storage, uris
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
from tests.benchmarks import plain_loops


def main() -> None:
    """Run the loops and the job, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True, help="URI of the manifest")
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--checkpoint", help="URI of the checkpoint")
    network.add_argument("--recipe", help="use the network of this recipe with random weights")
    parser.add_argument("--limit", type=int, default=400, help="number of images")
    parser.add_argument("--json", help="output file for the figures")
    parser.add_argument("--loop", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        _plain_loop(options.manifest, options.checkpoint, options.limit, *options.loop)
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.recipe:
            options.checkpoint = str(Path(folder) / "checkpoint")
            _save_random(options.recipe, options.manifest, options.checkpoint)
        result = compare(options.manifest, options.checkpoint, options.limit, folder)
    _print(result)
    if options.json:
        storage.put(uris.make_absolute(options.json), json.dumps(result, indent=2).encode())


def compare(manifest: str, checkpoint: str, limit: int, folder: str) -> dict[str, Any]:
    """Run the loops, then the job, which writes into `folder`."""
    cores = len(os.sched_getaffinity(0))
    arguments = ["--manifest", manifest, "--checkpoint", checkpoint, "--limit", str(limit)]
    loops = plain_loops.time_loops("tests.benchmarks.detect_job", arguments, cores)
    with _record_cpu_seconds() as cpu_seconds:
        summary = run_detection(
            manifest,
            checkpoint,
            str(Path(folder) / "detections"),
            proposals=ProposalSettings(),
            settings=DetectionSettings(),
            options=RunOptions(limit=limit),
        )
    job_cpu = cpu_seconds[1] - cpu_seconds[0]
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


@contextmanager
def _record_cpu_seconds() -> Iterator[list[float]]:
    """Ray's CPU seconds at the start of the first shard and at the end of the last."""
    cpu_seconds: list[float] = []

    def record_before(function):
        def record_and_call(*arguments):
            cpu_seconds.append(plain_loops.measure_descendants_cpu())
            return function(*arguments)

        return record_and_call

    with (
        mock.patch.object(ShardRunner, "run", record_before(ShardRunner.run)),
        mock.patch.object(RunOutput, "finish", record_before(RunOutput.finish)),
    ):
        yield cpu_seconds


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
