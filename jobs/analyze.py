"""Score what a run wrote against annotations, or compare the detections of two runs.

python jobs/analyze.py detections --detections out/detections --manifest test.parquet --output out

python jobs/analyze.py proposals --proposals out/proposals --manifest test.parquet --output out

python jobs/analyze.py compare --detections out/plain out/compressed --manifest test.parquet --output out

The figures are printed and, as `metrics.json`, written to --output; for proposals also `recall.png`, for
a comparison `comparison.json` alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from jobs.entry import JobOptions, run
from pipeline import storage
from pipeline.analysis import tables
from pipeline.analysis.comparison import compare
from pipeline.analysis.evaluation import evaluate
from pipeline.analysis.recall import proposal_recall
from pipeline.analysis.recall_plot import recall_plot


@dataclass(frozen=True, kw_only=True)
class Detections(JobOptions):
    """Average precision of detections by the rules of VOC and of COCO."""

    detections: str
    """Output of detect: a folder on any store."""
    manifest: str
    """The manifest that was detected on, with annotations."""
    output: str
    """Folder for metrics.json."""


@dataclass(frozen=True, kw_only=True)
class Proposals(JobOptions):
    """Recall and mean average best overlap of proposals."""

    proposals: str
    """Output of propose: a folder on any store."""
    manifest: str
    """The manifest that the proposals were made from, with annotations."""
    output: str
    """Folder for metrics.json and recall.png."""


@dataclass(frozen=True, kw_only=True)
class Compare(JobOptions):
    """The difference in average precision of two runs over the same images, with its interval.

    The interval is a paired bootstrap's over the images: 95 % of the differences over resampled
    images lie in it. What another training, with another seed, would change is not in it.
    """

    detections: tuple[str, str]
    """Two outputs of detect; the difference is the second's less the first's."""
    manifest: str
    """The manifest that both were made from, with annotations."""
    output: str
    """Folder for comparison.json."""
    resamples: int = 1000
    """Times that the images are drawn anew."""
    seed: int = 0
    """Seed of the draws."""


def main(options: Detections | Proposals | Compare) -> None:
    """Score, print, and write the figures."""
    storage.check_writable(options.output)
    if isinstance(options, Detections):
        analyze_detections(options)
    elif isinstance(options, Compare):
        analyze_difference(options)
    else:
        analyze_proposals(options)


def analyze_detections(options: Detections) -> None:
    """Average precision, per class and mean."""
    metrics = evaluate(options.detections, options.manifest)
    console = Console()
    console.print(tables.per_class_table(metrics))
    console.print(tables.summary_table(metrics))
    _print_notes(console, metrics.notes)
    _write_metrics(console, options.output, metrics.to_json())


def analyze_difference(options: Compare) -> None:
    """Average precision of two runs side by side."""
    found = compare(
        *options.detections, options.manifest, resamples=options.resamples, seed=options.seed
    )
    console = Console()
    for which, uri in zip(("first: ", "second:"), options.detections, strict=True):
        _print_line(console, f"{which} {storage.shown(storage.absolute(uri))}")
    console.print(tables.comparison_table(found))
    _print_notes(console, found.notes)
    _write_metrics(console, options.output, found.to_json(), "comparison.json")


def analyze_proposals(options: Proposals) -> None:
    """Recall by number of boxes, class and size."""
    recall = proposal_recall(options.proposals, options.manifest)
    console = Console()
    console.print(tables.group_table("class", recall.per_class))
    console.print(tables.group_table("size", recall.per_size))
    console.print(tables.budget_table(recall))
    console.print(tables.proposals_summary_table(recall))
    _print_notes(console, recall.notes)
    storage.put(storage.join(options.output, "recall.png"), recall_plot(recall))
    _write_metrics(console, options.output, recall.to_json())


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        _print_line(console, f"note: {note}")


def _print_line(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _write_metrics(
    console: Console, output: str, metrics: dict[str, Any], name: str = "metrics.json"
) -> None:
    uri = storage.join(output, name)
    storage.put(uri, json.dumps(metrics, indent=2, allow_nan=False).encode() + b"\n")
    _print_line(console, f"wrote {storage.shown(uri)}")


if __name__ == "__main__":
    run(Detections | Proposals | Compare, main, __doc__)
