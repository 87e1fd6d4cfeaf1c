from __future__ import annotations

import numpy as np
import pytest

from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.analysis.detection_metrics import DetectionMetrics
from pipeline.analysis.image_counts import ImageCounts
from pipeline.analysis.match_sums import select_ranking_rows, sum_matches
from pipeline.analysis.matching import match_images
from pipeline.analysis.metric_summary import summarize_detections
from pipeline.analysis.ranked_classes import rank_classes
from tests.analysis.peers import SUMMARY, average_defined, evaluate_with_pycocotools
from tests.analysis.test_average_precision import make_detections, make_ground_truth


def score(ground_truth, detections, classes=("a",), images=1) -> DetectionMetrics:
    matches = match_images(ground_truth, detections, images)
    rows = select_ranking_rows(matches, len(classes))
    sums = sum_matches(matches, rows, len(classes))
    precision = rank_classes(rows, sums.objects)
    return summarize_detections(classes, ImageCounts(images), images, sums, precision)


A, B = (0, 0, 100, 100), (200, 200, 300, 300)


def test_a_perfect_detector_scores_1():
    scores = score(
        make_ground_truth((0, 0, A), (0, 0, B)), make_detections((0, 0, 0.9, A), (0, 0, 0.8, B))
    )
    assert scores.coco_ap == pytest.approx(1)
    assert scores.coco_ap_large == pytest.approx(1)
    assert scores.coco_ap_small is None
    assert scores.coco_ap_medium is None


def test_ap_is_the_mean_over_thresholds():
    # IoU 0.72: true at 0.50, 0.55, 0.60, 0.65 and 0.70, so 5 of 10 thresholds.
    scores = score(make_ground_truth((0, 0, A)), make_detections((0, 0, 0.9, (0, 0, 72, 100))))
    assert scores.coco_ap50 == pytest.approx(1)
    assert scores.coco_ap75 == 0
    assert scores.coco_ap == pytest.approx(0.5)


def test_101_point_ap_matches_a_hand_calculation():
    # A false one first: precision 1/2 at recall 1/2, 2/3 at recall 1; the envelope is 2/3 throughout.
    scores = score(
        make_ground_truth((0, 0, A), (0, 0, B)),
        make_detections((0, 0, 0.9, (400, 400, 500, 500)), (0, 0, 0.8, A), (0, 0, 0.7, B)),
    )
    assert scores.coco_ap == pytest.approx(2 / 3)
    # One of two found: precision 1 at the 51 points of recall up to 0.50.
    scores = score(make_ground_truth((0, 0, A), (0, 0, B)), make_detections((0, 0, 0.8, A)))
    assert scores.coco_ap == pytest.approx(51 / 101)


def test_a_difficult_object_need_not_be_found_and_its_detection_is_not_false():
    ground_truth = make_ground_truth((0, 0, A), (0, 0, B, "difficult"))
    assert score(ground_truth, make_detections((0, 0, 0.8, A))).coco_ap == pytest.approx(1)
    assert score(
        ground_truth, make_detections((0, 0, 0.9, B), (0, 0, 0.8, A))
    ).coco_ap == pytest.approx(1)
    small = score(
        make_ground_truth((0, 0, (0, 0, 9, 9)), (0, 0, B, "difficult")),
        make_detections((0, 0, 0.9, B)),
    )
    assert small.coco_ap == 0
    assert small.coco_ap_small == 0
    assert small.coco_ap_large is None


def test_a_small_box_inside_a_difficult_object_is_false():
    ground_truth = make_ground_truth((0, 0, A), (0, 0, B, "difficult"))
    inside = make_detections((0, 0, 0.9, (220, 220, 240, 240)), (0, 0, 0.8, A))
    assert score(ground_truth, inside).coco_ap == pytest.approx(0.5)


def test_detections_inside_a_crowd_are_not_false():
    ground_truth = make_ground_truth((0, 0, A), (0, 0, B, "crowd"))
    inside = make_detections(
        (0, 0, 0.9, (220, 220, 240, 240)), (0, 0, 0.85, (250, 250, 270, 270)), (0, 0, 0.8, A)
    )
    assert score(ground_truth, inside).coco_ap == pytest.approx(1)


def test_classes_without_objects_are_left_out_of_the_mean():
    scores = score(
        make_ground_truth((0, 0, A), (0, 2, B)),
        make_detections((0, 0, 0.9, A), (0, 1, 0.9, A)),
        ("a", "b", "c"),
    )
    assert scores.coco_ap == pytest.approx(0.5)
    assert [row.coco_ap for row in scores.per_class] == pytest.approx([1, None, 0])


def test_no_objects_and_no_detections_give_nan():
    scores = score(make_ground_truth(), make_detections())
    assert scores.coco_ap is None


def make_random_images(seed, images=30, classes=3):
    """Make objects, each with a jittered and a random detection."""
    rng = np.random.default_rng(seed)
    ground_truth, detections = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = rng.integers(10, 200, 4)
            ground_truth.append((image, int(rng.integers(classes)), (x, y, x + w, y + h)))
            corners = np.array([x, y, x + w, y + h]) + rng.integers(-8, 8, 4)
            if (corners[2:] > corners[:2] + 1).all():
                detections.append((image, ground_truth[-1][1], rng.random(), corners))
            x, y, w, h = rng.integers(10, 200, 4)
            detections.append(
                (image, int(rng.integers(classes)), rng.random(), (x, y, x + w, y + h))
            )
    return make_ground_truth(*ground_truth), make_detections(*detections)


def test_ap50_is_near_vocs_area_ap():
    ground_truth, detections = make_random_images(seed=3)
    whole = score(ground_truth, detections, ("a", "b", "c"), images=30)
    voc = VocAveragePrecision(3)
    voc.update(ground_truth, detections)
    # COCO samples recall at 101 points, VOC takes the exact area.
    assert whole.coco_ap50 == pytest.approx(voc.compute().area.mean(), abs=0.02)
    assert 0.2 < whole.coco_ap < whole.coco_ap50 < 0.98


def draw_hard_images(seed: int) -> tuple[GroundTruthArrays, DetectionArrays, int, int]:
    """Draw images with what metrics may get wrong: crowds, difficult objects, ties of scores, more than 100
    detections of a class, objects of every size and on the edges of sizes, a class without objects, one
    without detections, and images without either."""
    rng = np.random.default_rng(seed)
    images, classes = 14, 6
    objects, found = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 9) if image % 5 else 0):
            k = int(rng.integers(0, 5))  # class 5 has no objects
            width, height = rng.choice([5, 16, 32, 64, 96, 200], 2)
            x, y = rng.integers(0, 300, 2)
            flag = rng.choice(["", "", "", "", "difficult", "crowd"])
            objects.append((image, k, (x, y, x + width, y + height), flag))
            for _ in range(rng.integers(0, 5)):
                box = np.array(objects[-1][2]) + rng.normal(0, 0.08, 4) * np.tile(
                    [width, height], 2
                )
                if (box[2:] > box[:2]).all():
                    label = k if rng.random() < 0.8 else int(rng.integers(0, 6))
                    found.append((image, label, round(rng.random(), 1), box))
        for _ in range(130 if image == 7 else 6):
            x, y, width, height = rng.integers(1, 250, 4)
            k = 0 if image == 7 else int(rng.integers(0, 6))
            found.append((image, k, round(rng.random(), 2), (x, y, x + width, y + height)))
    found = [row for row in found if row[1] != 4 and row[0] != 3]  # class 4 and image 3 have none
    boxes = np.array([row[3] for row in found]).astype(np.float32)
    rounded = [(*row[:3], box) for row, box in zip(found, boxes.tolist(), strict=True)]
    return make_ground_truth(*objects), make_detections(*rounded), images, classes


@pytest.mark.parametrize("seed", range(5))
def test_the_twelve_numbers_and_those_of_classes_equal_pycocotools(seed):
    ground_truth, detections, images, classes = draw_hard_images(seed)
    metrics = score(ground_truth, detections, tuple("abcdef"), images)
    evaluation = evaluate_with_pycocotools(ground_truth, detections, images, classes)
    for name, expected in zip(SUMMARY, evaluation.stats, strict=True):
        assert getattr(metrics, name) == pytest.approx(expected, abs=1e-9), name
    assert len({round(value, 6) for value in evaluation.stats}) > 9
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    for k, row in enumerate(metrics.per_class):
        ap = average_defined(precision[:, :, k, 0, -1])
        assert row.coco_ap == (ap if ap is None else pytest.approx(ap, abs=1e-9))
        ap50 = average_defined(precision[0, :, k, 0, -1])
        assert row.coco_ap50 == (ap50 if ap50 is None else pytest.approx(ap50, abs=1e-9))
        ar = average_defined(recall[:, k, 0, -1])
        assert row.coco_ar_100 == (ar if ar is None else pytest.approx(ar, abs=1e-9))
    assert metrics.per_class[4].coco_ap == 0
    assert metrics.per_class[5].coco_ap is None


@pytest.mark.parametrize("seed", range(3))
def test_vocs_numbers_equal_those_of_voc_average_precision(seed):
    ground_truth, detections, images, classes = draw_hard_images(seed)
    metrics = score(ground_truth, detections, tuple("abcdef"), images)
    voc = VocAveragePrecision(classes)
    voc.update(ground_truth, detections)
    expected = voc.compute()
    for k, row in enumerate(metrics.per_class[:5]):
        assert row.ap11 == pytest.approx(expected.eleven_point[k], abs=1e-9)
        assert row.ap_area == pytest.approx(expected.area[k], abs=1e-9)
        assert (row.objects, row.detections) == (expected.objects[k], expected.detections[k])
    assert metrics.voc07_map50 == pytest.approx(np.nanmean(expected.eleven_point), abs=1e-9)
    assert metrics.voc_map50 == pytest.approx(np.nanmean(expected.area), abs=1e-9)
