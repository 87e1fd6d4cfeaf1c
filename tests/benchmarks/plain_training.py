"""Fast R-CNN's training step composed of torchvision's parts, the baseline of `train_step`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import fastrcnn_loss
from torchvision.ops import FrozenBatchNorm2d, roi_pool

ROI_SIZE, SCALE, CLIP = 7, 1 / 16, 10.0
Parts = tuple[nn.Module, nn.Module, nn.Module, int]
"""Frozen trunk, trained trunk, head, and the length of the head's output."""


def _split_mobilenet_v2() -> Parts:
    blocks = torchvision.models.mobilenet_v2(norm_layer=FrozenBatchNorm2d).features
    return blocks[:7], blocks[7:14], blocks[14:], 1280


def _split_mobilenet_v2_expanded() -> Parts:
    blocks = torchvision.models.mobilenet_v2(norm_layer=FrozenBatchNorm2d).features
    split_block = blocks[14].conv
    head = nn.Sequential(split_block[1:], blocks[15:])
    return blocks[:7], nn.Sequential(blocks[7:14], split_block[0]), head, 1280


def _split_resnet18() -> Parts:
    net = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
    frozen = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
    return frozen, nn.Sequential(net.layer2, net.layer3), net.layer4, 512


NETWORKS: dict[str, Callable[[], Parts]] = {
    "mobilenet_v2": _split_mobilenet_v2,
    "mobilenet_v2_expanded": _split_mobilenet_v2_expanded,
    "resnet18": _split_resnet18,
}


def build_plain_step(
    network: str, classes: int, learning_rate: float
) -> Callable[[list[Tensor], list[Tensor], Tensor, Tensor], None]:
    """Build a step over images `(1, 3, h, w)`, RoIs `(S, 4)` each, and all RoIs' labels and targets."""
    frozen, trunk, head, width = NETWORKS[network]()
    frozen.requires_grad_(False)
    predictor = FastRCNNPredictor(width, classes)
    parameters = [*trunk.parameters(), *head.parameters(), *predictor.parameters()]
    optimiser = torch.optim.AdamW(parameters, learning_rate)

    def step(images: list[Tensor], rois: list[Tensor], labels: Tensor, targets: Tensor) -> None:
        optimiser.zero_grad()
        pooled = torch.cat(
            [
                roi_pool(trunk(frozen(image)), [boxes], ROI_SIZE, SCALE)
                for image, boxes in zip(images, rois, strict=True)
            ]
        )
        logits, deltas = predictor(head(pooled).mean((2, 3)))
        losses = fastrcnn_loss(logits, deltas, [labels], [targets])
        sum(losses).backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimiser.step()

    return step
