"""Detect objects in every image of a manifest with a trained checkpoint.

Takes stored proposals (jobs/propose.py) or computes them on the way, detects on all GPUs, or cores
where there is none, and writes one Parquet part per shard: one row per image, its detections nested.
A rerun of the same command does only what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from jobs import entry
from pipeline import storage
from pipeline.detector.keep import Keep
from pipeline.detector.pyramid import Pyramid
from pipeline.engine.detect import run as detection_run
from pipeline.engine.detect.run import DetectionSettings
from pipeline.errors import InvalidConfiguration
from pipeline.proposals.settings import ProposalSettings
from pipeline.runs.options import RunOptions


@dataclass(frozen=True, kw_only=True)
class Detect(entry.JobOptions):
    """Options of the detect job."""

    manifest: str
    """Manifest: a Parquet file or a folder of them; any fsspec URI."""
    checkpoint: str
    """Checkpoint: the output folder of jobs/train.py; any fsspec URI."""
    output: str
    """Folder for the detections; any fsspec URI."""
    proposals: str | None = None
    """Stored proposals of these images; without them they are computed on the way."""
    max_proposals: int | None = None
    """Score only so many of an image's stored proposals, the best; unset: all."""
    compute: Annotated[ProposalSettings, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ProposalSettings
    )
    keep: Annotated[Keep, tyro.conf.OmitArgPrefixes] = field(default_factory=Keep)
    pyramid: Annotated[Pyramid, tyro.conf.OmitArgPrefixes] = field(default_factory=Pyramid)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the network; auto takes bf16 where the first detector's device computes in it, and
    reruns and the other detectors keep to that; fp16 needs a device that has it."""
    actors: int | None = None
    """Detector actors; by default one per GPU, or one per core where there is no GPU. Which of the two is
    settled when the job starts: nodes that join later are used in that way."""
    gpus_per_actor: float | None = None
    """GPUs of one actor; fractions share a GPU, 0 computes on cores."""
    run: Annotated[RunOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise InvalidConfiguration(f"--actors is {self.actors}, expected more than 0")
        gpus = self.gpus_per_actor
        if gpus is not None and (gpus < 0 or (gpus > 1 and not float(gpus).is_integer())):
            raise InvalidConfiguration(
                f"--gpus-per-actor is {gpus}, expected a share between 0 and 1 or a whole number"
            )


def main(options: Detect) -> None:
    """Run the job.

    Raises:
        InvalidConfiguration: stored proposals together with options of how to compute or cut them, or
            a cap on stored proposals without any.
    """
    if options.proposals is None and options.max_proposals is not None:
        raise InvalidConfiguration(
            "--max-proposals takes the best of stored --proposals; for computed ones there is --max-boxes"
        )
    if options.proposals is not None and options.run.shard_size is not None:
        raise InvalidConfiguration("--proposals come with their shards: leave out --shard-size")
    if options.proposals is not None and options.compute != ProposalSettings():
        raise InvalidConfiguration(
            "--proposals takes stored boxes as they are: leave out --strategy, --max-boxes, --min-side, "
            "--max-side, --seed and --backend"
        )
    summary = detection_run.run(
        options.manifest,
        options.checkpoint,
        options.output,
        proposals=options.proposals or options.compute,
        settings=DetectionSettings(
            keep=options.keep,
            precision=options.precision,
            pyramid=options.pyramid,
            max_proposals=options.max_proposals,
        ),
        actors=options.actors,
        gpus_per_actor=options.gpus_per_actor,
        options=options.run,
    )
    following: tuple[str, ...]
    if summary.labelled:
        score = ("detections", "--detections", options.output, "--manifest", options.manifest)
        following = ("jobs/analyze.py", *score, "--output", options.output)
    else:
        following = ("-c", _rows_shown(storage.absolute(options.output), options.storage_options))
    print(entry.told(options, summary, *following))


def _rows_shown(output: str, storage_options: str | None) -> str:
    """Python that prints the first rows of an output, wherever it lies."""
    lines = ["from pipeline import shards, storage, store_options"]
    if storage_options is not None:
        told = f"storage.read({storage_options!r})"
        lines.append(f"store_options.use(store_options.parse({told}, {storage_options!r}))")
    lines.append(f"print(next(shards.open_parts({output!r}).tables()).slice(0, 3).to_pylist())")
    return "; ".join(lines)


if __name__ == "__main__":
    entry.run(Detect, main, __doc__)
