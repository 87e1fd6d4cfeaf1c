"""Score what a run wrote against annotations: detections by average precision, proposals by recall.

python jobs/analyze.py detections --detections out/detections --manifest test.parquet --output out

python jobs/analyze.py proposals --proposals out/proposals --manifest test.parquet --output out

The figures are printed and, as `metrics.json`, written to --output; for proposals also `recall.png`.
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


def main(options: Detections | Proposals) -> None:
    """Score, print, and write the figures."""
    storage.check_writable(options.output)
    if isinstance(options, Detections):
        analyze_detections(options)
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
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)


def _write_metrics(console: Console, output: str, metrics: dict[str, Any]) -> None:
    uri = storage.join(output, "metrics.json")
    storage.put(uri, json.dumps(metrics, indent=2, allow_nan=False).encode() + b"\n")
    console.print(f"wrote {storage.shown(uri)}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(Detections | Proposals, main, __doc__)
