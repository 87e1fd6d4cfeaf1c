import numpy as np
import pytest

from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.coco import CocoAveragePrecision
from tests.analysis.test_average_precision import make_detections, make_ground_truth


def score(ground_truth, detections, classes=("a",), images=1):
    coco = CocoAveragePrecision(classes)
    coco.update(range(images), ground_truth, detections)
    return coco.compute()


A, B = (0, 0, 100, 100), (200, 200, 300, 300)


def test_a_perfect_detector_scores_1():
    scores = score(
        make_ground_truth((0, 0, A), (0, 0, B)), make_detections((0, 0, 0.9, A), (0, 0, 0.8, B))
    )
    assert scores.ap == pytest.approx(1)
    assert scores.large == pytest.approx(1)
    assert np.isnan(scores.small)
    assert np.isnan(scores.medium)


def test_ap_is_the_mean_over_thresholds():
    # IoU 0.72: true at 0.50, 0.55, 0.60, 0.65 and 0.70, so 5 of 10 thresholds.
    scores = score(make_ground_truth((0, 0, A)), make_detections((0, 0, 0.9, (0, 0, 72, 100))))
    assert scores.ap50 == pytest.approx(1)
    assert scores.ap75 == 0
    assert scores.ap == pytest.approx(0.5)


def test_101_point_ap_matches_a_hand_calculation():
    # A false one first: precision 1/2 at recall 1/2, 2/3 at recall 1; the envelope is 2/3 throughout.
    scores = score(
        make_ground_truth((0, 0, A), (0, 0, B)),
        make_detections((0, 0, 0.9, (400, 400, 500, 500)), (0, 0, 0.8, A), (0, 0, 0.7, B)),
    )
    assert scores.ap == pytest.approx(2 / 3)
    # One of two found: precision 1 at the 51 points of recall up to 0.50.
    scores = score(make_ground_truth((0, 0, A), (0, 0, B)), make_detections((0, 0, 0.8, A)))
    assert scores.ap == pytest.approx(51 / 101)


def test_a_difficult_object_need_not_be_found_and_its_detection_is_not_false():
    ground_truth = make_ground_truth((0, 0, A), (0, 0, B, "difficult"))
    assert score(ground_truth, make_detections((0, 0, 0.8, A))).ap == pytest.approx(1)
    assert score(ground_truth, make_detections((0, 0, 0.9, B), (0, 0, 0.8, A))).ap == pytest.approx(
        1
    )
    small = score(
        make_ground_truth((0, 0, (0, 0, 9, 9)), (0, 0, B, "difficult")),
        make_detections((0, 0, 0.9, B)),
    )
    assert small.ap == 0
    assert small.small == 0
    assert np.isnan(small.large)


def test_a_small_box_inside_a_difficult_object_is_false():
    ground_truth = make_ground_truth((0, 0, A), (0, 0, B, "difficult"))
    inside = make_detections((0, 0, 0.9, (220, 220, 240, 240)), (0, 0, 0.8, A))
    assert score(ground_truth, inside).ap == pytest.approx(0.5)


def test_detections_inside_a_crowd_are_not_false():
    ground_truth = make_ground_truth((0, 0, A), (0, 0, B, "crowd"))
    inside = make_detections(
        (0, 0, 0.9, (220, 220, 240, 240)), (0, 0, 0.85, (250, 250, 270, 270)), (0, 0, 0.8, A)
    )
    assert score(ground_truth, inside).ap == pytest.approx(1)


def test_classes_without_objects_are_left_out_of_the_mean():
    scores = score(
        make_ground_truth((0, 0, A), (0, 2, B)),
        make_detections((0, 0, 0.9, A), (0, 1, 0.9, A)),
        ("a", "b", "c"),
    )
    assert scores.ap == pytest.approx(0.5)
    np.testing.assert_allclose(scores.per_class, [1, np.nan, 0])


def test_no_objects_and_no_detections_give_nan():
    scores = score(make_ground_truth(), make_detections())
    assert np.isnan(scores.ap)


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
    assert whole.ap50 == pytest.approx(voc.compute().area.mean(), abs=0.02)
    assert 0.2 < whole.ap < whole.ap50 < 0.98


def test_several_steps_give_the_same_as_one():
    first, second = make_random_images(seed=4), make_random_images(seed=5)
    stepwise = CocoAveragePrecision(("a", "b", "c"))
    stepwise.update(range(30), *first)
    stepwise.update(range(30, 60), *second)
    both = CocoAveragePrecision(("a", "b", "c"))
    both.update(range(60), *(_concatenate(a, b) for a, b in zip(first, second, strict=True)))
    np.testing.assert_allclose(both.compute().per_class, stepwise.compute().per_class)


def _concatenate(a, b):
    columns = {
        name: np.concatenate([getattr(a, name), getattr(b, name) + 30 * (name == "image")])
        for name in vars(a)
        if getattr(a, name).dtype != bool
    }
    flags = {
        name: np.concatenate([getattr(a, name), getattr(b, name)])
        for name in vars(a)
        if name not in columns
    }
    return type(a)(**columns, **flags)
