import numpy as np
import pytest

from pipeline.analysis.average_precision import VocAveragePrecision
from pipeline.analysis.coco import CocoAveragePrecision
from tests.analysis.test_average_precision import found, truth


def scores(there, seen, classes=("a",), images=1):
    coco = CocoAveragePrecision(classes)
    coco.update(range(images), there, seen)
    return coco.result()


A, B = (0, 0, 100, 100), (200, 200, 300, 300)


def test_a_perfect_detector():
    result = scores(truth((0, 0, A), (0, 0, B)), found((0, 0, 0.9, A), (0, 0, 0.8, B)))
    assert result.ap == pytest.approx(1)
    assert result.large == pytest.approx(1)
    assert np.isnan(result.small)
    assert np.isnan(result.medium)


def test_ap_is_the_mean_over_thresholds():
    # IoU 0.72: true at 0.50, 0.55, 0.60, 0.65 and 0.70, so 5 of 10 thresholds.
    result = scores(truth((0, 0, A)), found((0, 0, 0.9, (0, 0, 72, 100))))
    assert result.ap50 == pytest.approx(1)
    assert result.ap75 == 0
    assert result.ap == pytest.approx(0.5)


def test_101_points_by_hand():
    # A false one first: precision 1/2 at recall 1/2, 2/3 at recall 1; the envelope is 2/3 throughout.
    result = scores(
        truth((0, 0, A), (0, 0, B)),
        found((0, 0, 0.9, (400, 400, 500, 500)), (0, 0, 0.8, A), (0, 0, 0.7, B)),
    )
    assert result.ap == pytest.approx(2 / 3)
    # One of two found: precision 1 at the 51 points of recall up to 0.50.
    result = scores(truth((0, 0, A), (0, 0, B)), found((0, 0, 0.8, A)))
    assert result.ap == pytest.approx(51 / 101)


def test_a_difficult_object_need_not_be_found_and_its_detection_is_not_false():
    there = truth((0, 0, A), (0, 0, B, "difficult"))
    assert scores(there, found((0, 0, 0.8, A))).ap == pytest.approx(1)
    assert scores(there, found((0, 0, 0.9, B), (0, 0, 0.8, A))).ap == pytest.approx(1)
    small = scores(truth((0, 0, (0, 0, 9, 9)), (0, 0, B, "difficult")), found((0, 0, 0.9, B)))
    assert small.ap == 0
    assert small.small == 0
    assert np.isnan(small.large)


def test_a_difficult_object_excuses_no_small_box_inside_it():
    there = truth((0, 0, A), (0, 0, B, "difficult"))
    inside = found((0, 0, 0.9, (220, 220, 240, 240)), (0, 0, 0.8, A))
    assert scores(there, inside).ap == pytest.approx(0.5)


def test_a_crowd_excuses_all_that_lies_in_it():
    there = truth((0, 0, A), (0, 0, B, "crowd"))
    inside = found(
        (0, 0, 0.9, (220, 220, 240, 240)), (0, 0, 0.85, (250, 250, 270, 270)), (0, 0, 0.8, A)
    )
    assert scores(there, inside).ap == pytest.approx(1)


def test_classes_without_objects_stay_out_of_the_mean():
    result = scores(
        truth((0, 0, A), (0, 2, B)), found((0, 0, 0.9, A), (0, 1, 0.9, A)), ("a", "b", "c")
    )
    assert result.ap == pytest.approx(0.5)
    np.testing.assert_allclose(result.per_class, [1, np.nan, 0])


def test_nothing_at_all():
    result = scores(truth(), found())
    assert np.isnan(result.ap)


def random_images(seed, images=30, classes=3):
    """Objects with a jittered and a random detection for each."""
    rng = np.random.default_rng(seed)
    there, seen = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = rng.integers(10, 200, 4)
            there.append((image, int(rng.integers(classes)), (x, y, x + w, y + h)))
            corners = np.array([x, y, x + w, y + h]) + rng.integers(-8, 8, 4)
            if (corners[2:] > corners[:2] + 1).all():
                seen.append((image, there[-1][1], rng.random(), corners))
            x, y, w, h = rng.integers(10, 200, 4)
            seen.append((image, int(rng.integers(classes)), rng.random(), (x, y, x + w, y + h)))
    return truth(*there), found(*seen)


def test_area_ap_is_near_cocos_and_steps_change_nothing():
    there, seen = random_images(seed=3)
    whole = scores(there, seen, ("a", "b", "c"), images=30)
    voc = VocAveragePrecision(3)
    voc.update(there, seen)
    # COCO samples recall at 101 points, VOC takes the exact area.
    assert whole.ap50 == pytest.approx(voc.result().area.mean(), abs=0.02)
    assert 0.2 < whole.ap < whole.ap50 < 0.98


def test_steps_give_what_one_step_gives():
    first, second = random_images(seed=4), random_images(seed=5)
    stepwise = CocoAveragePrecision(("a", "b", "c"))
    stepwise.update(range(30), *first)
    stepwise.update(range(30, 60), *second)
    both = CocoAveragePrecision(("a", "b", "c"))
    both.update(range(60), *(_joined(a, b) for a, b in zip(first, second, strict=True)))
    np.testing.assert_allclose(both.result().per_class, stepwise.result().per_class)


def _joined(a, b):
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
