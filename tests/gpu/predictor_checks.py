"""The predictor on the device: equal to fp64 on the CPU, close in half precision, unharmed by full memory."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.detector.checkpoint import TrainedNetwork, load_checkpoint
from pipeline.detector.device_memory import read_total_memory, set_memory_fraction
from pipeline.detector.inference import InferenceNetwork
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import Predictor
from pipeline.detector.preprocessing import Preprocessing
from pipeline.errors import InvalidConfiguration
from tests.detector import plain_predictor
from tests.detector.networks import (
    SMALL,
    build_random_network,
    build_random_trained_network,
    draw_random_boxes,
    draw_random_image,
)
from tests.gpu.checks import Setting, measure_error
from tests.gpu.drawn_scenes import BRIEF_MAP, draw_scenes, score_scenes, train_tiny

TOLERANCE = 1e-3
"""Of fp32, as a share of the largest value."""
HALF_POINTS = 0.02
"""Mean AP that bf16 or fp16 may differ from fp32."""


def check_network_in_fp32(setting: Setting) -> dict[str, Any]:
    """Scores and deltas of each backbone equal those of the network in fp64 on the CPU."""
    names = ("tiny", "mobilenet_v2_expanded")
    if not setting.is_quick:
        names += ("caffenet", "vgg_cnn_m_1024", "vgg16", "resnet18", "resnet50", "squeezenet1_0")
    side, count = (96, 6) if setting.is_quick else (224, 40)
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(2, 3, side, side + 32)))
    boxes = draw_random_boxes(rng, count, side, side + 32)
    rois = torch.from_numpy(np.insert(boxes, 0, np.arange(count) % 2, axis=1)).float()
    errors = {}
    for name in names:
        network = build_random_network(name)
        expected = _compute_in_fp64(network, image, rois)
        on_device = InferenceNetwork(network, setting.device, torch.float32)
        with torch.inference_mode():
            features = on_device.extract_features(image.float().to(setting.device))
            actual = on_device.score_rois(features, rois.to(setting.device), 16)
        errors[name] = max(map(measure_error, actual, expected))
        assert errors[name] < TOLERANCE, errors
    return errors


def _compute_in_fp64(
    network: torch.nn.Module, image: Tensor, rois: Tensor
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits, deltas = copy.deepcopy(network).double()(image, rois)
    return logits.softmax(1), deltas.view(len(rois), -1, 4)


def check_predictor_in_fp32(setting: Setting) -> dict[str, Any]:
    """Detections in images of several shapes equal those of plain Python on the CPU."""
    trained = build_random_trained_network(1)
    settings = PostprocessingSettings(score_threshold=0.3, nms_iou=0.5)
    predictor = Predictor(
        trained, device=str(setting.device), precision="fp32", postprocessing=settings
    )
    rng = np.random.default_rng(1)
    sizes = [(60, 80), (80, 60), (60, 80), (63, 71)] * (1 if setting.is_quick else 8)
    images = [draw_random_image(rng, *size) for size in sizes]
    boxes = [draw_random_boxes(rng, 20, *size) for size in sizes]
    total = 0
    for image, proposals, detections in zip(images, boxes, predictor(images, boxes), strict=True):
        expected = plain_predictor.detect(trained, settings, image, proposals)
        np.testing.assert_array_equal(detections.labels, [label for _, label, _ in expected])
        np.testing.assert_allclose(detections.scores, [s for s, _, _ in expected], atol=TOLERANCE)
        np.testing.assert_allclose(detections.boxes, [box for _, _, box in expected], atol=0.05)
        total += len(expected)
    assert total > len(sizes)
    return {"images": len(sizes), "detections": total}


def check_half_precision(setting: Setting) -> dict[str, Any]:
    """Mean AP of a trained network on drawn images: the device's fp32 as the CPU's, bf16 and fp16 near it."""
    trained = load_checkpoint(train_tiny(setting))
    scenes = draw_scenes(setting)
    values = {"cpu fp32": score_scenes(Predictor(trained, device="cpu", precision="fp32"), scenes)}
    for precision in ("fp32", "bf16", "fp16"):
        try:
            predictor = Predictor(trained, device=str(setting.device), precision=precision)
        except InvalidConfiguration as error:
            setting.skipped_parts.append(f"{precision} ({error})")
            continue
        values[precision] = score_scenes(predictor, scenes)
    assert values["cpu fp32"] > BRIEF_MAP, values  # else any detector would pass
    assert abs(values["fp32"] - values["cpu fp32"]) < 2e-3, values
    for precision in set(values) & {"bf16", "fp16"}:
        assert abs(values[precision] - values["cpu fp32"]) < HALF_POINTS, values
    return values


def check_full_memory(setting: Setting) -> dict[str, Any]:
    """With less memory than a batch needs, images have the same detections, from smaller batches."""
    backbone, count = ("resnet50", 3000) if setting.on_gpu else ("tiny", 90)
    preprocessing = Preprocessing() if setting.on_gpu else SMALL
    network = build_random_network(backbone)
    if setting.on_gpu:  # a deep random network amplifies: its scores would all be 0 or 1
        with torch.no_grad():
            network.cls_score.weight.mul_(1e-3)
    trained = TrainedNetwork(network, preprocessing)
    rng = np.random.default_rng(5)
    size = (300, 400)
    images = [draw_random_image(rng, *size) for _ in range(4)]
    boxes = [draw_random_boxes(rng, count, *size) for _ in images]
    # The best scores, which no order of suppression decides.
    settings = PostprocessingSettings(score_threshold=0.0, nms_iou=1.0, refine_boxes=False)

    def build() -> Predictor:
        return Predictor(
            trained,
            device=str(setting.device),
            precision="fp32",
            postprocessing=settings,
            max_rois_per_batch=4096,
            max_images_per_batch=4,
        )

    expected = build()(images, boxes)
    limited = build()
    with _LittleMemory(setting, limited.network, rois=count // 3):
        actual = limited(images, boxes)
    rows = limited.network.roi_limit.rows
    assert rows is not None, "memory was never full"
    assert 0 < rows <= 2 * count, rows
    for one, other in zip(actual, expected, strict=True):
        assert len(one.scores) == len(other.scores) > 0
        np.testing.assert_allclose(one.scores, other.scores, atol=TOLERANCE)
    return {"rois": 4 * count, "rois_at_once": rows}


class _LittleMemory:
    """Memory for a few RoIs only: on a GPU by torch's own limit, elsewhere by a head that fails."""

    def __init__(self, setting: Setting, network: InferenceNetwork, rois: int) -> None:
        self.setting, self.network, self.rois = setting, network, rois
        self.head = network._head

    def __enter__(self) -> None:
        if not self.setting.on_gpu:
            self.setting.skipped_parts.append("a real limit: needs CUDA")
            self.network._head = self._apply_to_few
            return
        torch.cuda.empty_cache()
        device = self.setting.device
        per_roi = 4 * 1024 * 14 * 14 * 4  # pooled features, their argmax, layer4's first maps
        allowed = torch.cuda.memory_allocated(device) + self.rois * per_roi
        set_memory_fraction(device, allowed / read_total_memory(device))

    def __exit__(self, *_: object) -> None:
        self.network._head = self.head
        if self.setting.on_gpu:
            set_memory_fraction(self.setting.device, 1.0)

    def _apply_to_few(self, pooled: Tensor) -> Tensor:
        if len(pooled) > self.rois:
            raise torch.OutOfMemoryError(f"no memory for {len(pooled)} RoIs")
        return self.head(pooled)


CHECKS = (
    check_network_in_fp32,
    check_predictor_in_fp32,
    check_half_precision,
    check_full_memory,
)
