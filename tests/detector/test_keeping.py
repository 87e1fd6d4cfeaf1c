import numpy as np
import pytest
import torch

from pipeline.detector.keep import Keep
from pipeline.detector.keeping import kept
from tests.detector import plain_predictor
from tests.detector.networks import random_boxes

SIZE = (200, 300)


def scored(seed, count, classes=3):
    """Scores, deltas and boxes of RoIs; all scores differ."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, classes + 1)))
    deltas = torch.from_numpy(rng.normal(scale=0.3, size=(count, classes + 1, 4)))
    boxes = torch.from_numpy(random_boxes(rng, count, *SIZE).astype(np.float64))
    return logits.softmax(dim=1), deltas, boxes


def plainly(scores, deltas, boxes, keep):
    rows = [
        (
            float(scores[roi, label + 1]),
            label,
            plain_predictor.clipped(
                plain_predictor.moved(boxes[roi].tolist(), deltas[roi, label + 1].tolist()),
                SIZE[1],
                SIZE[0],
            ),
        )
        for roi in range(len(boxes))
        for label in range(scores.shape[1] - 1)
    ]
    return plain_predictor.kept(rows, keep, scores.shape[1] - 1)


@pytest.mark.parametrize("count", [1, 40, 500])  # torchvision's NMS goes two ways by their number
@pytest.mark.parametrize("rule", ["default", "paper"])
def test_equals_the_plain_rule(rule, count):
    keep = Keep(rule=rule, max_per_image=60, score_threshold=0.1)
    scores, deltas, boxes = scored(count, count)
    found, values, labels = kept(scores, deltas, boxes, SIZE, keep)
    expected = plainly(scores, deltas, boxes, keep)
    assert len(expected) == len(found) > 0
    np.testing.assert_allclose(values, [score for score, _, _ in expected])
    np.testing.assert_array_equal(labels, [label for _, label, _ in expected])
    np.testing.assert_allclose(found, [box for _, _, box in expected], atol=1e-9)


def one_class(scores, boxes, keep):
    """Boxes and scores kept of RoIs that stay where they are."""
    scores = torch.tensor([[1 - s, s] for s in scores])
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return kept(scores, torch.zeros(len(boxes), 2, 4), boxes, SIZE, keep)


def test_hand_worked():
    # The second overlaps the first by 60 / 140 = 0.43, the third by 20 / 180 = 0.11.
    boxes = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [100, 100, 110, 110]]
    scores = [0.9, 0.8, 0.7, 0.04]
    found, values, _ = one_class(scores, boxes, Keep())
    np.testing.assert_allclose(values, [0.9, 0.7])
    np.testing.assert_allclose(found, [boxes[0], boxes[2]])
    assert len(one_class(scores, boxes, Keep(nms_iou=0.5))[0]) == 3
    assert len(one_class(scores, boxes, Keep(max_per_image=1))[0]) == 1
    assert len(one_class(scores, boxes, Keep(rule="paper"))[0]) == 3  # no threshold
    assert len(one_class(scores, boxes, Keep(rule="paper", max_per_image=2))[0]) == 1


def test_equal_scores_keep_the_order_of_the_rois():
    boxes = [[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(12)]
    for rule in ("default", "paper"):
        found, _, _ = one_class([0.5] * 12, boxes, Keep(rule=rule, max_per_image=5))
        np.testing.assert_allclose(found, boxes[:5])


def test_boxes_moved_out_of_the_image_are_dropped():
    scores, boxes = torch.tensor([[0.1, 0.9]]), torch.tensor([[280.0, 0.0, 300.0, 20.0]])
    deltas = torch.zeros(1, 2, 4)
    deltas[0, 1, 0] = 5
    assert len(kept(scores, deltas, boxes, SIZE, Keep())[0]) == 0
