"""Ranks the boxes of all hierarchies by a model learned from annotated images, best first.

A box's score comes from its features; boxes are then taken greedily, and each lowers the scores of those
that overlap it. It draws no random numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.proposals.boundary_votes import BoundaryVotes
from pipeline.proposals.box_features import compute_features
from pipeline.proposals.hierarchy import Segmentation
from pipeline.proposals.image_sums import sum_image
from pipeline.proposals.node_evidence import collect_evidence
from pipeline.proposals.ranking_model import RankingModel
from pipeline.proposals.soft_suppression import order_boxes
from pipeline.proposals.tree_kernel import score_rows

LOWEST_SCORE = np.float32(1e-3)
"""Scores below, which are predictions of an IoU of almost 0, count as this: suppression multiplies them."""


def describe_boxes(
    image: NDArray[np.uint8],
    segmentations: Iterable[Segmentation],
    least_sides: tuple[float, float],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """List the distinct boxes of the hierarchies of an image, and their features.

    Args:
        image: uint8 `(H, W, 3)`.
        segmentations: one after the other, as `build_hierarchies` yields them.
        least_sides: smallest width and height in pixels.

    Returns:
        int32 `(N, 4)`, the smallest area first; float32 `(N, F)`, one column for each of `FEATURES`.
    """
    height, width = image.shape[:2]
    votes = BoundaryVotes(height, width)
    kept = []
    for segmentation in segmentations:
        votes.add(segmentation.labels)  # the next segmentation overwrites them
        kept.append(segmentation)
    evidence = collect_evidence(kept, *least_sides)
    features = compute_features(
        evidence,
        sum(len(segmentation.merges) for segmentation in kept),
        min(kept, key=lambda segmentation: len(segmentation.boxes)),
        sum_image(image, votes),
        (height, width),
    )
    return evidence.boxes, features


def score_boxes(model: RankingModel, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score boxes by their features `(N, F)`: float32 `(N,)`, positive, higher is better."""
    scores = np.empty(len(features), np.float32)
    score_rows(
        features, model.questions, model.thresholds, model.values, np.float32(model.base), scores
    )
    return np.maximum(scores, LOWEST_SCORE)


def rank_by_model(
    image: NDArray[np.uint8],
    segmentations: Iterable[Segmentation],
    least_sides: tuple[float, float],
    model: RankingModel,
) -> NDArray[np.int32]:
    """Return the distinct boxes int32 `(N, 4)` of an image's hierarchies, best first."""
    boxes, features = describe_boxes(image, segmentations, least_sides)
    return boxes[order_boxes(boxes, score_boxes(model, features))]
