"""What is computed from the matches of an analysis once they are committed."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import storage, uris
from pipeline.analysis.detection_metrics import DetectionMetrics
from pipeline.analysis.diagnostics import DEFAULT_SCORE, DiagnosticOptions, Diagnostics
from pipeline.analysis.executor import Executor
from pipeline.analysis.metric_summary import summarize_detections
from pipeline.analysis.resampling import limit_share
from pipeline.analysis.score_thresholds import write_thresholds
from pipeline.analysis.side_table import SideTable
from pipeline.engine.analyze.diagnosing import DiagnosticSources, diagnose
from pipeline.engine.analyze.inputs import AnalysisInputs
from pipeline.engine.analyze.match_groups import GROUP_ROWS, MatchGroup, group_parts
from pipeline.engine.analyze.reduction import ReducedMatches, reduce_matches
from pipeline.excluded_images import ExcludedImages
from pipeline.report.provenance import collect_provenance
from pipeline.report.shard_steps import ReportSources
from pipeline.report.writing import ReportOptions, ReportSummary, write_report
from pipeline.run_record import RunRecord
from pipeline.runs.summary import Summary
from pipeline.shards import Parts, encode_part

log = logging.getLogger(__name__)

COMPARED_METRICS = (
    *("voc07_map50", "voc_map50", "coco_ap", "coco_ap50", "coco_ap75"),
    *("coco_ar_100", "objects", "detections"),
)
"""The metrics that are stated without the excluded images, too."""
CALLS_PER_CORE = 8
"""Groups per core in a reduction whose values are large: with fewer, cores would wait for the last ones."""


@contextlib.contextmanager
def log_seconds(step: str) -> Iterator[None]:
    """Log how long the block took."""
    start = perf_counter()
    yield
    log.info("%s: %.1f s", step, perf_counter() - start)


@dataclass(frozen=True)
class CommittedAnalysis:
    """The matches of a detection run, and an executor for what is computed from them."""

    inputs: AnalysisInputs
    record: RunRecord
    matches: Parts
    """Of all shards, or of those that a partial analysis covers."""
    summary: Summary
    executor: Executor
    excluded: ExcludedImages | None = None
    """Images without which the metrics are computed as well."""

    @property
    def is_partial(self) -> bool:
        """Whether the detection run lacks shards."""
        return bool(self.inputs.left_out)

    def group_matches(self, rows: int = GROUP_ROWS) -> list[MatchGroup]:
        """Group the parts of matches for the executor's tasks."""
        counts = {ordinal: part.detections for ordinal, part in self.inputs.sources.items()}
        return group_parts(self.matches, counts, len(self.inputs.classes), rows)

    @cached_property
    def reduced(self) -> ReducedMatches:
        """What the metrics are computed from."""
        with log_seconds("metrics"):
            return reduce_matches(self.group_matches(), self.inputs.classes, self.executor)

    def compute_metrics(self) -> DetectionMetrics:
        """Reduce the matches to the metrics."""
        classes, reduced = self.inputs.classes, self.reduced
        notes = [*self.inputs.notes, *self._describe_partial()]
        return summarize_detections(
            classes,
            reduced.images,
            self.inputs.manifest.rows,
            reduced.sums,
            reduced.precision,
            notes=notes,
            is_partial=self.is_partial,
        )

    @cached_property
    def excluded_rows(self) -> NDArray[np.int64] | None:
        """The rows of the covered images that the list of excluded ones names; None without a list."""
        if self.excluded is None:
            return None
        manifest, images = self.inputs.manifest, sum(shard.rows for shard in self.inputs.shards)
        rows = self.excluded.find_rows(manifest, images)
        shards = self.matches.shards
        is_covered = np.zeros(len(rows), bool)
        for shard in shards:
            is_covered |= (rows >= shard.first_row) & (rows < shard.first_row + shard.rows)
        if len(self.excluded) and not is_covered.any():
            log.warning(
                "--exclude %s names %d images, but none of these",
                uris.redact_uri(self.excluded.uri),
                len(self.excluded),
            )
        return rows[is_covered]

    def describe_without_excluded(self) -> dict[str, Any] | None:
        """The metrics without the excluded images, as metrics.json holds them; None without a list."""
        rows, classes = self.excluded_rows, self.inputs.classes
        if rows is None or self.excluded is None:
            return None
        with log_seconds("metrics without the excluded images"):
            groups = [replace(group, left_out=rows) for group in self.group_matches()]
            reduced = reduce_matches(groups, classes, self.executor)
        metrics = summarize_detections(
            classes,
            self.reduced.images,
            self.inputs.manifest.rows,
            reduced.sums,
            reduced.precision,
            is_partial=self.is_partial,
        ).to_json()
        return {
            "list": uris.redact_uri(self.excluded.uri),
            "digest": self.excluded.digest,
            "listed": len(self.excluded),
            "images": len(rows),
            "without": {name: metrics[name] for name in COMPARED_METRICS},
            "per_class": metrics["per_class"],
        }

    def compute_diagnostics(
        self, metrics: DetectionMetrics, options: DiagnosticOptions, side: SideTable | None = None
    ) -> Diagnostics:
        """Compute the diagnostics of `analysis.diagnostics` from the matches.

        Args:
            metrics: of the same matches; intervals are centred on them.
            options: how to compute.
            side: a table whose columns divide the images into slices.
        """
        inputs = self.inputs
        sources = DiagnosticSources(
            inputs.manifest,
            replace(inputs.detections, shards=()),
            inputs.classes,
            self._complete(options),
            side,
        )
        scores = {
            name: value
            for name, value in metrics.to_json().items()
            if value is None or isinstance(value, float)
        }
        shards = {shard.ordinal: shard for shard in inputs.detections.shards}
        rows = sum(part.detections for part in inputs.sources.values())
        calls = CALLS_PER_CORE * self.executor.count_cores()
        groups = self.group_matches(max(GROUP_ROWS, rows // calls))
        with log_seconds("diagnostics"):
            return diagnose(groups, shards, sources, self.executor, scores)

    def _complete(self, options: DiagnosticOptions) -> DiagnosticOptions:
        """What the metrics' sums say beforehand, so that the diagnostics count less."""
        reduced, score = self.reduced, options.min_score
        if score is None:
            score = DEFAULT_SCORE if reduced.best_score is None else reduced.best_score
        share = limit_share(
            reduced.images.images - reduced.images.unlabelled,
            int(reduced.sums.class_detections.sum()),
        )
        return replace(options, min_score=score, sampled_share=share)

    def build_content(self, metrics: DetectionMetrics, diagnostics: Diagnostics) -> dict[str, Any]:
        """Build the content of metrics.json."""
        inputs = self.inputs
        provenance = collect_provenance(inputs.detections.uri, inputs.manifest.uri)
        return {
            **metrics.to_json(),
            **diagnostics.to_json(),
            "provenance": asdict(provenance),
            "excluded": self.describe_without_excluded(),
            "notes": [*metrics.notes, *diagnostics.notes],
        }

    def write_tables(self, output: str, diagnostics: Diagnostics) -> None:
        """Write each diagnostic as a Parquet file, and thresholds.json, beside metrics.json."""
        for name, table in diagnostics.tables.items():
            storage.put(uris.join(output, f"{name}.parquet"), encode_part(table))
        if diagnostics.thresholds is not None:
            write_thresholds(uris.join(output, "thresholds.json"), diagnostics.thresholds)

    def write_report(
        self,
        output: str,
        content: Mapping[str, Any],
        options: ReportOptions,
        side: SideTable | None = None,
    ) -> ReportSummary:
        """Write the report.

        Args:
            output: the folder of metrics.json.
            content: that of metrics.json.
            options: the number of images, and the seed of the samples.
            side: a table whose columns divide the images into slices.
        """
        inputs = self.inputs
        rows = self.excluded_rows
        sources = ReportSources(
            self.matches,
            inputs.detections,
            inputs.manifest,
            side,
            () if rows is None else tuple(rows.tolist()),
        )
        with log_seconds("report"):
            return write_report(output, content, sources, executor=self.executor, options=options)

    def _describe_partial(self) -> list[str]:
        if not self.is_partial:
            return []
        missing, all_shards = len(self.inputs.left_out), len(self.inputs.shards)
        return [
            f"PARTIAL: the detection run is not finished and lacks {missing} of {all_shards} shards; "
            "these numbers cover the others only and will change"
        ]
