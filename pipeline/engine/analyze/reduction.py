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
from pipeline.analysis.operating_points import OperatingPointCounts
from pipeline.analysis.ranked_classes import score_groups
from pipeline.analysis.ranked_precision import ClassPrecision
from pipeline.analysis.score_buckets import BUCKET_ROWS
from pipeline.engine.analyze.match_groups import MatchGroup, read_image_counts


@dataclass(frozen=True)
class ReducedMatches:
    """All that the metrics are computed from."""

    images: ImageCounts
    sums: MatchSums
    precision: list[ClassPrecision]
    """Of each class."""
    best_score: float | None
    """The score with the best F1 over all classes; None if nothing is true."""


def reduce_matches(
    groups: Sequence[MatchGroup],
    classes: Sequence[str],
    executor: Executor,
    limit: int = BUCKET_ROWS,
) -> ReducedMatches:
    """Reduce all groups; the outcome does not depend on the groups or the executor.

    Args:
        groups: the parts in the order of the manifest.
        classes: the classes that are scored.
        executor: does the work on groups and buckets.
        limit: the most rows of a bucket.
    """
    calls = ((group, classes) for group in groups)
    summed: _GroupSums = executor.reduce(_sum_group, calls, _add_groups)
    sums = summed.sums
    precision = score_groups(
        groups, sums.class_detections, sums.scores, sums.objects, executor, limit=limit
    )
    return ReducedMatches(summed.images, sums, precision, summed.points.find_best_score())


@dataclass(frozen=True)
class _GroupSums:
    images: ImageCounts
    sums: MatchSums
    points: OperatingPointCounts


def _sum_group(group: MatchGroup, classes: Sequence[str]) -> _GroupSums:
    images, sums, points = [], [], OperatingPointCounts(classes)
    for shard, table in group.read_tables(MATCH_COLUMNS):
        uri = uris.join(group.parts.uri, shard.part_name)
        matches = read_matches(table, uri)
        rows = select_ranking_rows(matches, group.classes)
        images.append(read_image_counts(table, uri))
        sums.append(sum_matches(matches, rows, group.classes))
        is_scored = matches.class_id < group.classes
        points.update(matches if is_scored.all() else matches[is_scored])
    return _GroupSums(add_image_counts(images), add_sums(sums, group.classes), points)


def _add_groups(first: _GroupSums, second: _GroupSums) -> _GroupSums:
    first.points.merge(second.points)
    return _GroupSums(
        add_image_counts([first.images, second.images]),
        add_sums([first.sums, second.sums], len(first.sums.objects)),
        first.points,
    )
