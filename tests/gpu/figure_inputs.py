"""Networks and images that the figures are measured with: random, as their content costs no time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.detector.checkpoint import TrainedNetwork
from pipeline.detector.inference import InferenceNetwork
from pipeline.detector.preprocessing import Preprocessing
from tests.detector.networks import build_random_network, draw_random_boxes, draw_random_image
from tests.gpu.checks import Setting

CLASSES = tuple(f"class{number}" for number in range(20))
NETWORKS = ("vgg16", "resnet50", "mobilenet_v2")
IMAGE_SIZE = (375, 500)
"""Height and width of most VOC images; 600/1000 makes them 600x800."""
CANDIDATES = 0.01
"""Share of RoIs and classes whose score is high enough for NMS, about that of a trained network."""


@dataclass(frozen=True)
class Load:
    """Decoded images and proposals `(N, 4)` of each."""

    images: list[np.ndarray]
    proposals: list[np.ndarray]

    def take(self, count: int) -> Load:
        """The first images of it."""
        return Load(self.images[:count], self.proposals[:count])


def list_networks(setting: Setting) -> tuple[str, ...]:
    """The backbones to measure."""
    return ("tiny", "mobilenet_v2") if setting.is_quick else NETWORKS


def draw_load(setting: Setting, images: int) -> Load:
    """So many images with 2000 proposals each; 12 if quick."""
    rng = np.random.default_rng(images)
    size, count = ((64, 80), 12) if setting.is_quick else (IMAGE_SIZE, 2000)
    return Load(
        [draw_random_image(rng, *size) for _ in range(images)],
        [draw_random_boxes(rng, count, *size) for _ in range(images)],
    )


def build_trained(setting: Setting, backbone: str) -> TrainedNetwork:
    """A network at 600/1000 that finds as many candidates in random images as a trained one in real ones."""
    preprocessing = (
        Preprocessing(short_side=64, max_side=96) if setting.is_quick else Preprocessing()
    )
    network = build_random_network(backbone, classes=CLASSES)
    on_device = InferenceNetwork(network, setting.device, torch.float32)
    load = draw_load(setting, 1)
    with torch.inference_mode():
        resized = torch.from_numpy(preprocessing.resize(load.images[0]))[None].to(setting.device)
        boxes = preprocessing.project_rois(
            load.proposals[0], load.images[0].shape[:2], tuple(resized.shape[1:3])
        )
        rois = torch.from_numpy(np.insert(boxes, 0, 0, axis=1)[:500]).to(setting.device)
        features = on_device.extract_features(preprocessing.normalise(resized))
        logits, _ = on_device.compute_outputs(on_device.compute_vectors(features, rois, len(rois)))
        # A deep random network amplifies: bring the logits to the spread of a trained one.
        factor = 2.0 / float(logits.std().clamp(min=1e-6))
        network.cls_score.weight.mul_(factor)
        network.cls_score.bias.mul_(factor)
        network.bbox_pred.weight.mul_(0.1 * factor)
        network.bbox_pred.bias.mul_(0.1 * factor)
        _raise_background(network.cls_score.bias, logits.cpu() * factor)
    return TrainedNetwork(network, preprocessing)


def _raise_background(bias: torch.Tensor, logits: torch.Tensor) -> None:
    """Raise the bias of the background until few enough scores are above the threshold."""
    for _ in range(100):
        if float((logits.softmax(1)[:, 1:] >= 0.05).float().mean()) <= CANDIDATES:
            return
        logits[:, 0] += 0.5
        bias[0] += 0.5
