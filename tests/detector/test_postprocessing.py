import numpy as np
import pytest
import torch

from pipeline.detector.postprocessing import (
    list_candidate_scores,
    select_detections,
    select_in_images,
)
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from tests.detector import plain_predictor
from tests.detector.networks import draw_random_boxes

SIZE = (200, 300)


def draw_scored_rois(seed, count, classes=3):
    """Draw scores, deltas and boxes of RoIs; all scores differ."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(count, classes + 1)))
    deltas = torch.from_numpy(rng.normal(scale=0.3, size=(count, classes + 1, 4)))
    boxes = torch.from_numpy(draw_random_boxes(rng, count, *SIZE).astype(np.float64))
    return logits.softmax(dim=1), deltas, boxes


def select_plainly(scores, deltas, boxes, settings):
    rows = [
        (
            float(scores[roi, label + 1]),
            label,
            plain_predictor.clip_box(
                plain_predictor.apply_delta(boxes[roi].tolist(), deltas[roi, label + 1].tolist()),
                SIZE[1],
                SIZE[0],
            ),
        )
        for roi in range(len(boxes))
        for label in range(scores.shape[1] - 1)
    ]
    return plain_predictor.select_best(rows, settings, scores.shape[1] - 1)


# torchvision's NMS has two implementations and chooses by the number of boxes.
@pytest.mark.parametrize("count", [1, 40, 500])
@pytest.mark.parametrize("rule", ["default", "paper"])
def test_selection_equals_the_plain_predictor(rule, count):
    settings = PostprocessingSettings(rule=rule, max_per_image=60, score_threshold=0.1)
    scores, deltas, boxes = draw_scored_rois(count, count)
    selected, values, labels = select_detections(scores, deltas, boxes, SIZE, settings)
    expected = select_plainly(scores, deltas, boxes, settings)
    assert len(expected) == len(selected) > 0
    np.testing.assert_allclose(values, [score for score, _, _ in expected])
    np.testing.assert_array_equal(labels, [label for _, label, _ in expected])
    np.testing.assert_allclose(selected, [box for _, _, box in expected], atol=1e-9)


def select_of_one_class(scores, boxes, settings):
    """Select detections of one class whose boxes are those of the RoIs."""
    scores = torch.tensor([[1 - s, s] for s in scores])
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return select_detections(scores, torch.zeros(len(boxes), 2, 4), boxes, SIZE, settings)


def test_thresholds_and_caps_of_a_hand_worked_case():
    # The second overlaps the first by 60 / 140 = 0.43, the third by 20 / 180 = 0.11.
    boxes = [[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [100, 100, 110, 110]]
    scores = [0.9, 0.8, 0.7, 0.04]
    selected, values, _ = select_of_one_class(scores, boxes, PostprocessingSettings())
    np.testing.assert_allclose(values, [0.9, 0.7])
    np.testing.assert_allclose(selected, [boxes[0], boxes[2]])
    for settings, count in (
        (PostprocessingSettings(nms_iou=0.5), 3),
        (PostprocessingSettings(max_per_image=1), 1),
        (PostprocessingSettings(rule="paper"), 3),  # no threshold
        (PostprocessingSettings(rule="paper", max_per_image=2), 1),
    ):
        assert len(select_of_one_class(scores, boxes, settings)[0]) == count


@pytest.mark.parametrize(("rule", "count"), [("default", 2), ("paper", 1)])
def test_an_overlap_at_the_limit_is_dropped_by_the_papers_rule_alone(rule, count):
    boxes = [[0, 0, 13, 10], [7, 0, 20, 10]]  # IoU 60 / 200 = 0.3
    for scores in ([0.9, 0.8], [0.8, 0.9]):
        settings = PostprocessingSettings(rule=rule)
        assert len(select_of_one_class(scores, boxes, settings)[0]) == count
        below = PostprocessingSettings(rule=rule, nms_iou=0.3001)
        assert len(select_of_one_class(scores, boxes, below)[0]) == 2


def test_equal_scores_keep_the_order_of_the_rois():
    boxes = [[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(12)]
    for rule in ("default", "paper"):
        selected, _, _ = select_of_one_class(
            [0.5] * 12, boxes, PostprocessingSettings(rule=rule, max_per_image=5)
        )
        np.testing.assert_allclose(selected, boxes[:5])


def test_boxes_that_move_out_of_the_image_are_dropped():
    scores, boxes = torch.tensor([[0.1, 0.9]]), torch.tensor([[280.0, 0.0, 300.0, 20.0]])
    deltas = torch.zeros(1, 2, 4)
    deltas[0, 1, 0] = 5
    assert len(select_detections(scores, deltas, boxes, SIZE, PostprocessingSettings())[0]) == 0


def test_candidate_scores_are_those_of_the_boxes_that_enter_nms():
    scores, deltas, boxes = draw_scored_rois(3, 40)
    settings = PostprocessingSettings(rule="paper", max_per_image=7, nms_iou=1.0)
    candidates = list_candidate_scores(scores, settings).reshape(3, 7)
    assert torch.equal(candidates, scores[:, 1:].sort(dim=0, descending=True).values[:7].T)
    selected = select_detections(scores, deltas, boxes, SIZE, settings)
    for label in range(3):  # NMS at an IoU of 1 drops none
        assert torch.equal(selected[1][selected[2] == label], candidates[label])
    few = list_candidate_scores(scores[:2], settings)
    assert len(few) == 3 * 2


def test_records_name_the_mean_only_where_it_matters():
    assert "mean_per_image" not in PostprocessingSettings().to_record()
    assert (
        "mean_per_image"
        not in PostprocessingSettings(rule="paper", mean_per_image=None).to_record()
    )
    assert PostprocessingSettings(rule="paper").to_record()["mean_per_image"] == 40


@pytest.mark.parametrize("rule", ["default", "paper"])
def test_without_regression_detections_are_the_proposals_own_boxes(rule):
    scores, deltas, boxes = draw_scored_rois(3, 40)
    settings = PostprocessingSettings(rule=rule, refine_boxes=False)
    selected, _, _ = select_detections(scores, deltas, boxes, SIZE, settings)
    refined, _, _ = select_detections(
        scores, deltas, boxes, SIZE, PostprocessingSettings(rule=rule)
    )
    expected, _, _ = select_detections(
        scores, torch.zeros_like(deltas), boxes, SIZE, PostprocessingSettings(rule=rule)
    )
    assert torch.allclose(selected, expected)
    assert len(selected) > 5
    assert not torch.equal(selected, refined)


def test_records_name_the_regression_only_if_it_is_off():
    """Runs of earlier releases keep their fingerprint."""
    assert "refine_boxes" not in PostprocessingSettings().to_record()
    assert PostprocessingSettings(refine_boxes=False).to_record()["refine_boxes"] is False


# Few boxes are compared at once, many image by image.
@pytest.mark.parametrize("count", [20, 400])
@pytest.mark.parametrize("rule", ["default", "paper"])
def test_several_images_together_have_the_detections_of_each_alone(rule, count):
    settings = PostprocessingSettings(rule=rule, max_per_image=30, score_threshold=0.2)
    counts, sizes = [count, 1, count // 2], [(200, 300), (90, 80), (120, 250)]
    drawn = [draw_scored_rois(number, number) for number in counts]
    scores, deltas, boxes = (torch.cat(values) for values in zip(*drawn, strict=True))
    together = select_in_images(scores, deltas, boxes, counts, sizes, settings=settings)
    first_rows = np.cumsum([0, *counts])
    for number, (of_image, size) in enumerate(zip(drawn, sizes, strict=True)):
        own = together.images == number
        alone = select_in_images(*of_image, [counts[number]], [size], settings=settings)
        assert torch.equal(together.boxes[own], alone.boxes)
        assert torch.equal(together.scores[own], alone.scores)
        assert torch.equal(together.labels[own], alone.labels)
        assert torch.equal(together.rows[own] - first_rows[number], alone.rows)
        selected = select_detections(*of_image, size, settings)[0]
        assert torch.equal(selected, alone.boxes[: 30 if rule == "default" else None])
    assert together.images.tolist() == sorted(together.images.tolist())
    assert len(together.images) > 20
