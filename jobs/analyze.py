"""Score a run's output against annotations, compare the detections of two runs, or check a dataset.

python jobs/analyze.py detections --detections out/detections --manifest test.parquet --output out

python jobs/analyze.py proposals --proposals out/proposals --manifest test.parquet --output out/recall

python jobs/analyze.py compare --detections out/plain out/compressed --manifest test.parquet --output out

python jobs/analyze.py dataset --manifest train.parquet --against test.parquet --output out

python jobs/analyze.py sql --detections out/detections "SELECT label, count(*) FROM detections GROUP BY ALL"

The job writes the scores to --output and prints them: `metrics.json` for detections, with one row per
detection and missed object in `matches/`, a Parquet file per diagnostic, and the pages of `report/`;
`metrics.json` with the plot `recall.png` for proposals; `comparison.json` for a comparison; and
`dataset.json` with the list of images to leave out for a dataset.
"""

from __future__ import annotations

if not __package__:  # run as a script: fail in one line if this Python lacks the project's packages
    __import__("installation")

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro
from rich.console import Console

from jobs.analyze_dataset import AnalyzeDataset, analyze_dataset
from jobs.analyze_sql import AnalyzeSql, query
from jobs.entry import JobOptions, print_lines, run
from pipeline import shards, storage, uris
from pipeline.analysis import console_tables
from pipeline.analysis.comparison import compare
from pipeline.analysis.diagnostics import DiagnosticOptions
from pipeline.analysis.recall import evaluate_proposals
from pipeline.analysis.recall_plot import draw_recall_plot
from pipeline.analysis.side_table import read_side_table
from pipeline.engine.analyze import run as analysis_run
from pipeline.engine.analyze.run import AnalysisOptions
from pipeline.manifests import open_manifest
from pipeline.option_ranges import check_fields
from pipeline.report.comparison_drawing import ComparedRuns
from pipeline.report.comparison_report import write_comparison_report
from pipeline.report.writing import ReportOptions
from pipeline.runs.input_places import check_apart
from pipeline.sources.tally import describe_count

WRITES = (
    *(
        "metrics.json",
        "comparison.json",
        "recall.png",
        "thresholds.json",
        "matches/*",
        "report/*",
        "comparison/*",
    ),
    *("distributions.parquet", "operating_points.parquet", "tide.parquet", "confusion.parquet"),
    *("calibration.parquet", "misses.parquet", "slices.parquet", "annotation_errors.parquet"),
    "annotation_errors_by_image.parquet",
)
"""The files that the job writes into its output."""


@dataclass(frozen=True, kw_only=True)
class AnalyzeDetections(JobOptions):
    """Average precision of detections by the rules of VOC and COCO, and how each detection was judged."""

    detections: str
    """Output folder of jobs/detect.py; any fsspec URI."""
    manifest: str
    """Annotated manifest from which the detections were made."""
    output: str
    """Folder for metrics.json, the diagnostics, and the folders matches and report; any fsspec URI."""
    proposals: str | None = None
    """Stored proposals of these images, to tell which objects no proposal covers; by default those that the
    detections were made from, if they were stored."""
    exclude: str | None = None
    """Parquet list of images, such as exclude.parquet of analyze dataset: the scores are stated without them,
    too."""
    slices: str | None = None
    """Parquet or CSV file with a column image_id; each other column divides the images into slices."""
    score: float | None = None
    """The lowest score that counts in the confusion matrix, misses and slices; by default the best for F1."""
    iou: float = 0.5
    """The lowest IoU of a detection with its object in the confusion matrix."""
    resamples: int = 1000
    """Bootstrap resamples of the images for the intervals; 0 computes none."""
    seed: int = 0
    """Seed of the resamples, and of the images in the report."""
    report: bool = True
    """Write the report, static pages that open from a disk or bucket."""
    report_images: int = 2000
    """The most images in the report."""
    analysis: Annotated[AnalysisOptions, tyro.conf.OmitArgPrefixes] = field(
        default_factory=AnalysisOptions
    )

    def __post_init__(self) -> None:
        check_fields(self, "score", "iou", at_least=0, at_most=1)
        check_fields(self, "resamples", "report_images", "seed", at_least=0)


@dataclass(frozen=True, kw_only=True)
class AnalyzeProposals(JobOptions):
    """Recall and mean average best overlap of proposals."""

    proposals: str
    """Output folder of jobs/propose.py; any fsspec URI."""
    manifest: str
    """Annotated manifest from which the proposals were made."""
    output: str
    """Folder for metrics.json and recall.png; any fsspec URI."""


@dataclass(frozen=True, kw_only=True)
class CompareRuns(JobOptions):
    """Difference in average precision between two runs over the same images, with its interval.

    The interval comes from a paired bootstrap over the images: it contains 95 % of the differences
    over resampled images. It does not cover the variation between trainings with different seeds.
    """

    detections: tuple[str, str]
    """Two output folders of jobs/detect.py; the difference is the second minus the first."""
    manifest: str
    """Annotated manifest from which both were made."""
    output: str
    """Folder for comparison.json; any fsspec URI."""
    resamples: int = 1000
    """Number of bootstrap resamples."""
    seed: int = 0
    """Seed of the resamples."""
    report: bool = True
    """Write the report, static pages with both runs side by side."""
    report_images: int = 1000
    """The most images in the report."""

    def __post_init__(self) -> None:
        check_fields(self, "report_images", "seed", at_least=0)


Analyze = (
    Annotated[AnalyzeDetections, tyro.conf.subcommand("detections")]
    | Annotated[AnalyzeProposals, tyro.conf.subcommand("proposals")]
    | Annotated[CompareRuns, tyro.conf.subcommand("compare")]
    | Annotated[AnalyzeDataset, tyro.conf.subcommand("dataset")]
    | Annotated[AnalyzeSql, tyro.conf.subcommand("sql")]
)


def main(
    options: AnalyzeDetections | AnalyzeProposals | CompareRuns | AnalyzeDataset | AnalyzeSql,
) -> None:
    """Score the output, write the scores and print them, check a dataset, or do a query."""
    if isinstance(options, AnalyzeSql):
        query(options)
        return
    if isinstance(options, AnalyzeDataset):
        analyze_dataset(options)
        return
    _check_places(options)
    storage.check_writable(options.output)
    if isinstance(options, AnalyzeDetections):
        analyze_detections(options)
    elif isinstance(options, CompareRuns):
        compare_runs(options)
    else:
        analyze_proposals(options)


def _check_places(options: AnalyzeDetections | AnalyzeProposals | CompareRuns) -> None:
    """Reject an output in which a score would replace an input; the folder itself may be shared.

    Raises:
        InvalidConfiguration: an input is one of the files that the job writes.
    """
    names = ("manifest", "detections", "proposals", "slices", "exclude")
    inputs = {name: getattr(options, name, None) for name in names}
    check_apart(options.output, inputs, WRITES, may_share_folder=True)


def analyze_detections(options: AnalyzeDetections) -> None:
    """Write matches, metrics, diagnostics and the report, and print average precision."""
    side = None if options.slices is None else read_side_table(options.slices)
    with analysis_run.analyze_detections(
        options.detections,
        options.manifest,
        options.output,
        proposals_uri=options.proposals,
        exclude_uri=options.exclude,
        options=options.analysis,
    ) as analysis:
        metrics = analysis.compute_metrics()
        diagnostics = analysis.compute_diagnostics(metrics, _choose_diagnostics(options), side)
        content = analysis.build_content(metrics, diagnostics)
        written = _write_metrics(options.output, content)
        analysis.write_tables(options.output, diagnostics)
        console = Console()
        console.print(console_tables.build_class_table(metrics))
        console.print(console_tables.build_summary_table(metrics))
        print_lines(*_describe_excluded(content))
        _print_end(content["notes"], written)
        if options.report:
            choice = ReportOptions(images=options.report_images, seed=options.seed)
            report = analysis.write_report(options.output, content, choice, side)
            print_lines(f"report: {uris.redact_uri(report.uri)}")


def _describe_excluded(content: dict[str, Any]) -> list[str]:
    """The scores without the excluded images, if there is a list of them."""
    excluded = content["excluded"]
    if excluded is None:
        return []
    shown = [
        f"{name} {content[name]:.4f} -> {excluded['without'][name]:.4f}"
        for name in ("voc07_map50", "voc_map50", "coco_ap")
        if content[name] is not None and excluded["without"][name] is not None
    ]
    return [
        f"without {describe_count(excluded['images'], 'excluded image')}: {', '.join(shown) or 'no scores'}"
    ]


def _choose_diagnostics(options: AnalyzeDetections) -> DiagnosticOptions:
    return DiagnosticOptions(
        min_score=options.score,
        confusion_iou=options.iou,
        resamples=options.resamples,
        seed=options.seed,
    )


def compare_runs(options: CompareRuns) -> None:
    """Write and print the average precision of two runs and its difference."""
    comparison = compare(
        *options.detections, options.manifest, resamples=options.resamples, seed=options.seed
    )
    written = _write_metrics(options.output, comparison.to_json(), "comparison.json")
    for which, uri in zip(("first: ", "second:"), options.detections, strict=True):
        print_lines(f"{which} {uris.redact_uri(uris.make_absolute(uri))}")
    Console().print(console_tables.build_comparison_table(comparison))
    _print_end(comparison.notes, written)
    if options.report:
        first, second = (shards.open_parts(uri) for uri in options.detections)
        classes = tuple(row.label for row in comparison.per_class)
        manifest = open_manifest(options.manifest)
        runs = ComparedRuns(first, second, manifest, classes, comparison.scores)
        report = write_comparison_report(
            options.output, comparison, runs, images=options.report_images
        )
        print_lines(f"report: {uris.redact_uri(report)}")


def analyze_proposals(options: AnalyzeProposals) -> None:
    """Write, plot and print recall by number of boxes, class and size."""
    recall = evaluate_proposals(options.proposals, options.manifest)
    storage.put(uris.join(options.output, "recall.png"), draw_recall_plot(recall))
    written = _write_metrics(options.output, recall.to_json())
    console = Console()
    console.print(console_tables.build_group_table("class", recall.per_class))
    console.print(console_tables.build_group_table("size", recall.per_size))
    console.print(console_tables.build_budget_table(recall))
    console.print(console_tables.build_proposals_summary_table(recall))
    _print_end(recall.notes, written)


def _write_metrics(output: str, metrics: dict[str, Any], name: str = "metrics.json") -> str:
    """Write the scores before anything is printed, as a reader such as `head` may close the pipe."""
    uri = uris.join(output, name)
    storage.put(uri, json.dumps(metrics, indent=2, allow_nan=False).encode() + b"\n")
    return uri


def _print_end(notes: Sequence[str], written: str) -> None:
    print_lines(*(f"note: {note}" for note in notes), f"wrote {uris.redact_uri(written)}")


if __name__ == "__main__":
    run(Analyze, main, __doc__)
