import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detector.pooling import roi_max_pool
from pipeline.detector.preprocessing import Preprocessing
from pipeline.detector.rois import build_roi_batch, clip_proposals
from tests.detector.networks import draw_random_boxes

PLAIN = Preprocessing()
RELEASED = Preprocessing(shift_rois_first=True)


def test_proposals_are_clipped_and_empty_ones_dropped():
    boxes = np.array([[-5, -5, 10, 10], [30, 0, 50, 10], [3, 3, 3, 9], [0, 0, 20, 20]], float)
    expected = [[0, 0, 10, 10], [0, 0, 20, 20]]
    np.testing.assert_array_equal(clip_proposals(boxes, 20, 20), expected)
    assert clip_proposals(np.zeros((0, 4), np.float32), 20, 20).shape == (0, 4)


def test_a_batch_keeps_the_order_and_scales_to_the_resized_images():
    first = np.array([[0, 0, 10, 20]], np.float32)
    second = np.array([[10, 10, 90, 90], [0, 0, 10, 20]], np.float32)
    rois = build_roi_batch([first, second], [(100, 200), (50, 100)], (200, 400), 1 / 16, PLAIN)
    np.testing.assert_array_equal(
        rois.unique, [[0, 0, 0, 20, 40], [1, 40, 40, 360, 360], [1, 0, 0, 40, 80]]
    )
    np.testing.assert_array_equal(rois.unique_index, [0, 1, 2])


def test_rois_that_pool_the_same_cells_become_one():
    boxes = np.array([[0, 0, 100, 100], [60, 0, 90, 90], [3, 2, 101, 99], [0, 0, 100, 100]])
    rois = build_roi_batch([boxes.astype(np.float32)], [(160, 160)], (160, 160), 1 / 16, PLAIN)
    np.testing.assert_array_equal(rois.unique_index, [0, 1, 0, 0])
    np.testing.assert_array_equal(rois.unique[:, 1:], boxes[:2])


@given(st.integers(0, 2**31))
def test_rois_that_become_one_have_equal_pooled_features(seed):
    rng = np.random.default_rng(seed)
    boxes = draw_random_boxes(rng, 60, 96, 128)
    boxes[rng.random(60) < 0.5] = np.round(boxes[0] / 4) * 4 + [0, 0, 4, 4]
    rois = build_roi_batch([boxes], [(96, 128)], (192, 256), 1 / 16, PLAIN)
    features = torch.from_numpy(rng.normal(size=(1, 3, 12, 16)).astype(np.float32))
    all_rois = np.concatenate([np.zeros((60, 1)), boxes * 2], axis=1).astype(np.float32)
    pooled = roi_max_pool(features, torch.from_numpy(all_rois), 7, 1 / 16)
    once = roi_max_pool(features, torch.from_numpy(rois.unique), 7, 1 / 16)
    assert torch.equal(once[torch.from_numpy(rois.unique_index)], pooled)


def round_half_away(value):
    return np.sign(value) * np.floor(np.abs(value) + 0.5)


def test_the_two_orders_of_a_hand_worked_roi():
    # At twice the size, the last pixel of 0..12 is 11: the released code scales it to 22 and rounds 22 / 16
    # to cell 1; the other order takes 24 - 1 = 23. From 0..13, 24 / 16 rounds to 2, and 25 / 16 too.
    boxes = np.array([[0, 0, 12, 13]], np.float32)
    np.testing.assert_array_equal(
        RELEASED.project_rois(boxes, (50, 60), (100, 120)), [[0, 0, 23, 25]]
    )
    np.testing.assert_array_equal(PLAIN.project_rois(boxes, (50, 60), (100, 120)), [[0, 0, 24, 26]])


@pytest.mark.parametrize(("size", "shape"), [((480, 640), (600, 800)), ((333, 500), (600, 901))])
def test_the_released_order_pools_the_released_cells(size, shape):
    # The first cell of each corner shows which cells a RoI begins and ends with.
    boxes = np.round(draw_random_boxes(np.random.default_rng(5), 4000, *size)).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    factors = np.array([shape[1] / size[1], shape[0] / size[0]] * 2)
    released = ((boxes - [0, 0, 1, 1]) * factors).astype(np.float32)
    expected = round_half_away(released * np.float32(1 / 16))
    counts = {}
    for name, preprocessing in (("released", RELEASED), ("other", PLAIN)):
        rois = preprocessing.project_rois(boxes, size, shape) - np.array([0, 0, 1, 1], np.float32)
        cells = round_half_away(rois * np.float32(1 / 16))
        counts[name] = int((cells != expected).any(axis=1).sum())
    assert counts["released"] == 0
    assert counts["other"] > 0.03 * len(boxes)


def test_a_corner_that_is_not_a_number_drops_its_box_alone():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]], np.float64)
    boxes[1, 2] = np.nan
    np.testing.assert_array_equal(clip_proposals(boxes, 20, 5), [[0, 0, 5, 9]] * 2)


@pytest.mark.parametrize("seed", range(3))
def test_distinct_rois_are_those_that_numpy_finds(seed):
    rng = np.random.default_rng(seed)
    boxes = draw_random_boxes(rng, 3000, 40, 60)  # few cells, so that most RoIs are alike
    rois = build_roi_batch([boxes[:10], boxes], [(40, 60)] * 2, (80, 120), 1 / 16, PLAIN)
    cells = round_half_away((boxes * 2 - [0, 0, 1, 1]).astype(np.float32) / 16)
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    of_second = rois.unique[:, 0] == 1
    np.testing.assert_array_equal(rois.unique[of_second, 1:], boxes[first[order]] * 2)
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    np.testing.assert_array_equal(
        rois.unique_index[10:] - (~of_second).sum(), rank[inverse.ravel()]
    )
    assert 10 < len(first) < 2500
