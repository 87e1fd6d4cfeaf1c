from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline import imaging
from pipeline.detector import checkpoint as checkpoints
from pipeline.detector import inference
from pipeline.detector.keep import Keep
from pipeline.detector.predictor import Predictor
from pipeline.detector.pyramid import Pyramid, nearest, parts
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration
from tests.benchmarks import plain_detector
from tests.detector import plain_predictor
from tests.detector.networks import (
    CLASSES,
    SMALL,
    random_boxes,
    random_checkpoint,
    random_image,
    random_model,
)


def case(seed=0, height=60, width=80, count=60):
    rng = np.random.default_rng(seed)
    return random_image(rng, height, width), random_boxes(rng, count, height, width)


def assert_same(found, expected, tolerance=1e-4):
    assert len(found.scores) == len(expected)
    np.testing.assert_allclose(found.scores, [s for s, _, _ in expected], atol=tolerance)
    np.testing.assert_array_equal(found.labels, [label for _, label, _ in expected])
    boxes = np.array([box for _, _, box in expected]).reshape(-1, 4)
    np.testing.assert_allclose(found.boxes, boxes, atol=0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "keep",
    [
        Keep(),
        Keep(score_threshold=0.3, nms_iou=0.5, max_per_image=7),
        Keep(rule="paper"),
        Keep(rule="paper", max_per_image=9, nms_iou=0.4),
    ],
)
def test_equals_the_plain_one(keep, seed):
    checkpoint = random_checkpoint(seed)
    image, proposals = case(seed)
    expected = plain_predictor.detect(checkpoint, keep, image, proposals)
    assert len(expected) > 5
    (found,) = Predictor(checkpoint, precision="fp32", keep=keep)([image], [proposals])
    assert_same(found, expected)


@pytest.mark.parametrize("size", [(60, 80), (63, 71)])
@pytest.mark.parametrize("backbone", plain_detector.NETWORKS)
def test_equals_torchvisions_parts(backbone, size):
    model = random_model(backbone)
    with torch.no_grad():  # deep random networks magnify: keep boxes near, scores apart
        outputs = model(torch.randn(1, 3, 64, 96), torch.tensor([[0, 4.0, 5.0, 60.0, 50.0]]))
        for layer, output, spread in zip(
            (model.cls_score, model.bbox_pred), outputs, (1.0, 0.1), strict=True
        ):
            layer.weight *= spread / output.std()
            layer.bias *= spread / output.std()
    checkpoint = checkpoints.Checkpoint(model, SMALL)
    image, proposals = case(3, *size, count=30)
    keep = Keep(score_threshold=0.0, nms_iou=1.0, max_per_image=1000)
    (found,) = Predictor(checkpoint, precision="fp32", keep=keep)([image], [proposals])
    expected = plain_detector.PlainDetector(checkpoint, keep)(imaging.encode_png(image), proposals)
    assert len(found.scores) == len(expected.scores) == 90
    rows = [
        np.column_stack([it.labels, it.scores, it.boxes])[np.lexsort([*it.boxes.T, it.labels])]
        for it in (found, expected)
    ]
    np.testing.assert_allclose(rows[0][:, :2], rows[1][:, :2], atol=1e-3)
    np.testing.assert_allclose(rows[0][:, 2:], rows[1][:, 2:], atol=0.05)


def test_coinciding_rois_share_scores_but_keep_their_boxes():
    checkpoint = random_checkpoint(4)
    image, proposals = case(4, count=12)
    doubled = np.concatenate([proposals, proposals + np.float32(0.02)]).clip(0, 80)
    keep = Keep(score_threshold=0.0, nms_iou=1.0, max_per_image=1000)
    (found,) = Predictor(checkpoint, precision="fp32", keep=keep)([image], [doubled])
    expected = plain_predictor.detect(checkpoint, keep, image, doubled)
    assert len(found.scores) == len(expected) == 72
    order = np.lexsort([*found.boxes.T, found.labels])
    plain = np.array([[*box, label, score] for score, label, box in expected])
    plain = plain[np.lexsort([*plain[:, :5].T])]
    np.testing.assert_allclose(found.boxes[order], plain[:, :4], atol=0.01)
    np.testing.assert_allclose(found.scores[order], plain[:, 5], atol=1e-4)


def test_batches_do_not_change_what_is_found():
    checkpoint = random_checkpoint(1)
    cases = [case(s, *size) for s, size in enumerate([(60, 80), (80, 60), (60, 80), (60, 80)])]
    images, proposals = zip(*cases, strict=True)
    whole = Predictor(checkpoint, precision="fp32", max_images_per_batch=3)(images, proposals)
    single = Predictor(checkpoint, precision="fp32", max_images_per_batch=1, max_rois_per_batch=7)
    for image, boxes, together in zip(images, proposals, whole, strict=True):
        (alone,) = single([image], [boxes])
        np.testing.assert_allclose(alone.scores, together.scores, atol=1e-5)
        np.testing.assert_allclose(alone.boxes, together.boxes, atol=1e-2)
        np.testing.assert_array_equal(alone.labels, together.labels)


def test_batches_are_of_equal_shape_in_the_order_given():
    predictor = Predictor(random_checkpoint(), max_images_per_batch=2)
    sizes = [(6, 8), (8, 6), (6, 8), (12, 16), (9, 9)]
    boxes = [np.ones((1, 4), np.float32)] * 4 + [np.zeros((0, 4), np.float32)]
    batches = [
        (shape, [part.image for part in batch])
        for shape, batch in predictor._batches(parts(boxes, sizes, predictor.levels))
    ]
    assert batches == [((64, 85), [0, 2]), ((64, 85), [3]), ((85, 64), [1])]


def test_several_scales_equal_the_plain_one():
    checkpoint = random_checkpoint(3)
    size = (160, 220)
    image, proposals = case(3, *size, count=12)
    proposals = np.concatenate([proposals, np.array([[0, 0, 200, 150]], np.float32)])
    # Doubles differ by less than a cell, so each scale computes them once.
    proposals = np.concatenate([proposals, proposals + np.float32(0.02)]).clip(0, 160)
    pyramid = Pyramid(scales=(160, 320, 480), scale_cap=800)
    levels = pyramid.levels(SMALL)
    of_roi = nearest(proposals, size, [level.resized_shape(*size) for level in levels])
    assert set(of_roi) == {0, 1, 2}
    every = [
        row
        for number, level in enumerate(levels)
        for row in plain_predictor.scored(
            replace(checkpoint, preprocessing=level), image, proposals[of_roi == number]
        )
    ]
    keep = Keep(score_threshold=0.1, nms_iou=0.5)
    expected = plain_predictor.kept(every, keep, len(CLASSES))
    assert len(expected) > 5
    predictor = Predictor(checkpoint, precision="fp32", keep=keep, pyramid=pyramid)
    others = [case(seed, *size) for seed, size in ((5, (160, 220)), (6, (220, 160)))]
    found = predictor([others[0][0], image, others[1][0]], [others[0][1], proposals, others[1][1]])
    assert_same(found[1], expected)


@pytest.mark.parametrize(
    "pyramid",
    [
        Pyramid(scales=(64, 64, 64)),
        Pyramid(scales=(72, 64, 80), scale_cap=80),  # all come to 60 x 80
        Pyramid(scale_cap=128),
    ],
)
def test_equal_scales_are_one(pyramid):
    checkpoint = random_checkpoint(2)
    image, proposals = case(2)
    level = pyramid.levels(SMALL)[0]
    alone = replace(checkpoint, preprocessing=level)
    single = Predictor(alone, precision="fp32")([image], [proposals])[0]
    assert len(single.scores) > 5
    several = Predictor(checkpoint, precision="fp32", pyramid=pyramid)([image], [proposals])[0]
    for one, other in zip(single, several, strict=True):
        np.testing.assert_array_equal(one, other)


def test_results_are_well_formed():
    image, proposals = case()
    (found,) = Predictor(random_checkpoint())([image], [proposals])
    assert found.boxes.dtype == np.float32
    assert found.scores.dtype == np.float32
    assert found.labels.dtype == np.int32
    assert set(found.labels) <= {0, 1, 2}
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [80, 60, 80, 60]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_nothing_to_look_at():
    predictor = Predictor(random_checkpoint())
    image, proposals = case()
    none, outside = np.zeros((0, 4), np.float32), proposals + 500
    found = predictor([image] * 3, [none, outside, proposals])
    assert [len(d.boxes) for d in found[:2]] == [0, 0]
    assert found[0].boxes.shape == (0, 4)
    assert len(found[2].boxes) > 0
    assert predictor([], []) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_odd_images(size):
    whole = np.array([[0, 0, size[1], size[0]]], np.float32)
    keep = Keep(score_threshold=0.0)
    (found,) = Predictor(random_checkpoint(), keep=keep)([np.zeros((*size, 3), np.uint8)], [whole])
    assert len(found.boxes) > 0
    assert (found.boxes <= [size[1], size[0], size[1], size[0]]).all()


@pytest.mark.parametrize("backbone", ["tiny", "mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_and_leaves_the_checkpoint_alone(precision, backbone, monkeypatch):
    # torch emulates fp16 where the processor lacks it: too slow to be allowed, right all the same.
    monkeypatch.setattr(inference, "_computes_fp16", lambda device: True)
    model = random_model(backbone)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    checkpoint = checkpoints.Checkpoint(model, SMALL)
    image, proposals = case(count=30)
    keep = Keep(score_threshold=0.0, nms_iou=1.0, max_per_image=1000)
    full, half = (
        Predictor(checkpoint, precision=chosen, keep=keep)([image], [proposals])[0]
        for chosen in ("fp32", precision)
    )
    tolerance = 0.05 if precision == "bf16" else 0.01
    assert abs(np.sort(full.scores) - np.sort(half.scores)).max() < tolerance
    assert not np.array_equal(full.scores, half.scores)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_fp16_is_refused_where_it_would_be_emulated(monkeypatch):
    monkeypatch.setattr(inference, "_computes_fp16", lambda device: False)
    with pytest.raises(InvalidConfiguration, match="no fp16 arithmetic"):
        Predictor(random_checkpoint(), precision="fp16")


def test_loads_from_a_folder_and_repeats_itself(tmp_path):
    model = random_model()
    checkpoints.save(str(tmp_path), model, SMALL)
    image, proposals = case()
    predictor = Predictor(str(tmp_path))
    assert predictor.classes == CLASSES
    first, again = predictor([image], [proposals])[0], predictor([image], [proposals])[0]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InvalidCheckpoint):
        Predictor(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "options", [{"device": "tpu"}, {"device": "cuda:77"}, {"precision": "fp8"}]
)
def test_unknown_options_are_named(options):
    with pytest.raises(InvalidConfiguration, match=str(next(iter(options.values())))):
        Predictor(random_checkpoint(), **options)


@pytest.mark.parametrize(
    "fields", [{"rule": "best"}, {"score_threshold": 2}, {"nms_iou": -1}, {"max_per_image": 0}]
)
def test_senseless_rules_are_refused(fields):
    with pytest.raises(InvalidConfiguration):
        replace(Keep(), **fields)
