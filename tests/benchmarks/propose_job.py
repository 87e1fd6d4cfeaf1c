"""The propose job against plain loops: what Ray, shards and commits cost.

python -m tests.benchmarks.propose_job --manifest devval.parquet --json result.json

N processes without Ray, one per core, each loop over every N-th image (read, decode, search) at once;
then the job does the same images on a local Ray of N cores. Start-up (imports, compiled kernels, Ray)
is left out of both and reported apart. Efficiency is the job's images/s over the loops'.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from pipeline import storage
from pipeline.engine.propose import run as proposal_run
from pipeline.engine.propose.reading import Reading
from pipeline.manifests import open_manifest
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.report import Report
from tests.benchmarks import plain_loops


def main() -> None:
    """Run both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--strategy", default="fast")
    parser.add_argument("--json")
    parser.add_argument("--loop", nargs=2, type=int, metavar=("RANK", "WORLD"))
    options = parser.parse_args()
    if options.loop:
        _plain_loop(options.manifest, options.limit, options.strategy, *options.loop)
        return
    cores = len(os.sched_getaffinity(0))
    arguments = ["--manifest", options.manifest, "--strategy", options.strategy]
    arguments += ["--limit", str(options.limit)]
    loops = (
        options.limit / plain_loops.spent_by("tests.benchmarks.propose_job", arguments, cores).wall
    )
    job = _job(options.manifest, options.limit, options.strategy)
    result = {
        "images": options.limit,
        "cores": cores,
        "loops_images_per_second": loops,
        "job": job,
        "efficiency": job["images_per_second"] / loops,
    }
    print(f"{options.limit} images, {cores} cores, strategy {options.strategy}")
    print(f"plain loops  {loops:6.2f} images/s")
    print(
        f"propose job  {job['images_per_second']:6.2f} images/s, start {job['start_seconds']:.1f} s, "
        f"{job['bytes_per_image']:.0f} bytes of Parquet and {job['boxes_per_image']:.0f} boxes per image"
    )
    print(f"efficiency   {result['efficiency']:6.3f}")
    if options.json:
        storage.put(storage.absolute(options.json), json.dumps(result, indent=2).encode())


def _plain_loop(manifest: str, limit: int, strategy: str, rank: int, world: int) -> None:
    from pipeline import proposals

    settings = ProposalSettings(strategy=strategy)  # type: ignore[arg-type]
    rows = open_manifest(manifest).read(0, limit, ["image_id", "uri"]).to_pylist()[rank::world]
    proposals.warm_up(strategy)

    def work() -> None:
        reading = Reading(Report(), seconds=3600.0)
        for row in rows:
            (image,) = reading.proposed([(row["image_id"], row["uri"])], settings)
            assert image.boxes is not None

    plain_loops.one_loop(work)


def _job(manifest: str, limit: int, strategy: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        summary = proposal_run.run(
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
