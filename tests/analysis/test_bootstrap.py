import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis.average_precision import IGNORED, TRUE, VocAveragePrecision, match_detections
from pipeline.analysis.bootstrap import draw_resamples, score_resamples
from pipeline.analysis.detection_arrays import DetectionArrays, GroundTruthArrays
from pipeline.analysis.run_matches import ClassMatches

IMAGES = 4


def make_matches(images, hits, object_rows):
    return ClassMatches(
        np.array(images, np.int32), np.array(hits, bool), np.array(object_rows, np.int32)
    )


def score(matches, *weightings):
    return score_resamples(matches, np.array(weightings, np.int32))


def test_weighted_ap_matches_a_hand_calculation():
    # Image 0: a true detection, best scored. Image 1: a false one, then a true one; one object each.
    matches = make_matches([0, 1, 1], [True, False, True], [0, 1])
    eleven, area = score(matches, [1, 1], [2, 0], [0, 2], [1, 3])
    # 1 1: precision 1 at recall 1/2, 2/3 at 1.  0 2: of 4 detections 2 are true, the first two false.
    # 1 3: precision 1 at recall 1/4, then 4/7 at 1.
    assert area == pytest.approx([1 / 2 + 1 / 3, 1, 1 / 2, 1 / 4 + 3 / 4 * 4 / 7])
    assert eleven == pytest.approx(
        [(6 + 5 * 2 / 3) / 11, 1, 1 / 2, (3 + 8 * 4 / 7) / 11]  # recall 0, .1, .2 below 1/4
    )


def test_ap_without_objects_detections_or_hits():
    no_detections = make_matches([], [], [1])
    assert np.isnan(score(no_detections, [2, 0])).all()
    np.testing.assert_array_equal(score(no_detections, [1, 1]), [[0.0], [0.0]])
    np.testing.assert_array_equal(score(make_matches([0], [False], [1]), [1, 1]), [[0.0], [0.0]])
    assert np.isnan(score(make_matches([0, 1], [False, True], []), [1, 1])).all()


side = st.integers(1, 8)
box = st.tuples(st.integers(0, 8), st.integers(0, 8), side, side).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
object_strategy = st.tuples(st.integers(0, IMAGES - 1), box, st.sampled_from([False, False, True]))
detection_strategy = st.tuples(
    st.integers(0, IMAGES - 1), st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]), box
)


def copy_images(object_rows, detection_rows, weights):
    """Repeat each image as often as its weight, renumbered, with its copies side by side."""
    sources = np.repeat(np.arange(IMAGES), weights)
    return (
        [(i, *o[1:]) for i, source in enumerate(sources) for o in object_rows if o[0] == source],
        [(i, *d[1:]) for i, source in enumerate(sources) for d in detection_rows if d[0] == source],
    )


def make_arrays(object_rows, detection_rows):
    ground_truth = GroundTruthArrays(
        np.array([o[0] for o in object_rows], np.int64),
        np.zeros(len(object_rows), np.int64),
        np.array([o[1] for o in object_rows], np.float64).reshape(-1, 4),
        np.array([o[2] for o in object_rows], bool),
        np.zeros(len(object_rows), bool),
    )
    detections = DetectionArrays(
        np.array([d[0] for d in detection_rows], np.int64),
        np.zeros(len(detection_rows), np.int64),
        np.array([d[1] for d in detection_rows], np.float32),
        np.array([d[2] for d in detection_rows], np.float64).reshape(-1, 4),
    )
    return ground_truth, detections


@settings(deadline=None, max_examples=100)
@given(
    st.lists(object_strategy, max_size=8),
    # An image's scores are unique: copies of equal scores would alternate in the ranking.
    st.lists(detection_strategy, max_size=20, unique_by=lambda d: d[:2]),
    st.lists(st.lists(st.integers(0, 3), min_size=IMAGES, max_size=IMAGES), min_size=1, max_size=4),
)
def test_a_weight_equals_as_many_copies_of_the_image(object_rows, detection_rows, weightings):
    object_rows, detection_rows = (
        sorted(object_rows, key=lambda o: o[0]),
        sorted(detection_rows, key=lambda d: d[0]),
    )
    ground_truth, detections = make_arrays(object_rows, detection_rows)
    outcomes = match_detections(ground_truth, detections, 0.5)
    ranked = np.argsort(-detections.scores, kind="stable")
    ranked = ranked[outcomes[ranked] != IGNORED]
    matches = make_matches(
        detections.image[ranked],
        outcomes[ranked] == TRUE,
        ground_truth.image[~ground_truth.difficult],
    )
    eleven, area = score(matches, *weightings)
    for index, weights in enumerate(weightings):
        voc = VocAveragePrecision(1)
        voc.update(*make_arrays(*copy_images(object_rows, detection_rows, weights)))
        expected = voc.compute()
        np.testing.assert_allclose(eleven[index], expected.eleven_point[0], rtol=1e-12)
        np.testing.assert_allclose(area[index], expected.area[0], rtol=1e-12)


def test_resamples_draw_as_many_images_and_do_not_depend_on_the_batch_size():
    weights = np.concatenate(list(draw_resamples(50, 300, seed=3)))
    assert weights.shape == (300, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert (weights >= 0).all()
    # The number of times that an image is drawn is binomial: mean 1, variance 1 - 1/50.
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(0.98, abs=0.05)
    np.testing.assert_array_equal(
        weights, np.concatenate(list(draw_resamples(50, 300, 3, batch_size=7)))
    )
    assert not np.array_equal(weights, np.concatenate(list(draw_resamples(50, 300, seed=4))))
