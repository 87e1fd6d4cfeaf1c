import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis.average_precision import (
    FALSE,
    IGNORED,
    TRUE,
    VocAveragePrecision,
    average_precision,
    match_detections,
)
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays


def make_ground_truth(*objects):
    """Make objects from rows (image, class, box[, flag]) with flag "difficult" or "crowd"."""
    flags = [row[3] if len(row) > 3 else "" for row in objects]
    return GroundTruthArrays(
        np.array([row[0] for row in objects], np.int64),
        np.array([row[1] for row in objects], np.int64),
        np.array([row[2] for row in objects], np.float64).reshape(-1, 4),
        np.array([flag == "difficult" for flag in flags], bool),
        np.array([flag == "crowd" for flag in flags], bool),
    )


def make_detections(*detections):
    """Make detections from rows (image, class, score, box)."""
    return DetectionArrays(
        np.array([row[0] for row in detections], np.int64),
        np.array([row[1] for row in detections], np.int64),
        np.array([row[2] for row in detections], np.float32),
        np.array([row[3] for row in detections], np.float64).reshape(-1, 4),
    )


def test_eleven_point_and_area_ap_match_a_hand_calculation():
    # Precision 1, 1/2, 2/3 at recall 1/4, 1/4, 2/4: the envelope is 1 up to 1/4, 2/3 up to 1/2, then 0.
    eleven, area = average_precision(np.array([True, False, True]), 4)
    assert eleven == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)  # recall 0, .1, .2 and .3, .4, .5
    assert area == pytest.approx(1 / 4 * 1 + 1 / 4 * 2 / 3)


def test_a_recall_that_is_exactly_reached_counts():
    # 3 of 10 objects: recall 0.3, which as a float is below 3 * 0.1.
    eleven, _ = average_precision(np.array([True, True, True]), 10)
    assert eleven == pytest.approx(4 / 11)


def test_ap_is_1_if_perfect_0_without_hits_and_nan_without_objects():
    assert average_precision(np.array([True, True]), 2) == (1.0, 1.0)
    assert average_precision(np.array([], bool), 2) == (0.0, 0.0)
    assert np.isnan(average_precision(np.array([False]), 0)).all()


def test_a_duplicate_is_false_and_the_better_score_is_true():
    ground_truth = make_ground_truth((0, 0, (0, 0, 10, 10)))
    detections = make_detections((0, 0, 0.5, (0, 0, 10, 10)), (0, 0, 0.9, (0, 0, 10, 9)))
    assert match_detections(ground_truth, detections, 0.5).tolist() == [FALSE, TRUE]


def test_the_first_of_equal_scores_is_true():
    ground_truth = make_ground_truth((0, 0, (0, 0, 10, 10)))
    detections = make_detections((0, 0, 0.5, (0, 0, 10, 9)), (0, 0, 0.5, (0, 0, 10, 10)))
    assert match_detections(ground_truth, detections, 0.5).tolist() == [TRUE, FALSE]


def test_an_iou_equal_to_the_threshold_is_true():
    # The kit's inclusive boxes 1..10 and 1..5: overlap 5 * 10 of 10 * 10 pixels, IoU exactly 0.5.
    ground_truth = make_ground_truth((0, 0, (0, 0, 10, 10)))
    assert match_detections(
        ground_truth, make_detections((0, 0, 0.9, (0, 0, 5, 10))), 0.5
    ).tolist() == [TRUE]
    assert match_detections(
        ground_truth, make_detections((0, 0, 0.9, (0, 0, 4.9, 10))), 0.5
    ).tolist() == [FALSE]


def test_a_detection_belongs_to_the_object_it_overlaps_most_even_if_it_is_already_matched():
    ground_truth = make_ground_truth((0, 0, (0, 0, 10, 10)), (0, 0, (0, 0, 10, 14)))
    # Both overlap the first most; the second detection overlaps the other by 10 / 14 >= 0.5.
    detections = make_detections((0, 0, 0.9, (0, 0, 10, 10)), (0, 0, 0.8, (0, 0, 10, 10)))
    assert match_detections(ground_truth, detections, 0.5).tolist() == [TRUE, FALSE]


@pytest.mark.parametrize(("first", "second"), [(IGNORED, TRUE), (TRUE, IGNORED)])
def test_the_first_of_equally_overlapped_objects_counts(first, second):
    flags = {IGNORED: "difficult", TRUE: ""}
    ground_truth = make_ground_truth(
        (0, 0, (0, 0, 10, 10), flags[first]), (0, 0, (0, 0, 10, 10), flags[second])
    )
    assert match_detections(
        ground_truth, make_detections((0, 0, 0.9, (0, 0, 10, 10))), 0.5
    ).tolist() == [first]


def test_objects_of_other_classes_and_images_do_not_match():
    ground_truth = make_ground_truth((0, 0, (0, 0, 10, 10)), (1, 1, (0, 0, 10, 10)))
    detections = make_detections((0, 1, 0.9, (0, 0, 10, 10)), (1, 0, 0.8, (0, 0, 10, 10)))
    assert match_detections(ground_truth, detections, 0.5).tolist() == [FALSE, FALSE]


def test_every_detection_of_a_difficult_object_is_ignored():
    ground_truth = make_ground_truth((0, 0, (0, 0, 10, 10), "difficult"), (0, 0, (50, 50, 60, 60)))
    detections = make_detections(
        (0, 0, 0.9, (0, 0, 10, 10)), (0, 0, 0.8, (0, 0, 10, 9)), (0, 0, 0.7, (50, 50, 60, 60))
    )
    assert match_detections(ground_truth, detections, 0.5).tolist() == [IGNORED, IGNORED, TRUE]
    voc = VocAveragePrecision(1)
    voc.update(ground_truth, detections)
    scores = voc.compute()
    assert scores.eleven_point.tolist() == [1.0]
    assert scores.objects.tolist() == [1]
    assert scores.detections.tolist() == [3]


def test_a_false_detection_inside_a_crowd_is_ignored():
    ground_truth = make_ground_truth((0, 0, (0, 0, 100, 100), "crowd"), (0, 0, (0, 0, 10, 10)))
    detections = make_detections(
        (0, 0, 0.9, (0, 0, 10, 10)),
        (0, 0, 0.8, (0, 0, 10, 10)),  # a duplicate, but inside the crowd
        (0, 0, 0.7, (95, 0, 105, 10)),  # half inside
        (0, 0, 0.6, (96, 0, 106, 10)),
    )
    assert match_detections(ground_truth, detections, 0.5).tolist() == [
        TRUE,
        IGNORED,
        IGNORED,
        FALSE,
    ]


def test_ap_is_nan_for_a_class_without_objects_and_0_for_one_without_detections():
    voc = VocAveragePrecision(3)
    voc.update(
        make_ground_truth((0, 0, (0, 0, 10, 10)), (0, 2, (0, 0, 10, 10))),
        make_detections((0, 0, 0.9, (0, 0, 10, 10)), (0, 1, 0.9, (0, 0, 10, 10))),
    )
    scores = voc.compute()
    np.testing.assert_array_equal(scores.area, [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(scores.eleven_point, [1.0, np.nan, 0.0])
    assert scores.objects.tolist() == [1, 0, 1]
    assert scores.detections.tolist() == [1, 1, 0]


def test_no_objects_and_no_detections_give_nan():
    voc = VocAveragePrecision(2)
    voc.update(make_ground_truth(), make_detections())
    assert np.isnan(voc.compute().area).all()


side = st.integers(1, 8)
box = st.tuples(st.integers(0, 8), st.integers(0, 8), side, side).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
object_rows = st.tuples(
    st.integers(0, 2), st.integers(0, 1), box, st.sampled_from(["", "", "difficult"])
)
detection_rows = st.tuples(
    st.integers(0, 2), st.integers(0, 1), st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]), box
)


@settings(deadline=None, max_examples=200)
@given(st.lists(object_rows, max_size=8), st.lists(detection_rows, max_size=20), st.integers(0, 3))
def test_ap_equals_a_plain_implementation_however_the_images_are_split(objects, detections, cut):
    detections = sorted(detections, key=lambda row: row[0])
    voc = VocAveragePrecision(2)
    for images in (range(cut), range(cut, 3)):
        voc.update(
            make_ground_truth(*(row for row in objects if row[0] in images)),
            make_detections(*(row for row in detections if row[0] in images)),
        )
    scores = voc.compute()
    for k in range(2):
        eleven, area = compute_plain_average_precision(
            [row for row in objects if row[1] == k], [row for row in detections if row[1] == k]
        )
        np.testing.assert_allclose(scores.eleven_point[k], eleven, rtol=1e-12)
        np.testing.assert_allclose(scores.area[k], area, rtol=1e-12)


def compute_plain_average_precision(objects, detections):
    """Follow VOC's rules with inclusive 1-based boxes, as its description states them; one class."""
    positives = sum(row[3] == "" for row in objects)
    if positives == 0:
        return np.nan, np.nan
    taken, hits = set(), []
    for image, _, _, b in sorted(detections, key=lambda row: -row[2]):
        best, best_index = -1.0, None
        for index, (where, _, g, _) in enumerate(objects):
            overlap = compute_inclusive_iou(b, g) if where == image else 0.0
            if overlap > best and overlap > 0:
                best, best_index = overlap, index
        if best >= 0.5:
            if objects[best_index][3] == "difficult":
                continue
            hits.append(best_index not in taken)
            taken.add(best_index)
        else:
            hits.append(False)
    # The number of objects found, and the precision.
    points = [(sum(hits[: n + 1]), sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    eleven = (
        sum(max((p for r, p in points if 10 * r >= k * positives), default=0.0) for k in range(11))
        / 11
    )
    area = sum(
        max((p for r, p in points if r >= n), default=0.0) / positives
        for n in range(1, positives + 1)
    )
    return eleven, area


def compute_inclusive_iou(a, b):
    ax1, ay1, ax2, ay2 = a[0] + 1, a[1] + 1, a[2], a[3]
    bx1, by1, bx2, by2 = b[0] + 1, b[1] + 1, b[2], b[3]
    width = min(ax2, bx2) - max(ax1, bx1) + 1
    height = min(ay2, by2) - max(ay1, by1) + 1
    if width <= 0 or height <= 0:
        return 0.0
    union = (ax2 - ax1 + 1) * (ay2 - ay1 + 1) + (bx2 - bx1 + 1) * (by2 - by1 + 1)
    return width * height / (union - width * height)
