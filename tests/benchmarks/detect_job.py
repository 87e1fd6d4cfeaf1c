"""The detect job against plain loops: what Ray, shards, hand-overs and commits cost.

python -m tests.benchmarks.detect_job --manifest devval.parquet --checkpoint checkpoint --json result.json

With --recipe in the place of --checkpoint the recipe's network gets random weights.

N processes without Ray, one per core, each loop over every N-th image (read, decode, propose, detect)
at once; then the job does the same images on a local Ray of N cores, proposals computed on the way.
Start-up (imports, compiled kernels, checkpoints, Ray) is left out of both and reported apart.
Efficiency is the job's images/s over the loops', where nothing else runs on the machine; the CPU seconds
per image of both, Ray's own processes included, tell what the job costs where something does.
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

from pipeline import imaging, storage
from pipeline.detector import checkpoint_record
from pipeline.engine.detect import run as detection_run
from pipeline.engine.detect.run import DetectionSettings
from pipeline.engine.propose.reading import Reading
from pipeline.manifests import open_manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.output import RunOutput
from pipeline.runs.report import Report
from pipeline.runs.summary import Summary
from tests.benchmarks import plain_loops


def main() -> None:
    """Run both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True)
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--checkpoint")
    network.add_argument("--recipe", help="random weights in the network of this recipe")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--json")
    parser.add_argument("--loop", nargs=2, type=int, metavar=("RANK", "WORLD"))
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
        storage.put(storage.absolute(options.json), json.dumps(result, indent=2).encode())


def compare(manifest: str, checkpoint: str, limit: int, folder: str) -> dict[str, Any]:
    """The loops, then the job, which writes into `folder`."""
    cores = len(os.sched_getaffinity(0))
    arguments = ["--manifest", manifest, "--checkpoint", checkpoint, "--limit", str(limit)]
    loops = plain_loops.spent_by("tests.benchmarks.detect_job", arguments, cores)
    with _steady_cpu_seconds() as steady:
        summary = detection_run.run(
            manifest,
            checkpoint,
            str(Path(folder) / "detections"),
            proposals=ProposalSettings(),
            settings=DetectionSettings(),
            options=RunOptions(limit=limit),
        )
    return {
        "network": checkpoint_record.peek(checkpoint).architecture.backbone,
        "images": limit,
        "cores": cores,
        "loops": {"images_per_second": limit / loops.wall, "cpu_seconds": loops.cpu},
        "job": {"images_per_second": summary.rate, "cpu_seconds": steady[1] - steady[0]},
        "efficiency": summary.rate * loops.wall / limit,
        "cpu_efficiency": loops.cpu / (steady[1] - steady[0]),
        "start_seconds": summary.start_seconds,
        "shards": summary.shards,
        "stage_seconds": summary.report.seconds,
    }


@contextmanager
def _steady_cpu_seconds() -> Iterator[list[float]]:
    """The CPU seconds that Ray had used when the first shard was started, and when the last was done."""
    seen: list[float] = []

    def noting(function):
        def noted(*arguments):
            seen.append(plain_loops.cpu_seconds_of_descendants())
            return function(*arguments)

        return noted

    with (
        mock.patch.object(Summary, "work_begins", noting(Summary.work_begins)),
        mock.patch.object(RunOutput, "finish", noting(RunOutput.finish)),
    ):
        yield seen


def _print(result: dict[str, Any]) -> None:
    stages = ", ".join(f"{name} {spent:.1f} s" for name, spent in result["stage_seconds"].items())
    print(
        f"{result['network']}, {result['images']} images, {result['cores']} cores, proposals on the way"
    )
    for name, it in (("plain loops", result["loops"]), ("detect job", result["job"])):
        milliseconds = 1e3 * it["cpu_seconds"] / result["images"]
        print(
            f"{name:11} {it['images_per_second']:7.3f} images/s, {milliseconds:.0f} CPU ms per image"
        )
    print(
        f"{result['shards']} shards, start {result['start_seconds']:.1f} s, not counted; "
        f"worker time: {stages}"
    )
    print(
        f"efficiency {result['efficiency']:.3f} by the wall clock, {result['cpu_efficiency']:.3f} in CPU time"
    )


def _save_random(recipe: str, manifest: str, target: str) -> None:
    from pipeline.detector import checkpoint
    from tests.benchmarks.predictor import random_checkpoint

    made = random_checkpoint(recipe, tuple(open_manifest(manifest).classes or ("object",)))
    checkpoint.save(target, made.model, made.preprocessing)


def _plain_loop(manifest: str, checkpoint: str, limit: int, rank: int, world: int) -> None:
    import torch

    from pipeline import proposals
    from pipeline.detector.predictor import Predictor

    torch.set_num_threads(1)
    predictor = Predictor(checkpoint)
    settings = ProposalSettings()
    rows = open_manifest(manifest).read(0, limit, ["image_id", "uri"]).to_pylist()[rank::world]
    proposals.warm_up(settings.strategy)

    def work() -> None:
        reading = Reading(Report(), seconds=3600.0)
        for row in rows:
            (image,) = reading.proposed([(row["image_id"], row["uri"])], settings)
            assert image.data is not None
            assert image.boxes is not None
            predictor([imaging.decode(image.data)], [image.boxes])

    plain_loops.one_loop(work)


if __name__ == "__main__":
    main()
