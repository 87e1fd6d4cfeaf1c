"""The propose job against plain loops: the cost of Ray, shards and commits.

python -m tests.benchmarks.propose_job --manifest devval.parquet --json result.json

First N processes without Ray, one per core, run at once; each loops over every N-th image (read, decode,
search). Then the job processes the same images on a local Ray of N cores. Neither figure includes
start-up (imports, compiled kernels, Ray), which is printed separately. Efficiency is the job's images/s
over the loops'.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from pipeline import storage, uris
from pipeline.engine.propose.proposing import read_and_propose
from pipeline.engine.propose.run import run_proposals
from pipeline.manifests import open_manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.encoded_image import ListedImage
from pipeline.runs.options import RunOptions
from pipeline.runs.report import Report
from tests.benchmarks import plain_loops


def main() -> None:
    """Run the loops and the job, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True, help="URI of the manifest")
    parser.add_argument("--limit", type=int, default=400, help="number of images")
    parser.add_argument("--strategy", default="fast", help="strategy of selective search")
    parser.add_argument("--json", help="output file for the figures")
    parser.add_argument("--loop", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        _plain_loop(options.manifest, options.limit, options.strategy, *options.loop)
        return
    cores = len(os.sched_getaffinity(0))
    arguments = ["--manifest", options.manifest, "--strategy", options.strategy]
    arguments += ["--limit", str(options.limit)]
    loops = plain_loops.time_loops("tests.benchmarks.propose_job", arguments, cores)
    loops_rate = options.limit / loops.wall
    job = _run_job(options.manifest, options.limit, options.strategy)
    result = {
        "images": options.limit,
        "cores": cores,
        "loops_images_per_second": loops_rate,
        "job": job,
        "efficiency": job["images_per_second"] / loops_rate,
    }
    print(f"{options.limit} images, {cores} cores, strategy {options.strategy}")
    print(f"plain loops  {loops_rate:6.2f} images/s")
    print(
        f"propose job  {job['images_per_second']:6.2f} images/s, start {job['start_seconds']:.1f} s, "
        f"{job['bytes_per_image']:.0f} bytes of Parquet and {job['boxes_per_image']:.0f} boxes per image"
    )
    print(f"efficiency   {result['efficiency']:6.3f}")
    if options.json:
        storage.put(uris.make_absolute(options.json), json.dumps(result, indent=2).encode())


def _plain_loop(manifest: str, limit: int, strategy: str, rank: int, world: int) -> None:
    from pipeline import proposals

    settings = ProposalSettings(strategy=strategy)  # type: ignore[arg-type]
    rows = open_manifest(manifest).read(0, limit, ["image_id", "uri"]).to_pylist()[rank::world]
    proposals.warm_up_kernels(strategy)

    def work() -> None:
        for row in rows:
            (image,) = read_and_propose(
                [ListedImage(row["image_id"], row["uri"])], settings, Report(), image_seconds=3600.0
            )
            assert image.boxes is not None

    plain_loops.run_loop(work)


def _run_job(manifest: str, limit: int, strategy: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        summary = run_proposals(
            manifest,
            str(Path(folder) / "proposals"),
            ProposalSettings(strategy=strategy),  # type: ignore[arg-type]
            RunOptions(limit=limit),
        )
    counts = summary.report.counts
    return {
        "images_per_second": summary.rate,
        "start_seconds": summary.start_seconds,
        "bytes_per_image": counts["bytes"] / summary.images,
        "boxes_per_image": counts["proposals"] / summary.images,
    }


if __name__ == "__main__":
    main()
