"""Sums over matches: objects by area, recall by rank, and that parts may be added in any grouping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.analysis.match_sums import (
    VARIANTS,
    MatchSums,
    add_sums,
    select_ranking_rows,
    sum_matches,
)
from pipeline.analysis.matching import Matches, match_images
from pipeline.analysis.ranking import COCO_VARIANTS, VOC_VARIANT

CLASSES = 2


def match_three_images() -> Matches:
    """Squares of class 0 with sides 10, 32, 96 and 200, and one of class 1 that is difficult."""
    sides = np.array([10, 32, 96, 200, 50], np.float64)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    ground_truth = GroundTruthArrays(
        image=np.array([0, 0, 1, 1, 2]),
        class_id=np.array([0, 0, 0, 0, 1]),
        boxes=boxes,
        difficult=np.array([False] * 4 + [True]),
        crowd=np.zeros(5, np.bool_),
    )
    detections = DetectionArrays(
        image=np.array([0, 0, 1, 2, 2]),
        class_id=np.array([0, 0, 0, 1, 2]),
        scores=np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32),
        boxes=boxes[[1, 0, 3, 4, 4]],
    )
    return match_images(ground_truth, detections, 3)


def sum_all(matches: Matches) -> MatchSums:
    return sum_matches(matches, select_ranking_rows(matches, CLASSES), CLASSES)


def test_objects_are_counted_by_area_with_both_ends_and_difficult_ones_are_not():
    sums = sum_all(match_three_images())
    assert sums.objects.shape == (CLASSES, VARIANTS)
    assert sums.objects[0, [0, 10, 20, 30, VOC_VARIANT]].tolist() == [4, 2, 2, 2, 4]
    assert not sums.objects[1].any()
    assert sums.class_detections.tolist() == [3, 1]
    assert sums.detections == 5  # the class that is not scored is counted here only


def test_recall_counts_the_best_1_10_and_100_of_each_image_and_class():
    sums = sum_all(match_three_images())
    assert sums.recalled.shape == (CLASSES, COCO_VARIANTS, 3)
    assert sums.recalled[0, 0].tolist() == [
        2,
        3,
        3,
    ]  # the first image's second best is its other one
    assert sums.recalled[0, 10].tolist() == [1, 2, 2]  # small: sides 10 and 32
    assert not sums.recalled[1].any()  # it matches a difficult object


def test_rows_of_a_difficult_match_are_ignored_by_both_rules():
    rows = select_ranking_rows(match_three_images(), CLASSES)
    assert len(rows) == 4
    of_difficult = rows.select(rows.class_id == 1)
    assert of_difficult.true_mask.tolist() == [0]
    assert of_difficult.ignored_mask.tolist() == [(1 << VARIANTS) - 1]


def test_detections_of_images_without_annotations_are_not_ranked():
    matches = match_three_images()
    unlabelled = replace(matches, is_annotated=matches.row != 1)
    assert len(select_ranking_rows(unlabelled, CLASSES)) == 3


def test_sums_do_not_depend_on_the_grouping():
    matches = match_three_images()
    parts = [sum_all(matches[matches.row == row]) for row in range(3)]
    for grouped in (
        add_sums(parts, CLASSES),
        add_sums([add_sums(parts[:2], CLASSES), parts[2]], CLASSES),
        add_sums([parts[2], parts[0], parts[1]], CLASSES),
    ):
        whole = sum_all(matches)
        assert grouped.detections == whole.detections
        for name in ("class_detections", "objects", "recalled"):
            np.testing.assert_array_equal(getattr(grouped, name), getattr(whole, name))
        np.testing.assert_array_equal(grouped.scores.keys, whole.scores.keys)
        np.testing.assert_array_equal(grouped.scores.counts, whole.scores.counts)
