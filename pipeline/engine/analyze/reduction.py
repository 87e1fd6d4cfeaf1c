"""The reductions over matches: sums, ranking and diagnostics, from groups of parts, by any executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline import uris
from pipeline.analysis.executor import Executor
from pipeline.analysis.image_counts import ImageCounts, add_image_counts
from pipeline.analysis.match_sums import (
    MATCH_COLUMNS,
    MatchSums,
    add_sums,
    select_ranking_rows,
    sum_matches,
)
from pipeline.analysis.match_table import read_matches
from pipeline.analysis.ranked_classes import score_groups
from pipeline.analysis.ranked_precision import ClassPrecision
from pipeline.analysis.score_buckets import BUCKET_ROWS
from pipeline.engine.analyze.match_groups import MatchGroup, read_image_counts

COLLECTED_TOGETHER = 8
"""Groups whose sums are in memory at once: with a thousand classes those of a group take up to 20 MB."""


@dataclass(frozen=True)
class ReducedMatches:
    """All that the metrics are computed from."""

    images: ImageCounts
    sums: MatchSums
    precision: list[ClassPrecision]
    """Of each class."""


def reduce_matches(
    groups: Sequence[MatchGroup], classes: int, executor: Executor, limit: int = BUCKET_ROWS
) -> ReducedMatches:
    """Reduce all groups; the outcome does not depend on the groups or the executor.

    Args:
        groups: the parts in the order of the manifest.
        classes: number of classes that are scored.
        executor: does the work on groups and buckets.
        limit: the most rows of a bucket.
    """
    handles = [executor.submit(_sum_group, group)[0] for group in groups]
    images, sums = ImageCounts(), add_sums([], classes)
    for start in range(0, len(handles), COLLECTED_TOGETHER):
        summed = executor.collect(handles[start : start + COLLECTED_TOGETHER])
        images = add_image_counts([images, *(counts for counts, _ in summed)])
        sums = add_sums([sums, *(of_group for _, of_group in summed)], classes)
    precision = score_groups(
        groups, sums.class_detections, sums.scores, sums.objects, executor, limit=limit
    )
    return ReducedMatches(images, sums, precision)


def _sum_group(group: MatchGroup) -> tuple[ImageCounts, MatchSums]:
    images, sums = [], []
    for shard, table in group.read_tables(MATCH_COLUMNS):
        uri = uris.join(group.parts.uri, shard.part_name)
        matches = read_matches(table, uri)
        rows = select_ranking_rows(matches, group.classes)
        images.append(read_image_counts(table, uri))
        sums.append(sum_matches(matches, rows, group.classes))
    return add_image_counts(images), add_sums(sums, group.classes)
