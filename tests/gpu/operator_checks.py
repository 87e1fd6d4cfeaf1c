"""Operators on the device against torchvision on the CPU or plain Python: pooling, NMS, several scales."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_pool

from pipeline.detector.pooling import roi_max_pool
from pipeline.detector.postprocessing import select_detections
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import Predictor
from pipeline.detector.pyramid import Pyramid, assign_levels
from tests.detector import plain_predictor
from tests.detector.networks import (
    CLASSES,
    SMALL,
    build_random_trained_network,
    draw_random_boxes,
    draw_random_image,
)
from tests.gpu.checks import Setting, measure_error

SIZE = (200, 300)
LAST_PIXEL = (0.0, 0.0, 0.0, 1.0, 1.0)
"""What the released layer, whose boxes include their last pixel, has less in each RoI."""


def check_roi_pooling(setting: Setting) -> dict[str, Any]:
    """Pooled values are those of the features, whatever the dtype; gradients reach the same cells."""
    rng = np.random.default_rng(0)
    count = 60 if setting.is_quick else 2000
    features = torch.from_numpy(rng.normal(size=(2, 32, 38, 50))).float()
    boxes = draw_random_boxes(rng, count, 600, 800)
    rois = torch.from_numpy(np.insert(boxes, 0, np.arange(count) % 2, axis=1).astype(np.float32))
    errors = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        rounded = features.to(dtype)
        expected = _pool_by_torchvision(rounded.float(), rois)
        for layout in (torch.contiguous_format, torch.channels_last):
            on_device = rounded.to(setting.device).to(memory_format=layout)
            pooled = roi_max_pool(on_device, rois.to(setting.device), 7, 1 / 16)
            assert pooled.dtype == dtype, pooled.dtype
            errors[str(dtype)] = measure_error(pooled, expected)
            assert errors[str(dtype)] == 0, f"{dtype} {layout}: {errors[str(dtype)]}"
    weights = torch.from_numpy(rng.normal(size=expected.shape)).float()
    plain = features.clone().requires_grad_()
    (_pool_by_torchvision(plain, rois) * weights).sum().backward()
    own = features.clone().to(setting.device).requires_grad_()
    pooled = roi_max_pool(own, rois.to(setting.device), 7, 1 / 16)
    (pooled * weights.to(setting.device)).sum().backward()
    assert own.grad is not None
    assert plain.grad is not None
    errors["gradient"] = measure_error(own.grad, plain.grad)
    assert errors["gradient"] < 1e-4, errors
    return errors


def _pool_by_torchvision(features: Tensor, rois: Tensor) -> Tensor:
    """In fp32, as everywhere: in fp64 a cell's end that is a whole number may be rounded otherwise."""
    pooled: Tensor = roi_pool(features, rois - torch.tensor(LAST_PIXEL), 7, 1 / 16)
    return pooled


def check_nms(setting: Setting) -> dict[str, Any]:
    """The selection of detections equals that of plain Python, by both rules."""
    counts = {}
    for rule in ("default", "paper"):
        settings = PostprocessingSettings(rule=rule, max_per_image=60, score_threshold=0.1)
        scores, deltas, boxes = _draw_scored_rois(300, 3)
        on_device = (values.to(setting.device) for values in (scores, deltas, boxes))
        selected = select_detections(*on_device, SIZE, settings)
        expected = plain_predictor.select_best(
            [
                (
                    float(scores[roi, label + 1]),
                    label,
                    plain_predictor.clip_box(
                        plain_predictor.apply_delta(
                            boxes[roi].tolist(), deltas[roi, label + 1].tolist()
                        ),
                        SIZE[1],
                        SIZE[0],
                    ),
                )
                for roi in range(len(boxes))
                for label in range(3)
            ],
            settings,
            3,
        )
        own_boxes, own_scores, labels = (values.cpu().numpy() for values in selected)
        np.testing.assert_array_equal(labels, [label for _, label, _ in expected])
        np.testing.assert_allclose(own_scores, [s for s, _, _ in expected], atol=1e-6)
        np.testing.assert_allclose(own_boxes, [box for _, _, box in expected], atol=1e-2)
        counts[rule] = len(expected)
    return counts


def check_nms_of_many_boxes(setting: Setting) -> dict[str, Any]:
    """Torchvision sorts out many boxes class by class; the result is the CPU's."""
    setting.require_gpu()
    settings = PostprocessingSettings(score_threshold=0.0, max_per_image=10**6)
    values = _draw_scored_rois(2000, 20)
    expected = select_detections(*values, SIZE, settings)
    actual = select_detections(*(v.to(setting.device) for v in values), SIZE, settings)
    assert torch.equal(actual[2].cpu(), expected[2])
    torch.testing.assert_close(actual[0].cpu(), expected[0], atol=1e-3, rtol=0)
    return {"boxes": 40_000, "selected": len(expected[2])}


def _draw_scored_rois(count: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(count)
    logits = torch.from_numpy(rng.normal(size=(count, classes + 1)))
    deltas = torch.from_numpy(rng.normal(scale=0.3, size=(count, classes + 1, 4)))
    boxes = torch.from_numpy(draw_random_boxes(rng, count, *SIZE).astype(np.float64))
    return logits.softmax(dim=1), deltas, boxes


def check_multi_scale(setting: Setting) -> dict[str, Any]:
    """Each RoI is pooled at its scale: detections equal those of plain Python, scale by scale."""
    trained = build_random_trained_network(3)
    size, pyramid = (160, 220), Pyramid(scales=(160, 320, 480), scale_cap=800)
    rng = np.random.default_rng(3)
    image = draw_random_image(rng, *size)
    whole = np.array([[0, 0, 200, 150]], np.float32)
    proposals = np.concatenate([draw_random_boxes(rng, 12, *size), whole])
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
    predictor = Predictor(
        trained,
        device=str(setting.device),
        precision="fp32",
        postprocessing=settings,
        pyramid=pyramid,
    )
    other = draw_random_image(rng, 220, 160)
    detections = predictor([other, image], [draw_random_boxes(rng, 9, 220, 160), proposals])[1]
    np.testing.assert_array_equal(detections.labels, [label for _, label, _ in expected])
    np.testing.assert_allclose(detections.scores, [s for s, _, _ in expected], atol=1e-3)
    np.testing.assert_allclose(detections.boxes, [box for _, _, box in expected], atol=0.05)
    return {"detections": len(expected), "scales": 3}


CHECKS = (check_roi_pooling, check_nms, check_nms_of_many_boxes, check_multi_scale)
