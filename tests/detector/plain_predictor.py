"""A reference detector in plain Python: one RoI, class and box at a time."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from pipeline.detector.checkpoint import TrainedNetwork
from pipeline.detector.postprocessing_settings import PostprocessingSettings


def detect(
    trained: TrainedNetwork,
    settings: PostprocessingSettings,
    image: np.ndarray,
    proposals: np.ndarray,
) -> list:
    """Return score, class and box of each detection, best first."""
    return select_best(score_boxes(trained, image, proposals), settings, len(trained.classes))


def score_boxes(trained: TrainedNetwork, image: np.ndarray, proposals: np.ndarray) -> list:
    """Return score, class and box of every proposal and class."""
    height, width = image.shape[:2]
    preprocessing = trained.preprocessing
    factor = min(
        preprocessing.short_side / min(height, width), preprocessing.max_side / max(height, width)
    )
    new_height, new_width = round(height * factor), round(width * factor)
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    values = np.asarray(resized).astype(np.float64) * preprocessing.scale
    values = (values - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    tensor = torch.from_numpy(values.transpose(2, 0, 1).astype(np.float32))[None]
    scored_boxes = []
    for proposal in proposals:
        box = [float(v) for v in proposal]
        x, y = new_width / width, new_height / height
        roi = torch.tensor([[0.0, box[0] * x, box[1] * y, box[2] * x, box[3] * y]])
        with torch.no_grad():
            logits, deltas = trained.network(tensor, roi)
        exponents = [math.exp(v) for v in logits[0].tolist()]
        for label in range(len(trained.classes)):
            score = exponents[label + 1] / sum(exponents)
            moved_box = apply_delta(box, deltas[0, 4 * (label + 1) : 4 * (label + 2)].tolist())
            scored_boxes.append((score, label, clip_box(moved_box, width, height)))
    return scored_boxes


def apply_delta(box: list, delta: list) -> list:
    width, height = box[2] - box[0], box[3] - box[1]
    x = (box[0] + box[2]) / 2 + delta[0] * width
    y = (box[1] + box[3]) / 2 + delta[1] * height
    new_width, new_height = width * math.exp(delta[2]), height * math.exp(delta[3])
    return [x - new_width / 2, y - new_height / 2, x + new_width / 2, y + new_height / 2]


def clip_box(box: list, width: int, height: int) -> list:
    return [
        min(max(value, 0), limit)
        for value, limit in zip(box, (width, height, width, height), strict=True)
    ]


def select_best(scored_boxes: list, settings: PostprocessingSettings, classes: int) -> list:
    detections = []
    for label in range(classes):
        candidates = sorted((s for s in scored_boxes if s[1] == label), key=lambda s: -s[0])
        if settings.rule == "paper":
            candidates = candidates[: settings.max_per_image]
        else:
            candidates = [s for s in candidates if s[0] >= settings.score_threshold]
        candidates = [s for s in candidates if s[2][2] > s[2][0] and s[2][3] > s[2][1]]
        chosen: list = []
        for candidate in candidates:
            if all(_compute_iou(candidate[2], better[2]) <= settings.nms_iou for better in chosen):
                chosen.append(candidate)
        detections += chosen
    detections.sort(key=lambda s: -s[0])
    return detections if settings.rule == "paper" else detections[: settings.max_per_image]


def _compute_iou(a: list, b: list) -> float:
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return across * down / (sum(areas) - across * down)
