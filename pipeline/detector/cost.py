"""What a network costs: its parameters, its multiply-adds, and the time of an image.

Multiply-adds are those of convolutions and fully connected layers, counted by PyTorch's own counter on
tensors without data; norms, activations and pooling are left out, as is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from pipeline.detector.checkpoint import Checkpoint
from pipeline.detector.keep import Keep
from pipeline.detector.network import FastRCNN
from pipeline.detector.predictor import Predictor

IMAGE = (3, 4)
"""Height to width of the image that is measured."""
SMALLEST_BOX = 20
"""Sides of the boxes that are measured start here, in pixels, as selective search's do."""


@dataclass(frozen=True)
class Cost:
    """Counts that depend on the architecture alone."""

    parameters: int
    """All that are learned, frozen ones included."""
    trunk: int
    """Multiply-adds of the layers over the image."""
    per_roi: int
    """Multiply-adds of the layers over each RoI, the two output layers included."""

    def of_image(self, rois: int) -> int:
        """Multiply-adds of an image with so many RoIs."""
        return self.trunk + rois * self.per_roi


def cost(model: FastRCNN, shape: tuple[int, int]) -> Cost:
    """Count a network's cost for an image of this height and width after resizing."""
    with torch.device("meta"):
        bare = FastRCNN(model.architecture).eval()
        image = torch.empty(1, 3, *shape)
        pooled = torch.empty(1, bare.backbone.channels, bare.roi_size, bare.roi_size)
    with torch.no_grad():
        with FlopCounterMode(display=False) as over_image:
            bare.features(image)
        with FlopCounterMode(display=False) as over_roi:
            vectors = bare.backbone.head(pooled)
            bare.cls_score(vectors)
            bare.bbox_pred(vectors)
    return Cost(
        sum(parameter.numel() for parameter in model.parameters()),
        over_image.get_total_flops() // 2,  # a multiply-add counts as two operations there
        over_roi.get_total_flops() // 2,
    )


@dataclass(frozen=True)
class Seconds:
    """How long an image took, the median of some."""

    image: float
    """With all its RoIs."""
    rois: float
    """What all RoIs took more than a single one: RoI pooling and the layers over each RoI."""


def measured(
    checkpoints: Sequence[Checkpoint], rois: int, repeats: int, seed: int = 0
) -> list[Seconds]:
    """Time a predictor of each checkpoint on a random image with random boxes.

    Args:
        checkpoints: of networks that share their preprocessing.
        rois: boxes in the image.
        repeats: images of each, the checkpoints taking turns, so that what else the machine does
            falls on all of them; the first, which warms up, is left out.
        seed: of image and boxes.

    No detection is kept, so that what random scores would cost in NMS is left out.
    """
    keep = Keep(score_threshold=1.0)
    predictors = [Predictor(checkpoint, keep=keep) for checkpoint in checkpoints]
    height, width = shape_measured(checkpoints[0])
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = _boxes(generator, rois, height, width)
    taken: list[list[tuple[float, float]]] = [[] for _ in predictors]
    for _ in range(repeats + 1):
        for predictor, times in zip(predictors, taken, strict=True):
            alone = _seconds(predictor, image, boxes[:1])
            times.append((_seconds(predictor, image, boxes), alone))
    return [
        Seconds(
            median(whole for whole, _ in times[1:]),
            median(whole - alone for whole, alone in times[1:]),
        )
        for times in taken
    ]


def shape_measured(checkpoint: Checkpoint) -> tuple[int, int]:
    """Height and width of an image of 3:4 at the checkpoint's size."""
    return checkpoint.preprocessing.resized_shape(*(100 * side for side in IMAGE))


def _boxes(
    generator: np.random.Generator, count: int, height: int, width: int
) -> NDArray[np.float32]:
    sides = np.exp(generator.uniform(np.log(SMALLEST_BOX), np.log([width, height]), (count, 2)))
    corner = generator.uniform(0, 1, (count, 2)) * ([width, height] - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def _seconds(predictor: Predictor, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> float:
    start = perf_counter()
    predictor([image], [boxes])
    if predictor.device.type == "cuda":
        torch.cuda.synchronize(predictor.device)
    return perf_counter() - start
