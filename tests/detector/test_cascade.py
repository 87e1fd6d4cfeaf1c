from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.detector.cascade import StepDetections, score_in_steps
from pipeline.detector.cascade_settings import CascadeSettings
from pipeline.detector.detection_settings import DetectionSettings
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import Predictor
from pipeline.detector.pyramid import Pyramid
from pipeline.errors import InvalidConfiguration
from tests.detector.networks import (
    build_random_trained_network,
    draw_random_boxes,
    draw_random_image,
)

EVERYTHING = PostprocessingSettings(score_threshold=0.0, nms_iou=1.0, max_per_image=10_000)


class TableBatch:
    """Stands for images on the device: scores come from a table, and every call is noted."""

    def __init__(self, tables):
        self.tables, self.calls = tables, []

    def score_until(self, ends):
        self.calls.append(dict(ends))

    def gather(self, image_index, end):
        from pipeline.detector.head_outputs import HeadOutputs

        scores = torch.tensor(self.tables[image_index][:end])
        return HeadOutputs(np.arange(end), scores, scores)


def run_steps(tables, least_score=0.5, **options):
    """Score images whose detections are the boxes of a score of .2 or more; returns counts and calls."""

    def detect(index, scores, deltas):
        rows = np.flatnonzero(scores.numpy() >= 0.2)
        return StepDetections(scores.numpy()[rows], rows)

    batch = TableBatch(tables)
    counts = {index: len(scores) for index, scores in tables.items()}
    scored = score_in_steps([batch], counts, CascadeSettings(**options), least_score, detect)
    return scored, batch.calls


def test_steps_of_a_hand_worked_case():
    # Batches of two. Image 0 ends after two idle batches (.1 .1, .3 .1); the .9 behind them is not seen.
    # Image 1 has a detection in its fourth batch, before a second idle one in a row, and reaches its end.
    tables = {
        0: [0.9, 0.1, 0.1, 0.1, 0.3, 0.1, 0.9, 0.9],
        1: [0.1, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.5, 0.1],
        2: [],
    }
    scored, calls = run_steps(tables, stop_after=2, stop_batch=2)
    assert scored == {0: 6, 1: 9, 2: 0}
    assert calls == [{0: 2, 1: 2}, {0: 4, 1: 4}, {0: 6, 1: 6}, {1: 8}, {1: 9}]


@pytest.mark.parametrize(
    ("least_score", "options", "expected"),
    [
        (0.5, {"stop_after": 1, "stop_batch": 2}, 4),
        (0.2, {"stop_after": 1, "stop_batch": 2}, 4),
        (0.2, {"stop_after": 2, "stop_batch": 2}, 8),  # .3 counts now, so all batches are seen
        (0.5, {"stop_after": 1, "stop_batch": 4}, 8),
        (0.95, {"stop_after": 3, "stop_batch": 1}, 3),
        (0.5, {"stop_after": 9, "stop_batch": 100}, 8),
    ],
)
def test_a_threshold_a_patience_and_a_batch_decide_where_scoring_stops(
    least_score, options, expected
):
    tables = {0: [0.9, 0.1, 0.1, 0.1, 0.3, 0.1, 0.9, 0.9]}
    scored, _ = run_steps(tables, least_score, **options)
    assert scored == {0: expected}


def draw_case(seed, height, width, count=40):
    rng = np.random.default_rng(seed)
    boxes = draw_random_boxes(rng, count, height, width)
    boxes[count // 2 :: 5] = boxes[0] + np.float32(0.02)  # pool the same cells as the first
    return draw_random_image(rng, height, width), boxes


@pytest.mark.parametrize("pyramid", [Pyramid(), Pyramid(scales=(160, 320, 480), scale_cap=800)])
@pytest.mark.parametrize("images_per_batch", [1, 3])
def test_a_patience_beyond_all_batches_changes_nothing(pyramid, images_per_batch):
    trained = build_random_trained_network(3)
    cases = [
        draw_case(seed, *size) for seed, size in enumerate([(160, 220), (220, 160), (160, 220)])
    ]
    images, proposals = zip(*cases, strict=True)
    proposals = [*proposals[:2], np.concatenate([proposals[2], [[900, 900, 950, 950]]])]  # outside
    options = {"precision": "fp32", "postprocessing": EVERYTHING, "pyramid": pyramid}
    whole = Predictor(trained, **options)(images, proposals)
    cascade = CascadeSettings(stop_after=1000, stop_batch=7)
    predictor = Predictor(
        trained, **options, cascade=cascade, max_images_per_batch=images_per_batch
    )
    stepwise = predictor(images, proposals)
    assert [d.num_scored for d in stepwise] == [40, 40, 40]
    for a, b in zip(whole, stepwise, strict=True):
        assert a.num_scored is None
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
        for one, other in ((a, b), (b, a)):
            key = [np.lexsort([*d.boxes.T.round(1), d.labels]) for d in (one, other)]
            np.testing.assert_allclose(one.boxes[key[0]], other.boxes[key[1]], atol=0.05)


def count_scored_plainly(predictor, image, boxes, step, least_score):
    """The proposals up to the first batch after which no detection is new, by detecting again for each."""
    before: list = []
    for end in range(step, len(boxes) + step, step):
        (now,) = predictor([image], [boxes[:end]])
        good = now.scores[now.scores >= least_score]
        if all(np.isclose(before, score, rtol=0, atol=1e-5).any() for score in good):
            break
        before = now.scores
    return min(end, len(boxes)), now


@pytest.mark.parametrize("pyramid", [Pyramid(), Pyramid(scales=(160, 320), scale_cap=800)])
def test_an_image_that_stops_has_the_detections_of_its_first_proposals(pyramid):
    trained = build_random_trained_network(1)
    cases = [draw_case(seed, 160, 220) for seed in range(3)]
    images, proposals = zip(*cases, strict=True)
    settings = PostprocessingSettings(score_threshold=0.1, nms_iou=0.3)
    options = {"precision": "fp32", "postprocessing": settings, "pyramid": pyramid}
    cascade = CascadeSettings(stop_after=1, stop_batch=5, stop_score=0.7)
    stopped = Predictor(trained, **options, cascade=cascade, max_images_per_batch=2)(
        images, proposals
    )
    plain = Predictor(trained, **options)
    for image, boxes, detections in zip(images, proposals, stopped, strict=True):
        count, expected = count_scored_plainly(plain, image, boxes, 5, 0.7)
        assert detections.num_scored == count
        np.testing.assert_allclose(detections.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(detections.boxes, expected.boxes, atol=0.01)
    assert min(detections.num_scored for detections in stopped) < 40


def test_images_without_proposals_and_no_images():
    predictor = Predictor(
        build_random_trained_network(), cascade=CascadeSettings(stop_after=1, stop_batch=3)
    )
    image, boxes = draw_case(0, 60, 80)
    empty, some = predictor([image, image], [np.zeros((0, 4), np.float32), boxes])
    assert len(empty.scores) == 0
    assert len(some.scores) > 0
    assert predictor([], []) == []


def test_settings_that_contradict_are_rejected_by_name():
    with pytest.raises(
        InvalidConfiguration, match="--stop-batch and --stop-score need --stop-after"
    ):
        CascadeSettings(stop_batch=16)
    with pytest.raises(InvalidConfiguration, match="--stop-after is 0, expected at least 1"):
        CascadeSettings(stop_after=0)
    with pytest.raises(InvalidConfiguration, match=r"--stop-score is 1\.5, expected 0 to 1"):
        CascadeSettings(stop_after=2, stop_score=1.5)
    cascade = CascadeSettings(stop_after=2, stop_score=0.01)
    with pytest.raises(
        InvalidConfiguration, match=r"--stop-score is 0\.01, expected at least 0\.05"
    ):
        DetectionSettings(cascade=cascade)
    with pytest.raises(InvalidConfiguration, match="--rule paper"):
        DetectionSettings(
            PostprocessingSettings(rule="paper"), cascade=CascadeSettings(stop_after=2)
        )


def test_run_json_has_the_cascade_only_if_it_is_set():
    plain = DetectionSettings()
    assert "cascade" not in plain.to_record()
    record = replace(plain, cascade=CascadeSettings(stop_after=2)).to_record()
    assert record["cascade"] == {"stop_after": 2, "stop_batch": 32, "stop_score": None}
