"""Detection written as plainly as can be, one RoI, class and box at a time, to compare with."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image

from pipeline.detector.checkpoint import Checkpoint
from pipeline.detector.keep import Keep


def detect(checkpoint: Checkpoint, keep: Keep, image: np.ndarray, proposals: np.ndarray) -> list:
    """Score, class and box of each detection, best first."""
    return kept(scored(checkpoint, image, proposals), keep, len(checkpoint.classes))


def scored(checkpoint: Checkpoint, image: np.ndarray, proposals: np.ndarray) -> list:
    """Score, class and box for every proposal and class."""
    height, width = image.shape[:2]
    settings = checkpoint.preprocessing
    factor = min(settings.short_side / min(height, width), settings.max_side / max(height, width))
    new_height, new_width = round(height * factor), round(width * factor)
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    values = np.asarray(resized).astype(np.float64) * settings.scale
    values = (values - np.array(settings.mean)) / np.array(settings.std)
    tensor = torch.from_numpy(values.transpose(2, 0, 1).astype(np.float32))[None]
    found = []
    for proposal in proposals:
        box = [float(v) for v in proposal]
        x, y = new_width / width, new_height / height
        roi = torch.tensor([[0.0, box[0] * x, box[1] * y, box[2] * x, box[3] * y]])
        with torch.no_grad():
            logits, deltas = checkpoint.model(tensor, roi)
        exponents = [math.exp(v) for v in logits[0].tolist()]
        for label in range(len(checkpoint.classes)):
            score = exponents[label + 1] / sum(exponents)
            target = moved(box, deltas[0, 4 * (label + 1) : 4 * (label + 2)].tolist())
            found.append((score, label, clipped(target, width, height)))
    return found


def moved(box: list, delta: list) -> list:
    width, height = box[2] - box[0], box[3] - box[1]
    x = (box[0] + box[2]) / 2 + delta[0] * width
    y = (box[1] + box[3]) / 2 + delta[1] * height
    new_width, new_height = width * math.exp(delta[2]), height * math.exp(delta[3])
    return [x - new_width / 2, y - new_height / 2, x + new_width / 2, y + new_height / 2]


def clipped(box: list, width: int, height: int) -> list:
    return [
        min(max(value, 0), limit)
        for value, limit in zip(box, (width, height, width, height), strict=True)
    ]


def kept(every: list, keep: Keep, classes: int) -> list:
    result = []
    for label in range(classes):
        of_class = sorted((s for s in every if s[1] == label), key=lambda s: -s[0])
        if keep.rule == "paper":
            of_class = of_class[: keep.max_per_image]
        else:
            of_class = [s for s in of_class if s[0] >= keep.score_threshold]
        of_class = [s for s in of_class if s[2][2] > s[2][0] and s[2][3] > s[2][1]]
        chosen: list = []
        for candidate in of_class:
            if all(_iou(candidate[2], other[2]) <= keep.nms_iou for other in chosen):
                chosen.append(candidate)
        result += chosen
    result.sort(key=lambda s: -s[0])
    return result if keep.rule == "paper" else result[: keep.max_per_image]


def _iou(a: list, b: list) -> float:
    across = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    down = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return across * down / (sum(areas) - across * down)
