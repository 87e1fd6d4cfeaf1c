from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline import imaging
from pipeline.detector import device_selection
from pipeline.detector.checkpoint import TrainedNetwork, save_checkpoint
from pipeline.detector.image_groups import form_batches
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import Predictor
from pipeline.detector.pyramid import Pyramid, assign_levels, split_by_level
from pipeline.errors import InvalidCheckpoint, InvalidConfiguration, NotFiniteOutput
from tests.benchmarks import plain_detector
from tests.detector import plain_predictor
from tests.detector.networks import (
    CLASSES,
    SMALL,
    build_random_network,
    build_random_trained_network,
    draw_random_boxes,
    draw_random_image,
)


def draw_case(seed=0, height=60, width=80, count=60):
    rng = np.random.default_rng(seed)
    return draw_random_image(rng, height, width), draw_random_boxes(rng, count, height, width)


def assert_same(detections, expected, tolerance=1e-4):
    assert len(detections.scores) == len(expected)
    np.testing.assert_allclose(detections.scores, [s for s, _, _ in expected], atol=tolerance)
    np.testing.assert_array_equal(detections.labels, [label for _, label, _ in expected])
    boxes = np.array([box for _, _, box in expected]).reshape(-1, 4)
    np.testing.assert_allclose(detections.boxes, boxes, atol=0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        PostprocessingSettings(),
        PostprocessingSettings(score_threshold=0.3, nms_iou=0.5, max_per_image=7),
        PostprocessingSettings(rule="paper"),
        PostprocessingSettings(rule="paper", max_per_image=9, nms_iou=0.4),
    ],
)
def test_the_predictor_equals_the_plain_one(settings, seed):
    trained = build_random_trained_network(seed)
    image, proposals = draw_case(seed)
    expected = plain_predictor.detect(trained, settings, image, proposals)
    assert len(expected) > 5
    (detections,) = Predictor(trained, precision="fp32", postprocessing=settings)(
        [image], [proposals]
    )
    assert_same(detections, expected)


@pytest.mark.parametrize("size", [(60, 80), (63, 71)])
@pytest.mark.parametrize("backbone", plain_detector.NETWORKS)
def test_the_predictor_equals_a_detector_of_torchvision(backbone, size):
    network = build_random_network(backbone)
    with torch.no_grad():  # deep random networks amplify: bound the deltas, spread the scores
        outputs = network(torch.randn(1, 3, 64, 96), torch.tensor([[0, 4.0, 5.0, 60.0, 50.0]]))
        for layer, output, spread in zip(
            (network.cls_score, network.bbox_pred), outputs, (1.0, 0.1), strict=True
        ):
            layer.weight *= spread / output.std()
            layer.bias *= spread / output.std()
    trained = TrainedNetwork(network, SMALL)
    image, proposals = draw_case(3, *size, count=30)
    settings = PostprocessingSettings(score_threshold=0.0, nms_iou=1.0, max_per_image=1000)
    (detections,) = Predictor(trained, precision="fp32", postprocessing=settings)(
        [image], [proposals]
    )
    expected = plain_detector.PlainDetector(trained, settings)(imaging.encode_png(image), proposals)
    assert len(detections.scores) == len(expected.scores) == 90
    rows = [
        np.column_stack([d.labels, d.scores, d.boxes])[np.lexsort([*d.boxes.T, d.labels])]
        for d in (detections, expected)
    ]
    np.testing.assert_allclose(rows[0][:, :2], rows[1][:, :2], atol=1e-3)
    np.testing.assert_allclose(rows[0][:, 2:], rows[1][:, 2:], atol=0.05)


def test_rois_that_pool_the_same_cells_share_scores_and_keep_their_boxes():
    trained = build_random_trained_network(4)
    image, proposals = draw_case(4, count=12)
    doubled = np.concatenate([proposals, proposals + np.float32(0.02)]).clip(0, 80)
    settings = PostprocessingSettings(score_threshold=0.0, nms_iou=1.0, max_per_image=1000)
    (detections,) = Predictor(trained, precision="fp32", postprocessing=settings)(
        [image], [doubled]
    )
    expected = plain_predictor.detect(trained, settings, image, doubled)
    assert len(detections.scores) == len(expected) == 72
    order = np.lexsort([*detections.boxes.T, detections.labels])
    plain = np.array([[*box, label, score] for score, label, box in expected])
    plain = plain[np.lexsort([*plain[:, :5].T])]
    np.testing.assert_allclose(detections.boxes[order], plain[:, :4], atol=0.01)
    np.testing.assert_allclose(detections.scores[order], plain[:, 5], atol=1e-4)


def test_batch_sizes_do_not_change_the_detections():
    trained = build_random_trained_network(1)
    cases = [draw_case(s, *size) for s, size in enumerate([(60, 80), (80, 60), (60, 80), (60, 80)])]
    images, proposals = zip(*cases, strict=True)
    whole = Predictor(trained, precision="fp32", max_images_per_batch=3)(images, proposals)
    single = Predictor(trained, precision="fp32", max_images_per_batch=1, max_rois_per_batch=7)
    for image, boxes, together in zip(images, proposals, whole, strict=True):
        (alone,) = single([image], [boxes])
        np.testing.assert_allclose(alone.scores, together.scores, atol=1e-5)
        np.testing.assert_allclose(alone.boxes, together.boxes, atol=1e-2)
        np.testing.assert_array_equal(alone.labels, together.labels)


def test_a_batch_has_images_of_one_shape_in_their_order():
    predictor = Predictor(build_random_trained_network())
    sizes = [(6, 8), (8, 6), (6, 8), (12, 16), (9, 9)]
    boxes = [np.ones((1, 4), np.float32)] * 4 + [np.zeros((0, 4), np.float32)]
    batches = [
        (shape, [at_level.image_index for at_level in batch])
        for shape, batch in form_batches(split_by_level(boxes, sizes, predictor.levels), 2)
    ]
    assert batches == [((64, 85), [0, 2]), ((64, 85), [3]), ((85, 64), [1])]


def test_the_predictor_with_several_scales_equals_the_plain_one():
    trained = build_random_trained_network(3)
    size = (160, 220)
    image, proposals = draw_case(3, *size, count=12)
    proposals = np.concatenate([proposals, np.array([[0, 0, 200, 150]], np.float32)])
    # Each pair differs by less than a cell, so each scale computes it once.
    proposals = np.concatenate([proposals, proposals + np.float32(0.02)]).clip(0, 160)
    pyramid = Pyramid(scales=(160, 320, 480), scale_cap=800)
    levels = pyramid.build_levels(SMALL)
    roi_levels = assign_levels(
        proposals, size, [level.compute_resized_shape(*size) for level in levels]
    )
    assert set(roi_levels) == {0, 1, 2}
    scored_boxes = [
        row
        for number, level in enumerate(levels)
        for row in plain_predictor.score_boxes(
            replace(trained, preprocessing=level), image, proposals[roi_levels == number]
        )
    ]
    settings = PostprocessingSettings(score_threshold=0.1, nms_iou=0.5)
    expected = plain_predictor.select_best(scored_boxes, settings, len(CLASSES))
    assert len(expected) > 5
    predictor = Predictor(trained, precision="fp32", postprocessing=settings, pyramid=pyramid)
    neighbours = [draw_case(seed, *size) for seed, size in ((5, (160, 220)), (6, (220, 160)))]
    detections = predictor(
        [neighbours[0][0], image, neighbours[1][0]], [neighbours[0][1], proposals, neighbours[1][1]]
    )
    assert_same(detections[1], expected)


@pytest.mark.parametrize(
    "pyramid",
    [
        Pyramid(scales=(64, 64, 64)),
        Pyramid(scales=(72, 64, 80), scale_cap=80),  # all have the shape 60 x 80
        Pyramid(scale_cap=128),
    ],
)
def test_scales_with_the_same_shape_count_once(pyramid):
    trained = build_random_trained_network(2)
    image, proposals = draw_case(2)
    level = pyramid.build_levels(SMALL)[0]
    alone = replace(trained, preprocessing=level)
    single = Predictor(alone, precision="fp32")([image], [proposals])[0]
    assert len(single.scores) > 5
    several = Predictor(trained, precision="fp32", pyramid=pyramid)([image], [proposals])[0]
    for expected, actual in zip(single, several, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_detections_have_their_dtypes_order_and_range():
    image, proposals = draw_case()
    (detections,) = Predictor(build_random_trained_network())([image], [proposals])
    assert detections.boxes.dtype == np.float32
    assert detections.scores.dtype == np.float32
    assert detections.labels.dtype == np.int32
    assert set(detections.labels) <= {0, 1, 2}
    assert (np.diff(detections.scores) <= 0).all()
    assert (detections.boxes >= 0).all()
    assert (detections.boxes <= [80, 60, 80, 60]).all()
    assert (detections.boxes[:, 2:] > detections.boxes[:, :2]).all()


def test_images_without_usable_proposals_have_no_detections():
    predictor = Predictor(build_random_trained_network())
    image, proposals = draw_case()
    none, outside = np.zeros((0, 4), np.float32), proposals + 500
    detections = predictor([image] * 3, [none, outside, proposals])
    assert [len(d.boxes) for d in detections[:2]] == [0, 0]
    assert detections[0].boxes.shape == (0, 4)
    assert len(detections[2].boxes) > 0
    assert predictor([], []) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2)])
def test_tiny_and_thin_images_have_detections(size):
    whole = np.array([[0, 0, size[1], size[0]]], np.float32)
    settings = PostprocessingSettings(score_threshold=0.0)
    (detections,) = Predictor(build_random_trained_network(), postprocessing=settings)(
        [np.zeros((*size, 3), np.uint8)], [whole]
    )
    assert len(detections.boxes) > 0
    assert (detections.boxes <= [size[1], size[0], size[1], size[0]]).all()


@pytest.mark.parametrize("backbone", ["tiny", "mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_and_does_not_change_the_network(precision, backbone, monkeypatch):
    # torch emulates fp16 on processors without it: too slow to allow, but correct.
    monkeypatch.setattr(device_selection, "_supports_fp16", lambda device: True)
    network = build_random_network(backbone)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = TrainedNetwork(network, SMALL)
    image, proposals = draw_case(count=30)
    settings = PostprocessingSettings(score_threshold=0.0, nms_iou=1.0, max_per_image=1000)
    full, half = (
        Predictor(trained, precision=chosen, postprocessing=settings)([image], [proposals])[0]
        for chosen in ("fp32", precision)
    )
    tolerance = 0.05 if precision == "bf16" else 0.01
    assert abs(np.sort(full.scores) - np.sort(half.scores)).max() < tolerance
    assert not np.array_equal(full.scores, half.scores)
    after = network.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_fp16_is_rejected_on_a_processor_without_it(monkeypatch):
    monkeypatch.setattr(device_selection, "_supports_fp16", lambda device: False)
    with pytest.raises(InvalidConfiguration, match="no fp16 arithmetic"):
        Predictor(build_random_trained_network(), precision="fp16")


def test_a_predictor_loads_from_a_folder_and_repeats_its_detections(tmp_path):
    network = build_random_network()
    save_checkpoint(str(tmp_path), network, SMALL)
    image, proposals = draw_case()
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
def test_an_error_names_the_unknown_device_or_precision(options):
    with pytest.raises(InvalidConfiguration, match=str(next(iter(options.values())))):
        Predictor(build_random_trained_network(), **options)


@pytest.mark.parametrize(
    "fields", [{"rule": "best"}, {"score_threshold": 2}, {"nms_iou": -1}, {"max_per_image": 0}]
)
def test_invalid_postprocessing_settings_are_rejected(fields):
    with pytest.raises(InvalidConfiguration):
        replace(PostprocessingSettings(), **fields)


def test_output_that_is_not_finite_is_an_error_and_not_an_empty_image():
    network = build_random_network()
    with torch.no_grad():
        network.bbox_pred.bias[5] = float("inf")
    image, proposals = draw_case()
    predictor = Predictor(TrainedNetwork(network, SMALL), precision="fp32")
    with pytest.raises(NotFiniteOutput, match="in fp32 is not finite"):
        predictor([image], [proposals])
