import numpy as np
import pytest

from pipeline import geometry
from pipeline.proposals.soft_suppression import order_boxes


def _sort_by_area(boxes, scores):
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(areas, kind="stable")
    return boxes[order], scores[order]


def _order_slowly(boxes, scores, picks):
    """The definition: take the best, let it lower all others."""
    current = scores.astype(np.float64)
    overlaps = geometry.iou(boxes.astype(np.float64), boxes.astype(np.float64))
    order = []
    for _ in range(min(picks, len(boxes))):
        best = int(np.argmax(current))
        order.append(best)
        current *= 1 - 0.85 * np.clip((overlaps[best] - 0.5) / 0.5, 0, 1)
        current[order] = -1
    rest = [row for row in np.argsort(-current, kind="stable") if row not in order]
    return order + rest


def test_a_box_that_overlaps_a_better_one_comes_after_a_worse_one():
    # IoU of the second with the first: 80 / 100 -> 1 - .85 * .6 = .49; .9 * .49 = .441 < .5.
    boxes = np.array([[0, 0, 8, 10], [0, 0, 10, 10], [50, 0, 61, 10]], np.int32)
    scores = np.array([0.9, 1.0, 0.5], np.float32)
    assert order_boxes(boxes, scores).tolist() == [1, 2, 0]
    scores[2] = 0.44
    assert order_boxes(boxes, scores).tolist() == [1, 0, 2]


def test_half_overlapping_boxes_do_not_matter_to_each_other():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 20, 10]], np.int32)
    assert order_boxes(boxes, np.array([0.5, 0.6], np.float32)).tolist() == [1, 0]
    assert order_boxes(boxes, np.array([0.6, 0.5], np.float32)).tolist() == [0, 1]


def test_equal_scores_keep_the_order_of_rows():
    boxes = np.array([[i * 20, 0, i * 20 + 10, 10] for i in range(5)], np.int32)
    assert order_boxes(boxes, np.full(5, 0.5, np.float32)).tolist() == [0, 1, 2, 3, 4]
    assert order_boxes(boxes, np.full(5, 0.5, np.float32), picks=2).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_boxes(count):
    boxes = np.array([[0, 0, 5, 5], [0, 0, 9, 9]], np.int32)[:count]
    order = order_boxes(boxes, np.array([0.1, 0.2], np.float32)[:count])
    assert order.tolist() == [[], [0], [1, 0]][count]


@pytest.mark.parametrize("picks", [1, 10, 1000])
def test_the_order_is_the_definitions(picks):
    random = np.random.default_rng(picks)
    corners = random.integers(0, 60, (150, 2))
    boxes = np.concatenate([corners, corners + random.integers(10, 60, (150, 2))], axis=1)
    scores = random.integers(1, 1000, 150).astype(np.float32) / 1000
    boxes, scores = _sort_by_area(boxes.astype(np.int32), scores)
    expected = _order_slowly(boxes, scores, picks)
    order = order_boxes(boxes, scores, picks)
    assert sorted(order.tolist()) == list(range(150))
    # The kernel computes in float32: almost equal scores may change places.
    assert np.mean(order == expected) > 0.9
    assert (order[:10] == expected[:10]).all()
