import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detector.pooling import roi_max_pool
from pipeline.detector.rois import build_roi_batch, clip_proposals
from tests.detector.networks import draw_random_boxes


def test_proposals_are_clipped_and_empty_ones_dropped():
    boxes = np.array([[-5, -5, 10, 10], [30, 0, 50, 10], [3, 3, 3, 9], [0, 0, 20, 20]], float)
    expected = [[0, 0, 10, 10], [0, 0, 20, 20]]
    np.testing.assert_array_equal(clip_proposals(boxes, 20, 20), expected)
    assert clip_proposals(np.zeros((0, 4), np.float32), 20, 20).shape == (0, 4)


def test_a_batch_keeps_the_order_and_scales_to_the_resized_images():
    first = np.array([[0, 0, 10, 20]], np.float32)
    second = np.array([[10, 10, 90, 90], [0, 0, 10, 20]], np.float32)
    rois = build_roi_batch([first, second], [(100, 200), (50, 100)], (200, 400), 1 / 16)
    np.testing.assert_array_equal(
        rois.unique, [[0, 0, 0, 20, 40], [1, 40, 40, 360, 360], [1, 0, 0, 40, 80]]
    )
    np.testing.assert_array_equal(rois.unique_index, [0, 1, 2])
    np.testing.assert_array_equal(rois.image_index, [0, 1, 1])


def test_rois_that_pool_the_same_cells_become_one():
    boxes = np.array([[0, 0, 100, 100], [60, 0, 90, 90], [3, 2, 101, 99], [0, 0, 100, 100]])
    rois = build_roi_batch([boxes.astype(np.float32)], [(160, 160)], (160, 160), 1 / 16)
    np.testing.assert_array_equal(rois.unique_index, [0, 1, 0, 0])
    np.testing.assert_array_equal(rois.unique[:, 1:], boxes[:2])


@given(st.integers(0, 2**31))
def test_rois_that_become_one_have_equal_pooled_features(seed):
    rng = np.random.default_rng(seed)
    boxes = draw_random_boxes(rng, 60, 96, 128)
    boxes[rng.random(60) < 0.5] = np.round(boxes[0] / 4) * 4 + [0, 0, 4, 4]
    rois = build_roi_batch([boxes], [(96, 128)], (192, 256), 1 / 16)
    features = torch.from_numpy(rng.normal(size=(1, 3, 12, 16)).astype(np.float32))
    all_rois = np.concatenate([np.zeros((60, 1)), boxes * 2], axis=1).astype(np.float32)
    pooled = roi_max_pool(features, torch.from_numpy(all_rois), 7, 1 / 16)
    once = roi_max_pool(features, torch.from_numpy(rois.unique), 7, 1 / 16)
    assert torch.equal(once[torch.from_numpy(rois.unique_index)], pooled)
