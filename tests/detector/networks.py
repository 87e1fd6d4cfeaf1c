"""Small networks, images and boxes that tests share."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.detector.architecture import Architecture
from pipeline.detector.checkpoint import TrainedNetwork
from pipeline.detector.network import FastRCNN, build_network
from pipeline.detector.preprocessing import Preprocessing

CLASSES = ("cat", "dog", "owl")
SMALL = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), short_side=64, max_side=128)


def build_random_network(
    backbone: str = "tiny", seed: int = 0, classes: tuple = CLASSES
) -> FastRCNN:
    """Build a random network whose scores and deltas vary from RoI to RoI."""
    network = build_network(Architecture(classes, backbone), seed)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed + 1)
        for layer in network.backbone.modules():
            if isinstance(layer, torch.nn.Conv2d):
                # Without normalisation, this keeps the spread of values from layer to layer.
                torch.nn.init.kaiming_normal_(layer.weight)
        for layer, spread in ((network.cls_score, 1.5), (network.bbox_pred, 0.3)):
            layer.weight.normal_(std=spread / layer.in_features**0.5)
            layer.bias.normal_(std=spread / 3)
    return network.eval()


def build_random_trained_network(
    seed: int = 0, preprocessing: Preprocessing = SMALL
) -> TrainedNetwork:
    return TrainedNetwork(build_random_network(seed=seed), preprocessing)


def draw_random_image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw smooth random colours, so that RoIs differ."""
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1)[:height, :width].copy()


def draw_random_boxes(rng: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Draw boxes `(count, 4)` inside the image with sides of 1 pixel or more."""
    corners = rng.uniform(0, 1, (count, 2, 2)) * (width - 1, height - 1)
    low, high = corners.min(axis=1), corners.max(axis=1)
    return np.concatenate([low, high + 1], axis=1).astype(np.float32)
