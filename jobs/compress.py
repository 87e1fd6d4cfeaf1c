"""Factorise the fully connected layers of a checkpoint by truncated SVD, for faster detection.

python jobs/compress.py --checkpoint out/checkpoint --output out/compressed --fc6 1024 --fc7 256

Fast R-CNN, section 3.1: fc6 and fc7 become two layers each, without a non-linearity between them. The
output is a checkpoint like any other. The job prints parameters, multiply-adds and the time per image, layer
by layer, before and after; with --manifest and --proposals also the mean average precision of both networks.
OUTPUT/summary.json has the same figures.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

from dataclasses import dataclass

from rich.console import Console
from rich.table import Column, Table

from jobs import entry
from pipeline import uris
from pipeline.engine.compress import CompressionSummary, run_compression
from pipeline.engine.train.validation import Validation
from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields


@dataclass(frozen=True, kw_only=True)
class Compress(entry.JobOptions):
    """Options of the compress job."""

    checkpoint: str
    """Checkpoint of a network with fc6 and fc7: the output folder of jobs/train.py; any fsspec URI."""
    output: str
    """Folder for the compressed checkpoint; any fsspec URI."""
    fc6: int = 1024
    """Number of singular values to keep of fc6 (section 4.4)."""
    fc7: int = 256
    """Number of singular values to keep of fc7."""
    overwrite: bool = False
    """Replace another checkpoint in the output."""
    rois: int = 2000
    """Number of RoIs assumed when reporting multiply-adds and time."""
    repeats: int = 5
    """Number of images to time with each network; the job prints the median. 0 measures no time."""
    manifest: str | None = None
    """Annotated images to score both networks on; needs --proposals."""
    proposals: str | None = None
    """Stored proposals (jobs/propose.py) of these images."""
    images: int = 5000
    """Maximum number of images to score, counted from the first."""

    def __post_init__(self) -> None:
        check_fields(self, "fc6", "fc7", "rois", "images", at_least=1)
        check_fields(self, "repeats", at_least=0)
        if (self.manifest is None) != (self.proposals is None):
            raise InvalidConfiguration("--manifest and --proposals must be passed together")


def main(options: Compress) -> None:
    """Compress the checkpoint and print what it gains and costs.

    Raises:
        PipelineError: as `run_compression` raises it.
    """
    summary = run_compression(
        options.checkpoint,
        options.output,
        (options.fc6, options.fc7),
        overwrite=options.overwrite,
        rois=options.rois,
        repeats=options.repeats,
        validation=Validation(options.manifest, options.proposals, images=options.images),
    )
    Console().print(_build_table(summary, options.rois))
    entry.print_lines(f"checkpoint: {uris.redact_uri(summary.output)}")


def _build_table(summary: CompressionSummary, rois: int) -> Table:
    numbers = [Column(name, justify="right") for name in ("before", "after", "after / before")]
    title = f"an image of {summary.shape[0]} x {summary.shape[1]} pixels, {rois} RoIs"
    table = Table("", *numbers, title=title)
    for figure in summary.figures:
        table.add_row(figure.name, *figure.format_cells())
    return table


if __name__ == "__main__":
    entry.run(Compress, main, __doc__)
