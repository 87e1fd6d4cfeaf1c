"""Fast R-CNN of torchvision's parts on any device, one image at a time: what the predictor is compared with.

Torch's defaults: fp32 with TF32 convolutions, channels first, separate BatchNorms; or autocast to bf16.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_pool
from torchvision.transforms.functional import normalize, to_tensor

from pipeline.detector.checkpoint import TrainedNetwork
from tests.benchmarks.plain_detector import (
    NETWORKS,
    decode_boxes,
    load_weights,
    split_mobilenet_v2,
    split_resnet,
)
from tests.gpu.checks import Setting

THRESHOLD, OVERLAP, MOST = 0.05, 0.3, 100


class PlainLoop:
    """`PlainLoop(...)(images, proposals)` detects as `Predictor` does."""

    def __init__(self, setting: Setting, trained: TrainedNetwork, *, autocast: bool) -> None:
        self.device, self.preprocessing = setting.device, trained.preprocessing
        self.autocast = autocast
        model = copy.deepcopy(trained.network)
        self.scale, self.roi_size = model.spatial_scale, model.roi_size
        trunk, head = _split(trained)
        self.trunk, self.head = trunk.to(self.device), head.to(self.device)
        self.cls_score = model.cls_score.to(self.device)
        self.bbox_pred = model.bbox_pred.to(self.device)

    @torch.inference_mode()
    def __call__(self, images: list[np.ndarray], proposals: list[np.ndarray]) -> list[np.ndarray]:
        """Scores `(D,)` of the detections of each image."""
        context = (
            torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()
        )
        with context:
            return [self._detect(*pair) for pair in zip(images, proposals, strict=True)]

    def _detect(self, image: np.ndarray, proposals: np.ndarray) -> np.ndarray:
        height, width = self.preprocessing.compute_resized_shape(*image.shape[:2])
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        values = normalize(to_tensor(resized), self.preprocessing.mean, self.preprocessing.std)
        features = self.trunk(values[None].to(self.device)).float()
        boxes = torch.from_numpy(proposals).to(self.device)
        boxes = clip_boxes_to_image(boxes, image.shape[:2])
        stretch = boxes.new_tensor([width / image.shape[1], height / image.shape[0]]).repeat(2)
        rois = boxes * stretch - boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
        vectors = self.head(roi_pool(features, [rois], self.roi_size, self.scale))
        scores = self.cls_score(vectors).float().softmax(1)[:, 1:]
        deltas = self.bbox_pred(vectors).float().view(len(boxes), -1, 4)[:, 1:]
        return self._select(scores, decode_boxes(deltas, boxes), image.shape[:2])

    def _select(self, scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> np.ndarray:
        roi, label = torch.nonzero(scores >= THRESHOLD, as_tuple=True)
        scores, boxes = scores[roi, label], clip_boxes_to_image(boxes[roi, label], size)
        best = batched_nms(boxes, scores, label, OVERLAP)[:MOST]
        return scores[best].cpu().numpy()


def has_plain_loop(backbone: str) -> bool:
    """Whether torchvision has the layers of a backbone."""
    return backbone in (*NETWORKS, "vgg16")


def _split(trained: TrainedNetwork) -> tuple[nn.Module, nn.Module]:
    name = trained.network.architecture.backbone
    if name == "vgg16":
        network = torchvision.models.vgg16()
        network.classifier[6] = nn.Identity()
        load_weights(network, trained)
        return network.features[:30], nn.Sequential(nn.Flatten(), network.classifier)
    return (split_resnet if "resnet" in name else split_mobilenet_v2)(trained)
