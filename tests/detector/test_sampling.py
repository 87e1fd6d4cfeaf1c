import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import geometry
from pipeline.detector.sampling import sample_rois

OBJECT = np.array([[100, 100, 200, 200]], np.float32)
ONE = np.array([7])
PLAIN = np.array([False])


def shifted(count: int, low: float, high: float) -> np.ndarray:
    """Boxes of the object's size, shifted right so that their IoU with it lies in [low, high]."""
    overlaps = np.linspace(low, high, count)
    shift = 100 * (1 - overlaps) / (1 + overlaps)  # IoU = (100 - s) / (100 + s)
    boxes = np.repeat(OBJECT, count, axis=0)
    boxes[:, [0, 2]] += shift[:, None].astype(np.float32)
    return boxes


def far(count: int) -> np.ndarray:
    return np.array([[300 + i, 300, 320 + i, 320] for i in range(count)], np.float32)


def sample(proposals, gt=OBJECT, labels=ONE, crowd=PLAIN, seed=0, **options):
    rng = np.random.default_rng(seed)
    return sample_rois(proposals.reshape(-1, 4), gt, labels, crowd, rng, **options)


def counts(drawn):
    return int((drawn.labels > 0).sum()), int((drawn.labels == 0).sum())


def test_quotas_where_there_is_enough_of_both():
    drawn = sample(np.concatenate([shifted(50, 0.55, 0.95), shifted(200, 0.12, 0.45)]))
    assert counts(drawn) == (16, 48)
    assert (drawn.iou[:16] >= 0.5).all()
    assert ((drawn.iou[16:] >= 0.1) & (drawn.iou[16:] < 0.5)).all()
    assert set(drawn.labels[:16]) == {7}


def test_ground_truth_joins_and_background_fills_the_rest():
    drawn = sample(shifted(200, 0.12, 0.45))
    assert counts(drawn) == (1, 63)
    np.testing.assert_array_equal(drawn.boxes[0], OBJECT[0])
    np.testing.assert_array_equal(drawn.targets, 0)


def test_no_background_at_all():
    assert counts(sample(shifted(50, 0.6, 0.9))) == (16, 0)


def test_fewer_background_than_asked_for_are_not_repeated():
    drawn = sample(np.concatenate([shifted(3, 0.2, 0.4), far(100)]))
    assert counts(drawn) == (1, 3)


def test_background_window_is_widened_when_nothing_lies_in_it():
    drawn = sample(np.concatenate([shifted(4, 0.6, 0.9), far(100)]))
    assert counts(drawn) == (5, 59)
    np.testing.assert_array_equal(drawn.iou[5:], 0)


def test_no_objects():
    none = np.zeros((0, 4), np.float32)
    drawn = sample(far(100), none, np.zeros(0, int), np.zeros(0, bool))
    assert counts(drawn) == (0, 64)


@pytest.mark.parametrize("objects", [0, 1])
def test_no_proposals(objects):
    none = np.zeros((0, 4), np.float32)
    drawn = sample(none, OBJECT[:objects], ONE[:objects], PLAIN[:objects])
    assert counts(drawn) == (objects, 0)
    assert drawn.boxes.shape == (objects, 4)
    assert drawn.targets.shape == (objects, 4)


def test_one_proposal():
    assert counts(sample(far(1), OBJECT[:0], ONE[:0], PLAIN[:0])) == (0, 1)


def test_crowds_are_neither_foreground_nor_background():
    crowd = np.array([[0, 0, 400, 400]], np.float32)
    inside = shifted(100, 0.2, 0.9)
    gt = np.concatenate([crowd, np.array([[500, 500, 600, 600]], np.float32)])
    drawn = sample(
        np.concatenate([crowd, inside, far(10) + 200]),
        gt,
        np.array([1, 2]),
        np.array([True, False]),
    )
    assert set(drawn.labels[drawn.labels > 0]) == {2}
    shared = geometry.intersection(drawn.boxes, crowd)[:, 0] / geometry.area(drawn.boxes)
    assert shared.max() < 0.7
    assert counts(drawn)[1] > 0


def test_each_foreground_matches_its_best_object():
    gt = np.array([[100, 100, 200, 200], [120, 100, 220, 200]], np.float32)
    near_second = np.array([[118, 100, 218, 200]], np.float32)
    drawn = sample(near_second, gt, np.array([1, 2]), np.array([False, False]))
    row = int(np.flatnonzero((drawn.boxes == near_second).all(axis=1))[0])
    assert drawn.labels[row] == 2
    np.testing.assert_allclose(drawn.targets[row], [0.02, 0, 0, 0], atol=1e-6)


def test_equal_generators_draw_equal_samples():
    proposals = np.concatenate([shifted(50, 0.55, 0.95), shifted(200, 0.12, 0.45)])
    first, again, other = (sample(proposals, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.boxes, other.boxes)


def test_importing_it_does_not_import_torch():
    code = (
        "import sys; import pipeline.detector.sampling, pipeline.detector.targets, "
        "pipeline.detector.preprocessing, pipeline.detector.checkpoint_record, "
        "pipeline.detector.keep; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.integers(0, 150), st.integers(0, 6), st.integers(0, 2**31), st.integers(1, 90))
def test_invariants(num_proposals, num_objects, seed, per_image):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corners = rng.uniform(0, 100, (count, 2))
        return np.concatenate([corners, corners + rng.uniform(1, 80, (count, 2))], 1).astype("f4")

    proposals, gt = boxes(num_proposals), boxes(num_objects)
    labels, crowd = rng.integers(1, 5, num_objects), rng.random(num_objects) < 0.3
    drawn = sample_rois(proposals, gt, labels, crowd, rng, rois_per_image=per_image)
    foreground, background = counts(drawn)
    assert foreground <= round(0.25 * per_image)
    assert foreground + background <= per_image
    candidates = np.concatenate([proposals, gt[~crowd]])
    unused = [tuple(box) for box in candidates]
    for box, label, target in zip(drawn.boxes, drawn.labels, drawn.targets, strict=True):
        unused.remove(tuple(box))  # without replacement: each candidate once
        if label:
            found = geometry.decode(target[None, None], box[None])[0]
            distance = np.abs(found - gt[(labels == label) & ~crowd]).max(axis=1)
            assert distance.min() < 1e-3
