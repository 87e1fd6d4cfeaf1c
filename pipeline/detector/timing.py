"""The time that networks take for an image, layer by layer, measured in turns on one machine.

Fast R-CNN, figure 2: convolutions, RoI pooling, fc6, fc7 and the rest, before and after SVD.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.detector.checkpoint import TrainedNetwork
from pipeline.detector.inference import InferenceNetwork
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import Predictor

ASPECT = (3, 4)
"""Height to width of the timed image."""
SMALLEST_BOX = 20
"""Smallest side of the timed boxes, in pixels, as in selective search."""
LAYERS = ("convolutions", "RoI pooling", "fc6", "fc7", "outputs", "other")
"""The layers of a network with fc6 and fc7. The outputs are scores and box deltas; `other` is resizing,
normalisation, activations and the choice of detections."""


@dataclass(frozen=True)
class ImageSeconds:
    """Median seconds of an image with all its RoIs."""

    image: float
    layers: Mapping[str, float]
    """By the names in `LAYERS`. Their sum is near `image`: each is a median of its own."""


def measure_seconds(
    networks: Sequence[TrainedNetwork], rois: int, repeats: int, seed: int = 0
) -> list[ImageSeconds]:
    """Time a predictor of each network on a random image with random boxes.

    Args:
        networks: with fc6 and fc7, whole or factorised, and the same preprocessing.
        rois: boxes in the image.
        repeats: images per network. The networks take turns, so that other load on the machine affects
            all of them; a first image per network warms up and is not counted.
        seed: of image and boxes.

    No box becomes a detection, which excludes the time that random scores would cost in NMS.
    """
    predictors = [_TimedPredictor(network) for network in networks]
    height, width = compute_timed_shape(networks[0])
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = _draw_boxes(generator, rois, height, width)
    seconds: list[list[dict[str, float]]] = [[] for _ in predictors]
    for _ in range(repeats + 1):
        for predictor, measured in zip(predictors, seconds, strict=True):
            measured.append(predictor.time_image(image, boxes))
    return [_summarise(measured[1:]) for measured in seconds]


def compute_timed_shape(network: TrainedNetwork) -> tuple[int, int]:
    """Compute height and width of an image with the aspect 3:4 after the network's preprocessing."""
    return network.preprocessing.compute_resized_shape(*(100 * side for side in ASPECT))


def _draw_boxes(
    generator: np.random.Generator, count: int, height: int, width: int
) -> NDArray[np.float32]:
    sides = np.exp(generator.uniform(np.log(SMALLEST_BOX), np.log([width, height]), (count, 2)))
    corner = generator.uniform(0, 1, (count, 2)) * ([width, height] - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def _summarise(images: Sequence[Mapping[str, float]]) -> ImageSeconds:
    layers = {name: median(seconds[name] for seconds in images) for name in LAYERS}
    return ImageSeconds(median(sum(seconds.values()) for seconds in images), layers)


class _TimedPredictor:
    """A predictor whose network measures its layers."""

    def __init__(self, trained: TrainedNetwork) -> None:
        settings = PostprocessingSettings(score_threshold=1.0)
        self._predictor = Predictor(trained, postprocessing=settings)
        own = self._predictor
        self._network = own.network = _TimedNetwork(trained, own.device, own.dtype)

    def time_image(self, image: NDArray[np.uint8], boxes: NDArray[np.float32]) -> dict[str, float]:
        """The seconds of each layer."""
        seconds = self._network.seconds
        seconds.clear()
        began = self._network.read_clock()
        self._predictor([image], [boxes])
        whole = self._network.read_clock() - began
        measured = {name: seconds[name] for name in LAYERS[:-1]}
        return measured | {LAYERS[-1]: whole - sum(measured.values())}


class _TimedNetwork(InferenceNetwork):
    """Adds up the seconds of each layer."""

    def __init__(self, trained: TrainedNetwork, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(trained.network, device, dtype)
        self.seconds: dict[str, float] = defaultdict(float)
        head: Any = self._head  # traced for the processor; on a GPU a method of the backbone
        modules = head.modules() if isinstance(head, nn.Module) else head.__self__.modules()
        layers = [layer for layer in modules if isinstance(layer, nn.Linear)]
        for layer, name in zip(layers, _name_layers(len(layers)), strict=True):
            layer.register_forward_pre_hook(lambda *_: self._begin())
            layer.register_forward_hook(lambda *_, name=name: self._end(name))
        self._began = 0.0

    def read_clock(self) -> float:
        """Seconds of a clock, once the device has nothing left to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()

    def extract_features(self, images: Tensor) -> Tensor:
        """As `InferenceNetwork.extract_features`."""
        self._begin()
        features = super().extract_features(images)
        self._end("convolutions")
        return features

    def pool_rois(self, features: Tensor, rois: Tensor) -> Tensor:
        """As `InferenceNetwork.pool_rois`."""
        self._begin()
        pooled = super().pool_rois(features, rois)
        self._end("RoI pooling")
        return pooled

    def compute_outputs(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """As `InferenceNetwork.compute_outputs`."""
        self._begin()
        outputs = super().compute_outputs(vectors)
        self._end("outputs")
        return outputs

    def _begin(self) -> None:
        self._began = self.read_clock()

    def _end(self, name: str) -> None:
        self.seconds[name] += self.read_clock() - self._began


def _name_layers(count: int) -> list[str]:
    """The names of the linear layers of a head: one or, factorised, two for each of fc6 and fc7."""
    return ["fc6"] * (count // 2) + ["fc7"] * (count // 2)
