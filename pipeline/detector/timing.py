"""The time that networks take for an image, measured in turns on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.detector.checkpoint import TrainedNetwork
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import Predictor

ASPECT = (3, 4)
"""Height to width of the timed image."""
SMALLEST_BOX = 20
"""Smallest side of the timed boxes, in pixels, as in selective search."""


@dataclass(frozen=True)
class ImageSeconds:
    """Median seconds of an image."""

    image: float
    """With all its RoIs."""
    rois: float
    """What all RoIs add to the time with a single RoI: RoI pooling and the layers over each RoI."""


def measure_seconds(
    networks: Sequence[TrainedNetwork], rois: int, repeats: int, seed: int = 0
) -> list[ImageSeconds]:
    """Time a predictor of each network on a random image with random boxes.

    Args:
        networks: with the same preprocessing.
        rois: boxes in the image.
        repeats: images per network. The networks take turns, so that other load on the machine affects
            all of them; a first image per network warms up and is not counted.
        seed: of image and boxes.

    No box becomes a detection, which excludes the time that random scores would cost in NMS.
    """
    settings = PostprocessingSettings(score_threshold=1.0)
    predictors = [Predictor(network, postprocessing=settings) for network in networks]
    height, width = compute_timed_shape(networks[0])
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = _draw_boxes(generator, rois, height, width)
    seconds: list[list[tuple[float, float]]] = [[] for _ in predictors]
    for _ in range(repeats + 1):
        for predictor, measured in zip(predictors, seconds, strict=True):
            single = _time_image(predictor, image, boxes[:1])
            measured.append((_time_image(predictor, image, boxes), single))
    return [
        ImageSeconds(
            median(whole for whole, _ in measured[1:]),
            median(whole - single for whole, single in measured[1:]),
        )
        for measured in seconds
    ]


def compute_timed_shape(network: TrainedNetwork) -> tuple[int, int]:
    """Compute height and width of an image with the aspect 3:4 after the network's preprocessing."""
    return network.preprocessing.compute_resized_shape(*(100 * side for side in ASPECT))


def _draw_boxes(
    generator: np.random.Generator, count: int, height: int, width: int
) -> NDArray[np.float32]:
    sides = np.exp(generator.uniform(np.log(SMALLEST_BOX), np.log([width, height]), (count, 2)))
    corner = generator.uniform(0, 1, (count, 2)) * ([width, height] - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def _time_image(
    predictor: Predictor, image: NDArray[np.uint8], boxes: NDArray[np.float32]
) -> float:
    start = perf_counter()
    predictor([image], [boxes])
    if predictor.device.type == "cuda":
        torch.cuda.synchronize(predictor.device)
    return perf_counter() - start
