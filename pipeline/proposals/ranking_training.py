"""Trains a ranking model on annotated images: regression of how well a box fits an object.

LightGBM fits the trees (Ke et al., NeurIPS 2017; the extra `rank`). It is needed only here: proposals
evaluate the trees themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry
from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields
from pipeline.proposals.feature_names import FEATURES
from pipeline.proposals.ranking_model import MAX_DEPTH, MAX_TREES, RankingModel, join_trees

OBJECT_IOU = 0.5
"""Boxes from this IoU on cover an object."""
NEGATIVE_IOU = 0.3
"""Of the boxes below, which are most, only some are used."""
NEGATIVES_KEPT = 0.3


@dataclass(frozen=True)
class RankingRecipe:
    """How a ranking model is trained."""

    trees: int = 64
    """Number of trees; the time to score a box is proportional to it."""
    depth: int = 6
    """Questions from the root of a tree to its values."""
    leaves: int = 48
    """Largest number of different values of a tree."""
    learning_rate: float = 0.15
    """Share of a tree's step that is taken."""
    smallest_leaf: int = 100
    """Fewest boxes in a leaf."""
    lowest_target: float = 0.4
    """The target of a box is 0 at this IoU with its best object and below, and rises to 1 at an IoU of 1."""
    object_weight: float = 20.0
    """Weight of a box that covers an object alone; other boxes have weight 1."""
    sharing: float = 0.7
    """If n boxes cover an object, each has `object_weight` / n^sharing: with 0, large objects, which hundreds
    of boxes cover, would decide; with 1, all objects count alike."""
    seed: int = 0
    """Chooses the boxes that cover nothing."""

    def __post_init__(self) -> None:
        check_fields(self, "trees", at_least=1, at_most=MAX_TREES)
        check_fields(self, "depth", at_least=1, at_most=MAX_DEPTH)
        check_fields(self, "leaves", "smallest_leaf", at_least=2)
        check_fields(self, "learning_rate", above=0, at_most=1)
        check_fields(self, "lowest_target", at_least=0, below=1)
        check_fields(self, "sharing", at_least=0, at_most=1)
        check_fields(self, "object_weight", above=0)


class TrainingBoxes(NamedTuple):
    """Boxes of one or more images, as the model learns from them."""

    features: NDArray[np.float32]
    """`(N, F)`."""
    overlaps: NDArray[np.float32]
    """`(N,)`: IoU with the best object."""
    weights: NDArray[np.float32]
    """`(N,)`."""


def select_boxes(  # noqa: PLR0917
    boxes: NDArray[np.int32],
    features: NDArray[np.float32],
    objects: NDArray[np.float32],
    ignored: NDArray[np.float32],
    recipe: RankingRecipe,
    random: np.random.Generator,
) -> TrainingBoxes:
    """Select and weigh the boxes of an image from which the model learns.

    Args:
        boxes: int32 `(N, 4)`.
        features: float32 `(N, F)`.
        objects: float32 `(G, 4)`.
        ignored: float32 `(I, 4)`: difficult objects and crowds; boxes that cover one of them are left out.
        recipe: the weights.
        random: chooses among the boxes that cover nothing.
    """
    corners = boxes.astype(np.float32)
    overlaps, weights = _weigh_boxes(corners, objects, recipe)
    is_far = overlaps < NEGATIVE_IOU
    keep = ~is_far | (random.random(len(boxes)) < NEGATIVES_KEPT)
    weights[is_far] /= NEGATIVES_KEPT
    if len(ignored):
        keep &= (overlaps >= OBJECT_IOU) | (geometry.iou(corners, ignored).max(axis=1) < OBJECT_IOU)
    return TrainingBoxes(features[keep], overlaps[keep], weights[keep])


def _weigh_boxes(
    corners: NDArray[np.float32], objects: NDArray[np.float32], recipe: RankingRecipe
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    weights = np.ones(len(corners), np.float32)
    if not len(objects):
        return np.zeros(len(corners), np.float32), weights
    overlaps = geometry.iou(corners, objects)
    best, matched = overlaps.max(axis=1), overlaps.argmax(axis=1)
    covering = np.maximum((overlaps >= OBJECT_IOU).sum(axis=0), 1)
    covers = best >= OBJECT_IOU
    weights[covers] = recipe.object_weight / covering[matched[covers]] ** recipe.sharing
    return best.astype(np.float32), weights


def join_boxes(parts: Iterable[TrainingBoxes]) -> TrainingBoxes:
    """The boxes of several images as one."""
    columns = list(zip(*parts, strict=True))
    return TrainingBoxes(*(np.concatenate(column) for column in columns))


def fit_model(
    boxes: TrainingBoxes, recipe: RankingRecipe, training: Mapping[str, Any]
) -> RankingModel:
    """Fit a model; equal boxes and an equal release of LightGBM give an equal model.

    Args:
        boxes: of all images.
        recipe: how.
        training: what the model's file says about its training.

    Raises:
        InvalidConfiguration: LightGBM is missing, or no box covers an object.
    """
    lightgbm = import_lightgbm()
    if not (boxes.overlaps >= OBJECT_IOU).any():
        raise InvalidConfiguration(
            "no box of the training images covers an object, so there is nothing to learn"
        )
    targets = np.clip((boxes.overlaps - recipe.lowest_target) / (1 - recipe.lowest_target), 0, 1)
    parameters = {
        "objective": "regression",
        "learning_rate": recipe.learning_rate,
        "max_depth": recipe.depth,
        "num_leaves": min(recipe.leaves, 2**recipe.depth),
        "min_data_in_leaf": recipe.smallest_leaf,
        "max_bin": 127,
        "seed": recipe.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbose": -1,
    }
    data = lightgbm.Dataset(boxes.features, targets, weight=boxes.weights)
    booster = lightgbm.train(parameters, data, recipe.trees)
    trees = [
        _convert_tree(tree["tree_structure"], recipe.depth)
        for tree in booster.dump_model()["tree_info"]
    ]
    return RankingModel(*join_trees(trees), 0.0, training)


def import_lightgbm() -> Any:
    """Import LightGBM.

    Raises:
        InvalidConfiguration: it is not installed.
    """
    try:
        import lightgbm  # noqa: PLC0415
    except ImportError as error:
        raise InvalidConfiguration(
            "training a ranking needs the package lightgbm, which is missing: pip install '.[rank]'"
        ) from error
    return lightgbm


def _convert_tree(
    root: Mapping[str, Any], depth: int
) -> tuple[list[int], list[float], list[float]]:
    """Write a tree as a complete one: a leaf above the lowest level fills all places below it."""
    count = 2**depth - 1
    questions, thresholds, values = [0] * count, [0.0] * count, [0.0] * (count + 1)
    waiting = [(root, 0)]
    while waiting:
        node, place = waiting.pop()
        if place >= count:
            values[place - count] = node["leaf_value"]
        elif "leaf_value" in node:
            waiting += [(node, 2 * place + 1), (node, 2 * place + 2)]
        else:
            questions[place] = node["split_feature"]
            thresholds[place] = _round_down(node["threshold"])
            waiting += [(node["left_child"], 2 * place + 1), (node["right_child"], 2 * place + 2)]
    assert max(questions) < len(FEATURES)
    return questions, thresholds, values


def _round_down(threshold: float) -> float:
    """The largest float32 that is not above: float32 features fall on the same side of it."""
    rounded = np.float32(threshold)
    return float(rounded if rounded <= threshold else np.nextafter(rounded, np.float32(-np.inf)))
