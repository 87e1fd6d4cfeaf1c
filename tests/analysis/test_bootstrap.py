import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis.average_precision import IGNORED, TRUE, VocAveragePrecision, match
from pipeline.analysis.bootstrap import resampled, weighted_average_precision
from pipeline.analysis.flat import Detections, GroundTruth
from pipeline.analysis.matches import ClassMatches

IMAGES = 4


def matches(images, hits, objects):
    return ClassMatches(
        np.array(images, np.int32), np.array(hits, bool), np.array(objects, np.int32)
    )


def scores(found, *weightings):
    return weighted_average_precision(found, np.array(weightings, np.int32))


def test_by_hand():
    # Image 0: a true detection, best scored. Image 1: a false one, then a true one; one object each.
    found = matches([0, 1, 1], [True, False, True], [0, 1])
    eleven, area = scores(found, [1, 1], [2, 0], [0, 2], [1, 3])
    # 1 1: precision 1 at recall 1/2, 2/3 at 1.  0 2: of 4 detections 2 are true, the first two false.
    # 1 3: precision 1 at recall 1/4, then 4/7 at 1.
    assert area == pytest.approx([1 / 2 + 1 / 3, 1, 1 / 2, 1 / 4 + 3 / 4 * 4 / 7])
    assert eleven == pytest.approx(
        [(6 + 5 * 2 / 3) / 11, 1, 1 / 2, (3 + 8 * 4 / 7) / 11]  # recall 0, .1, .2 below 1/4
    )


def test_no_object_no_detection_no_hit():
    nothing = matches([], [], [1])
    assert np.isnan(scores(nothing, [2, 0])).all()
    np.testing.assert_array_equal(scores(nothing, [1, 1]), [[0.0], [0.0]])
    np.testing.assert_array_equal(scores(matches([0], [False], [1]), [1, 1]), [[0.0], [0.0]])
    assert np.isnan(scores(matches([0, 1], [False, True], []), [1, 1])).all()


side = st.integers(1, 8)
box = st.tuples(st.integers(0, 8), st.integers(0, 8), side, side).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
an_object = st.tuples(st.integers(0, IMAGES - 1), box, st.sampled_from([False, False, True]))
a_detection = st.tuples(
    st.integers(0, IMAGES - 1), st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]), box
)


def copied(objects, seen, weights):
    """The images as often as their weight says, renumbered, copies one after the other."""
    sources = np.repeat(np.arange(IMAGES), weights)
    return (
        [(i, *o[1:]) for i, source in enumerate(sources) for o in objects if o[0] == source],
        [(i, *d[1:]) for i, source in enumerate(sources) for d in seen if d[0] == source],
    )


def flat(objects, seen):
    truth = GroundTruth(
        np.array([o[0] for o in objects], np.int64),
        np.zeros(len(objects), np.int64),
        np.array([o[1] for o in objects], np.float64).reshape(-1, 4),
        np.array([o[2] for o in objects], bool),
        np.zeros(len(objects), bool),
    )
    found = Detections(
        np.array([d[0] for d in seen], np.int64),
        np.zeros(len(seen), np.int64),
        np.array([d[1] for d in seen], np.float32),
        np.array([d[2] for d in seen], np.float64).reshape(-1, 4),
    )
    return truth, found


@settings(deadline=None, max_examples=100)
@given(
    st.lists(an_object, max_size=8),
    # An image's own scores differ: among equal ones copies would take turns.
    st.lists(a_detection, max_size=20, unique_by=lambda d: d[:2]),
    st.lists(st.lists(st.integers(0, 3), min_size=IMAGES, max_size=IMAGES), min_size=1, max_size=4),
)
def test_a_weight_is_as_many_copies(objects, seen, weightings):
    objects, seen = sorted(objects, key=lambda o: o[0]), sorted(seen, key=lambda d: d[0])
    truth, found = flat(objects, seen)
    outcome = match(truth, found, 0.5)
    ranked = np.argsort(-found.scores, kind="stable")
    ranked = ranked[outcome[ranked] != IGNORED]
    whole = matches(found.image[ranked], outcome[ranked] == TRUE, truth.image[~truth.difficult])
    eleven, area = scores(whole, *weightings)
    for index, weights in enumerate(weightings):
        voc = VocAveragePrecision(1)
        voc.update(*flat(*copied(objects, seen, weights)))
        expected = voc.result()
        np.testing.assert_allclose(eleven[index], expected.eleven_point[0], rtol=1e-12)
        np.testing.assert_allclose(area[index], expected.area[0], rtol=1e-12)


def test_resamples_draw_as_many_images_and_do_not_depend_on_how_many_are_made_at_once():
    weights = np.concatenate(list(resampled(50, 300, seed=3)))
    assert weights.shape == (300, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert (weights >= 0).all()
    # The number of times that an image is drawn is binomial: mean 1, variance 1 - 1/50.
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(0.98, abs=0.05)
    np.testing.assert_array_equal(weights, np.concatenate(list(resampled(50, 300, 3, at_once=7))))
    assert not np.array_equal(weights, np.concatenate(list(resampled(50, 300, seed=4))))
