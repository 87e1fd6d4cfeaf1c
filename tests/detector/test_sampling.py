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


def shift_object(count: int, low: float, high: float) -> np.ndarray:
    """Shift the object right to `count` boxes whose IoU with it is in [low, high]."""
    overlaps = np.linspace(low, high, count)
    shift = 100 * (1 - overlaps) / (1 + overlaps)  # IoU = (100 - s) / (100 + s)
    boxes = np.repeat(OBJECT, count, axis=0)
    boxes[:, [0, 2]] += shift[:, None].astype(np.float32)
    return boxes


def make_far_boxes(count: int) -> np.ndarray:
    return np.array([[300 + i, 300, 320 + i, 320] for i in range(count)], np.float32)


def sample(proposals, gt=OBJECT, labels=ONE, crowd=PLAIN, seed=0, **options):
    rng = np.random.default_rng(seed)
    return sample_rois(proposals.reshape(-1, 4), gt, labels, crowd, rng, **options)


def count_kinds(sampled):
    return int((sampled.labels > 0).sum()), int((sampled.labels == 0).sum())


def test_quotas_are_met_if_there_is_enough_of_both_kinds():
    sampled = sample(np.concatenate([shift_object(50, 0.55, 0.95), shift_object(200, 0.12, 0.45)]))
    assert count_kinds(sampled) == (16, 48)
    assert (sampled.iou[:16] >= 0.5).all()
    assert ((sampled.iou[16:] >= 0.1) & (sampled.iou[16:] < 0.5)).all()
    assert set(sampled.labels[:16]) == {7}


def test_ground_truth_joins_and_background_fills_the_rest():
    sampled = sample(shift_object(200, 0.12, 0.45))
    assert count_kinds(sampled) == (1, 63)
    np.testing.assert_array_equal(sampled.boxes[0], OBJECT[0])
    np.testing.assert_array_equal(sampled.targets, 0)


def test_foreground_alone_does_not_exceed_its_quota():
    assert count_kinds(sample(shift_object(50, 0.6, 0.9))) == (16, 0)


def test_an_empty_background_range_widens_to_zero_on_request():
    proposals = np.concatenate([shift_object(4, 0.6, 0.9), make_far_boxes(100)])
    sampled = sample(proposals, widen_background=True)
    assert count_kinds(sampled) == (5, 59)
    np.testing.assert_array_equal(sampled.iou[5:], 0)
    assert count_kinds(sample(proposals)) == (5, 0)  # as in the released code


def test_a_background_range_that_is_not_empty_never_widens():
    proposals = np.concatenate([shift_object(3, 0.2, 0.4), make_far_boxes(100)])
    for widen in (False, True):
        assert count_kinds(sample(proposals, widen_background=widen)) == (1, 3)


@pytest.mark.parametrize(
    ("options", "background"),
    [({}, 0), ({"widen_background": True}, 64), ({"bg_iou": (0.0, 0.5)}, 64)],
)
def test_an_image_without_objects_gives_background_if_the_range_reaches_zero(options, background):
    none = np.zeros((0, 4), np.float32)
    sampled = sample(make_far_boxes(100), none, np.zeros(0, int), np.zeros(0, bool), **options)
    assert count_kinds(sampled) == (0, background)


@pytest.mark.parametrize("objects", [0, 1])
def test_no_proposals(objects):
    none = np.zeros((0, 4), np.float32)
    sampled = sample(none, OBJECT[:objects], ONE[:objects], PLAIN[:objects])
    assert count_kinds(sampled) == (objects, 0)
    assert sampled.boxes.shape == (objects, 4)
    assert sampled.targets.shape == (objects, 4)


def test_a_single_proposal_gives_one_background_roi():
    sampled = sample(make_far_boxes(1), OBJECT[:0], ONE[:0], PLAIN[:0], widen_background=True)
    assert count_kinds(sampled) == (0, 1)


def test_crowds_are_neither_foreground_nor_background():
    crowd = np.array([[0, 0, 400, 400]], np.float32)
    inside = shift_object(100, 0.2, 0.9)
    gt = np.concatenate([crowd, np.array([[500, 500, 600, 600]], np.float32)])
    sampled = sample(
        np.concatenate([crowd, inside, make_far_boxes(10) + 200]),
        gt,
        np.array([1, 2]),
        np.array([True, False]),
        widen_background=True,
    )
    assert set(sampled.labels[sampled.labels > 0]) == {2}
    shared = geometry.intersection(sampled.boxes, crowd)[:, 0] / geometry.area(sampled.boxes)
    assert shared.max() < 0.7
    assert count_kinds(sampled)[1] > 0


def test_each_foreground_matches_its_best_object():
    gt = np.array([[100, 100, 200, 200], [120, 100, 220, 200]], np.float32)
    near_second = np.array([[118, 100, 218, 200]], np.float32)
    sampled = sample(near_second, gt, np.array([1, 2]), np.array([False, False]))
    row = int(np.flatnonzero((sampled.boxes == near_second).all(axis=1))[0])
    assert sampled.labels[row] == 2
    np.testing.assert_allclose(sampled.targets[row], [0.02, 0, 0, 0], atol=1e-6)


def test_equal_generators_draw_equal_samples():
    proposals = np.concatenate([shift_object(50, 0.55, 0.95), shift_object(200, 0.12, 0.45)])
    first, again, other = (sample(proposals, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.boxes, other.boxes)


def test_modules_for_drivers_and_tasks_load_without_torch():
    code = (
        "import sys; import pipeline.detector.sampling, pipeline.detector.targets, "
        "pipeline.detector.preprocessing, pipeline.detector.checkpoint_record, "
        "pipeline.detector.postprocessing_settings; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(st.integers(0, 150), st.integers(0, 6), st.integers(0, 2**31), st.integers(1, 90))
def test_samples_respect_quotas_without_replacement_and_decode_to_objects(
    num_proposals, num_objects, seed, per_image
):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corners = rng.uniform(0, 100, (count, 2))
        return np.concatenate([corners, corners + rng.uniform(1, 80, (count, 2))], 1).astype("f4")

    proposals, gt = boxes(num_proposals), boxes(num_objects)
    labels, crowd = rng.integers(1, 5, num_objects), rng.random(num_objects) < 0.3
    sampled = sample_rois(proposals, gt, labels, crowd, rng, rois_per_image=per_image)
    foreground, background = count_kinds(sampled)
    assert foreground <= round(0.25 * per_image)
    assert foreground + background <= per_image
    candidates = np.concatenate([proposals, gt[~crowd]])
    unused = [tuple(box) for box in candidates]
    for box, label, target in zip(sampled.boxes, sampled.labels, sampled.targets, strict=True):
        unused.remove(tuple(box))  # without replacement: each candidate once
        if label:
            decoded = geometry.decode_deltas(target[None, None], box[None])[0]
            distance = np.abs(decoded - gt[(labels == label) & ~crowd]).max(axis=1)
            assert distance.min() < 1e-3
