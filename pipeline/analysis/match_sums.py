"""What all matches add up to, apart from their ranking: objects, detections and recall by class.

Sums of whole numbers: in whatever parts and order matches are added, the result is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.matching import AREA_LIMITS, Matches
from pipeline.analysis.ranking import (
    COCO_RANKS,
    COCO_VARIANTS,
    IOU_THRESHOLDS,
    VOC_VARIANT,
    RankingRows,
    pack_masks,
)
from pipeline.analysis.score_buckets import ScoreCounts, add_counts, count_coarse
from pipeline.schema import AREA_RANGES

RECALL_RANKS = (1, 10, COCO_RANKS)
"""The numbers of best detections of an image and class for which COCO measures recall."""
VARIANTS = VOC_VARIANT + 1

MATCH_COLUMNS = (
    *("kind", "label", "score", "rank"),
    *(f"object_{name}" for name in ("x1", "y1", "x2", "y2", "difficult", "crowd")),
    *(f"{outcome}_{area}" for outcome in ("true", "ignored") for area in AREA_RANGES),
    "voc",
)
"""The columns of `schema.MATCHES` that the metrics need."""
RANKING_COLUMNS = tuple(name for name in MATCH_COLUMNS if not name.startswith("object_"))
"""Those that the ranking needs."""


def select_ranking_rows(matches: Matches, classes: int) -> RankingRows:
    """Select the detections in annotated images that are of the first `classes` classes."""
    is_ranked = matches.is_detection & matches.is_annotated & (matches.class_id < classes)
    voc = matches.voc[is_ranked]
    true, ignored = (
        [getattr(matches, f"{outcome}_{area}")[is_ranked] for area in AREA_RANGES]
        for outcome in ("true", "ignored")
    )
    return RankingRows(
        matches.class_id[is_ranked],
        matches.score[is_ranked],
        pack_masks(true, voc == 1),
        pack_masks(ignored, voc == -1, matches.rank[is_ranked]),
    )


@dataclass(frozen=True)
class MatchSums:
    """Sums over some matches, for K classes."""

    detections: int
    """All detections, also of other classes and in images without annotations."""
    class_detections: NDArray[np.int64]
    """`(K,)` detections of each class in annotated images."""
    objects: NDArray[np.int64]
    """`(K, VARIANTS)` objects to find in each variant of `ranking`."""
    recalled: NDArray[np.int64]
    """`(K, COCO_VARIANTS, 3)` true detections among the best 1, 10 and 100 of each image and class."""
    scores: ScoreCounts
    """How the scores are distributed, for the cut into buckets."""


def sum_matches(matches: Matches, rows: RankingRows, classes: int) -> MatchSums:
    """Sum some images' matches.

    Args:
        matches: all rows of the images.
        rows: `select_ranking_rows` of them.
        classes: number of classes that are scored, the first ones.
    """
    return MatchSums(
        int(matches.is_detection.sum()),
        np.bincount(rows.class_id, minlength=classes).astype(np.int64),
        _count_objects(matches, classes),
        _count_recalled(matches, classes),
        count_coarse(rows),
    )


def add_sums(parts: Sequence[MatchSums], classes: int) -> MatchSums:
    """Add the sums of several parts."""
    return MatchSums(
        sum(part.detections for part in parts),
        sum((part.class_detections for part in parts), np.zeros(classes, np.int64)),
        sum((part.objects for part in parts), np.zeros((classes, VARIANTS), np.int64)),
        sum(
            (part.recalled for part in parts),
            np.zeros((classes, COCO_VARIANTS, len(RECALL_RANKS)), np.int64),
        ),
        add_counts([part.scores for part in parts]),
    )


def _count_objects(matches: Matches, classes: int) -> NDArray[np.int64]:
    """Count the objects to find: each stands in one row, its own or that of the detection that found it."""
    counts = matches.stands_for_object & ~matches.object_difficult & ~matches.object_crowd
    counts &= matches.class_id < classes
    class_id = matches.class_id[counts]
    sides = [getattr(matches, f"object_{name}")[counts] for name in ("x1", "y1", "x2", "y2")]
    x1, y1, x2, y2 = (side.astype(np.float64) for side in sides)
    areas = (x2 - x1) * (y2 - y1)
    objects = np.zeros((classes, VARIANTS), np.int64)
    for index, (smallest, largest) in enumerate(AREA_LIMITS):
        is_inside = (areas >= smallest) & (areas <= largest)
        first = index * len(IOU_THRESHOLDS)
        of_range = np.bincount(class_id[is_inside], minlength=classes)
        objects[:, first : first + len(IOU_THRESHOLDS)] = of_range[:, None]
    objects[:, VOC_VARIANT] = np.bincount(class_id, minlength=classes)
    return objects


def _count_recalled(matches: Matches, classes: int) -> NDArray[np.int64]:
    counts = np.zeros((classes, COCO_VARIANTS, len(RECALL_RANKS)), np.int64)
    is_ranked = matches.is_detection & (matches.class_id < classes)
    for area, name in enumerate(AREA_RANGES):
        bits = getattr(matches, f"true_{name}")
        true = np.flatnonzero((bits != 0) & is_ranked)
        bits, class_id, rank = bits[true], matches.class_id[true], matches.rank[true]
        group = class_id * len(RECALL_RANKS) + np.searchsorted(RECALL_RANKS, rank, side="right")
        for threshold in range(len(IOU_THRESHOLDS)):
            has_bit = (bits >> threshold) & 1 != 0
            by_group = np.bincount(group[has_bit], minlength=classes * len(RECALL_RANKS))
            variant = area * len(IOU_THRESHOLDS) + threshold
            counts[:, variant] = by_group.reshape(classes, len(RECALL_RANKS)).cumsum(axis=1)
    return counts
