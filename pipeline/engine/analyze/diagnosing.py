"""The diagnostics of an analysis: counted group by group by any executor, then merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline import uris
from pipeline.analysis.diagnostics import DiagnosticCounts, DiagnosticOptions, Diagnostics
from pipeline.analysis.distributions import select_detections
from pipeline.analysis.executor import Executor
from pipeline.analysis.image_facts import read_image_facts
from pipeline.analysis.match_table import read_matches
from pipeline.analysis.side_table import SideTable
from pipeline.engine.analyze.match_groups import MatchGroup, retry_store
from pipeline.manifests import Manifest
from pipeline.schema import MATCHES
from pipeline.shards import Parts, Shard

RESULT_COLUMNS = ("image_id", "width", "height", "status", "stage", "error_type")


@dataclass(frozen=True)
class DiagnosticSources:
    """What all groups share."""

    manifest: Manifest
    detections: Parts
    """Without its shards."""
    classes: tuple[str, ...]
    options: DiagnosticOptions
    side: SideTable | None


def diagnose(
    groups: Sequence[MatchGroup],
    shards: Mapping[int, Shard],
    sources: DiagnosticSources,
    executor: Executor,
    scores: Mapping[str, float | None],
) -> Diagnostics:
    """Compute all diagnostics.

    Args:
        groups: the parts of matches.
        shards: those of the detections, by ordinal.
        sources: what all groups share.
        executor: counts the groups.
        scores: means of average precision by name, on which intervals are centred.
    """
    shared = executor.share(sources)
    calls = (
        (shared, group, [shards[shard.ordinal] for shard in group.parts.shards]) for group in groups
    )
    whole: DiagnosticCounts = executor.reduce(_count_group, calls, _merge)
    return whole.compute(scores)


def _merge(first: DiagnosticCounts, second: DiagnosticCounts) -> DiagnosticCounts:
    first.merge(second)
    return first


def _count_group(
    sources: DiagnosticSources, group: MatchGroup, of_detections: Sequence[Shard]
) -> DiagnosticCounts:
    counts = DiagnosticCounts(sources.classes, sources.options, sources.side)
    tables = group.read_tables([name for name in MATCHES.names if name != "image_id"])
    for (shard, table), of_results in zip(tables, of_detections, strict=True):
        matches = read_matches(table, uris.join(group.parts.uri, shard.part_name))
        results = retry_store(lambda part=of_results: sources.detections.read(part, RESULT_COLUMNS))  # type: ignore[misc]
        sizes = None
        if any(results.column(name).null_count for name in ("width", "height")):
            sizes = sources.manifest.read(shard.first_row, shard.rows, ["width", "height"])
        counts.update(matches, read_image_facts(results, shard.first_row, sizes))
        detections = select_detections(matches, shard.first_row, len(sources.classes))
        counts.update_distributions(results, detections)
    return counts
