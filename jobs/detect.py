"""Detect objects in every image of a manifest with a trained checkpoint.

Uses stored proposals (jobs/propose.py) or computes them first, detects on all GPUs, or on all cores if
there is no GPU, and writes one Parquet part per shard: one row per image, with its detections nested.
Running the same command again does only what is left.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.entry import JobOptions, build_closing_lines, print_lines, run
from pipeline import uris
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.engine.detect.resources import ActorOptions
from pipeline.engine.detect.run import run_detection
from pipeline.engine.planning.plan_detection import plan_detection
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions
from pipeline.runs.plan_options import DetectionPlanOptions


@dataclass(frozen=True, kw_only=True)
class Detect(JobOptions):
    """Options of the detect job."""

    manifest: str
    """Manifest: a Parquet file or a folder of them; any fsspec URI."""
    checkpoint: str
    """Checkpoint: the output folder of jobs/train.py; any fsspec URI."""
    output: str
    """Folder for the detections; any fsspec URI."""
    proposals: str | None = None
    """Stored proposals of these images; without this, the job computes them."""
    settings: Annotated[DetectionSettings, tyro.conf.OmitArgPrefixes] = field(
        default_factory=DetectionSettings
    )
    actors: Annotated[ActorOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ActorOptions)
    compute: Annotated[ProposalSettings, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ProposalSettings
    )
    run: Annotated[RunOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=RunOptions)
    planning: Annotated[DetectionPlanOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=DetectionPlanOptions
    )


def main(options: Detect) -> None:
    """Run the job, or plan it.

    Raises:
        InvalidConfiguration: stored proposals together with options that compute or shard them, or a
            maximum of stored proposals without any.
    """
    if options.proposals is None and options.settings.max_proposals is not None:
        raise InvalidConfiguration(
            "--max-proposals takes the best of stored --proposals; use --max-boxes for computed ones"
        )
    if options.proposals is not None and options.run.shard_size is not None:
        raise InvalidConfiguration("--proposals come with their shards: leave out --shard-size")
    if options.proposals is not None and options.compute != ProposalSettings():
        raise InvalidConfiguration(
            "--proposals takes stored boxes as they are: leave out --strategy, --ranking, --max-boxes, "
            "--min-side, --max-side, --seed and --backend"
        )
    if options.planning.plan:
        plan = plan_detection(
            options.manifest,
            options.checkpoint,
            options.output,
            proposals=options.proposals or options.compute,
            settings=options.settings,
            actors=options.actors,
            options=options.run,
            plan_options=options.planning,
        )
        print_lines(*plan.format_lines())
        return
    summary = run_detection(
        options.manifest,
        options.checkpoint,
        options.output,
        proposals=options.proposals or options.compute,
        settings=options.settings,
        actors=options.actors,
        options=options.run,
    )
    next_command: tuple[str, ...]
    if summary.labelled:
        score = ("detections", "--detections", options.output, "--manifest", options.manifest)
        next_command = ("jobs/analyze.py", *score, "--output", options.output)
    else:
        next_command = (
            "-c",
            _write_preview(uris.make_absolute(options.output), options.storage_options),
        )
    print_lines(*build_closing_lines(options, summary, *next_command))


def _write_preview(output: str, storage_options: str | None) -> str:
    """Python code that prints the first rows of an output in any store."""
    lines = ["from pipeline import shards, storage, store_options"]
    if storage_options is not None:
        content = f"storage.read({storage_options!r})"
        lines.append(
            f"store_options.set_options(store_options.parse_options({content}, {storage_options!r}))"
        )
    lines.append(
        f"print(next(shards.open_parts({output!r}).read_tables()).slice(0, 3).to_pylist())"
    )
    return "; ".join(lines)


if __name__ == "__main__":
    run(Detect, main, __doc__)
