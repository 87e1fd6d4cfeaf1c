"""Score a run's output against annotations, or compare the detections of two runs.

python jobs/analyze.py detections --detections out/detections --manifest test.parquet --output out

python jobs/analyze.py proposals --proposals out/proposals --manifest test.parquet --output out

python jobs/analyze.py compare --detections out/plain out/compressed --manifest test.parquet --output out

The job prints the scores and writes them to --output: `metrics.json` for detections, `metrics.json` with
the plot `recall.png` for proposals, and `comparison.json` for a comparison.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console

from jobs.entry import JobOptions, run
from pipeline import storage, uris
from pipeline.analysis import console_tables
from pipeline.analysis.comparison import compare
from pipeline.analysis.evaluation import evaluate
from pipeline.analysis.recall import evaluate_proposals
from pipeline.analysis.recall_plot import draw_recall_plot


@dataclass(frozen=True, kw_only=True)
class AnalyzeDetections(JobOptions):
    """Average precision of detections by the rules of VOC and COCO."""

    detections: str
    """Output folder of jobs/detect.py; any fsspec URI."""
    manifest: str
    """Annotated manifest from which the detections were made."""
    output: str
    """Folder for metrics.json; any fsspec URI."""


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


Analyze = (
    Annotated[AnalyzeDetections, tyro.conf.subcommand("detections")]
    | Annotated[AnalyzeProposals, tyro.conf.subcommand("proposals")]
    | Annotated[CompareRuns, tyro.conf.subcommand("compare")]
)


def main(options: AnalyzeDetections | AnalyzeProposals | CompareRuns) -> None:
    """Score the output, print the scores and write them."""
    storage.check_writable(options.output)
    if isinstance(options, AnalyzeDetections):
        analyze_detections(options)
    elif isinstance(options, CompareRuns):
        compare_runs(options)
    else:
        analyze_proposals(options)


def analyze_detections(options: AnalyzeDetections) -> None:
    """Print and write average precision, per class and mean."""
    metrics = evaluate(options.detections, options.manifest)
    console = Console()
    console.print(console_tables.build_class_table(metrics))
    console.print(console_tables.build_summary_table(metrics))
    _print_notes(console, metrics.notes)
    _write_metrics(console, options.output, metrics.to_json())


def compare_runs(options: CompareRuns) -> None:
    """Print and write the average precision of two runs and its difference."""
    comparison = compare(
        *options.detections, options.manifest, resamples=options.resamples, seed=options.seed
    )
    console = Console()
    for which, uri in zip(("first: ", "second:"), options.detections, strict=True):
        _print_line(console, f"{which} {uris.redact_uri(uris.make_absolute(uri))}")
    console.print(console_tables.build_comparison_table(comparison))
    _print_notes(console, comparison.notes)
    _write_metrics(console, options.output, comparison.to_json(), "comparison.json")


def analyze_proposals(options: AnalyzeProposals) -> None:
    """Print, plot and write recall by number of boxes, class and size."""
    recall = evaluate_proposals(options.proposals, options.manifest)
    console = Console()
    console.print(console_tables.build_group_table("class", recall.per_class))
    console.print(console_tables.build_group_table("size", recall.per_size))
    console.print(console_tables.build_budget_table(recall))
    console.print(console_tables.build_proposals_summary_table(recall))
    _print_notes(console, recall.notes)
    storage.put(uris.join(options.output, "recall.png"), draw_recall_plot(recall))
    _write_metrics(console, options.output, recall.to_json())


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        _print_line(console, f"note: {note}")


def _print_line(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _write_metrics(
    console: Console, output: str, metrics: dict[str, Any], name: str = "metrics.json"
) -> None:
    uri = uris.join(output, name)
    storage.put(uri, json.dumps(metrics, indent=2, allow_nan=False).encode() + b"\n")
    _print_line(console, f"wrote {uris.redact_uri(uri)}")


if __name__ == "__main__":
    run(Analyze, main, __doc__)
