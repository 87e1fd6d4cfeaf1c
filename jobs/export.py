"""Export detections, or the annotations of a manifest, in another tool's format.

python jobs/export.py --detections out/detections --manifest test.parquet --format coco --output out/coco

python jobs/export.py --manifest test.parquet --format voc --output out/voc

Images are not copied. `left_out.csv` in the output lists the images that failed or are not annotated. Running
the same command again does only what is left.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import shlex
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.entry import JobOptions, print_lines, run
from pipeline import uris
from pipeline.analysis.score_thresholds import read_thresholds
from pipeline.engine.export.run import ExportResult, ExportSettings, run_export
from pipeline.exports.construction import FormatName
from pipeline.option_ranges import check_fields
from pipeline.runs.options import MOST_SECONDS
from pipeline.runs.placement import PlacementOptions
from pipeline.sources.tally import describe_count

LISTED_CLASSES = 30
"""Classes that the next command may name; more are in classes.txt."""


@dataclass(frozen=True, kw_only=True)
class Export(JobOptions):
    """Options of the export job."""

    manifest: str
    """Manifest of the images; any fsspec URI."""
    detections: str | None = None
    """Output folder of jobs/detect.py over these images; without it, the annotations are exported."""
    format: FormatName
    """The format. A manifest without detections exports as coco or voc."""
    output: str
    """Folder for the files; any fsspec URI."""
    min_score: float = 0.0
    """Leave out detections with a lower score."""
    thresholds: str | None = None
    """A thresholds.json of jobs/analyze.py: the lowest score per class."""
    labels: tuple[str, ...] = ()
    """Export the boxes of these classes only; the numbers of classes stay the same."""
    as_annotations: bool = False
    """Write detections as if they were annotations, to train on or to correct: a COCO instances file, or YOLO
    labels without scores."""
    image_prefix: str | None = None
    """What label-studio writes in place of the folder that holds all images, if it cannot open that folder:
    an address, or "/data/local-files/?d=photos" for the folder photos of its local storage."""
    placement: Annotated[PlacementOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=PlacementOptions
    )
    no_capacity_after: float = 300.0
    """Seconds to wait for a free core of the cluster, if the export is done in Ray tasks."""
    overwrite: bool = False
    """Remove an earlier export from the output and start from nothing."""

    def __post_init__(self) -> None:
        check_fields(self, "min_score", at_least=0, at_most=1)
        check_fields(self, "no_capacity_after", above=0, below=MOST_SECONDS)


def main(options: Export) -> None:
    """Export, and print counts, files and the next command."""
    thresholds = None if options.thresholds is None else read_thresholds(options.thresholds)
    result = run_export(
        ExportSettings(
            options.format,
            options.min_score,
            options.labels,
            thresholds,
            options.as_annotations,
            options.image_prefix,
        ),
        options.manifest,
        options.output,
        options.detections,
        overwrite=options.overwrite,
        placement=options.placement.placement,
        no_capacity_after=options.no_capacity_after,
    )
    print_lines(*describe(result, options))


def describe(result: ExportResult, options: Export) -> list[str]:
    """The lines that the job prints at the end."""
    counts, output = result.counts, uris.redact_uri(uris.make_absolute(options.output))
    state = "already complete: " if result.was_complete else ""
    left_out = ""
    if counts.left_out:
        left_out = f"; {describe_count(counts.left_out, 'image')} left out, see left_out.csv"
    boxes = describe_count(counts.boxes, "object" if options.detections is None else "detection")
    lines = [f"{state}{describe_count(counts.images, 'image')}, {boxes}{left_out}: {output}"]
    root = result.facts.root
    folder = {"voc": "JPEGImages", "yolo": "images"}.get(options.format)
    if folder and root:
        lines.append(
            f"the images are in {uris.redact_uri(root)}: link or copy it to {folder} there"
        )
    if options.detections is None:
        lines.append(f"to read it again: {shlex.join(_suggest_prepare(result, options))}")
    return lines


def _suggest_prepare(result: ExportResult, options: Export) -> list[str]:
    output = uris.redact_uri(options.output)
    if options.format == "coco":
        root = uris.redact_uri(result.facts.root or "IMAGES")
        inputs = ["coco", "--annotations", uris.join(output, "instances.json"), "--images", root]
    else:
        classes = result.facts.classes
        names = classes if len(classes) <= LISTED_CLASSES else ("CLASSES",)
        inputs = ["voc", "--root", output, "--split", "all", "--classes", *names]
    return ["python", "jobs/prepare.py", *inputs, "--output", "MANIFEST"]


if __name__ == "__main__":
    run(Export, main, __doc__)
