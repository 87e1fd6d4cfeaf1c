"""Fast R-CNN as a person would compose it of torchvision's parts: what `Predictor` is measured against.

fp32, channels first, BatchNorm as layers of its own, one image at a time, all of its RoIs through
`torchvision.ops.roi_pool` and the head at once (unless told otherwise), every class decoded, one
`batched_nms`.
"""

from __future__ import annotations

import io

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import batched_nms, clip_boxes_to_image, roi_pool
from torchvision.transforms import functional as transforms

from pipeline.detector.checkpoint import Checkpoint
from pipeline.detector.keep import Keep
from pipeline.detector.predictor import Detections
from pipeline.geometry import LARGEST_LOG_SCALE

NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v2_expanded")
"""Backbones of which torchvision has the layers, so that a checkpoint's weights fit."""


class PlainDetector:
    """`PlainDetector(checkpoint)(encoded image, proposals)`."""

    def __init__(
        self, checkpoint: Checkpoint, keep: Keep = Keep(), max_rois: int | None = None
    ) -> None:
        model = checkpoint.model
        name = model.architecture.backbone
        if name not in NETWORKS or model.architecture.fc_widths:
            raise SystemExit(f"{name} cannot be composed; {', '.join(NETWORKS)} can")
        self.preprocessing, self.keep = checkpoint.preprocessing, keep
        self.max_rois = max_rois
        self.scale, self.roi_size = model.spatial_scale, model.roi_size
        self.trunk, self.head = (resnet if "resnet" in name else mobilenet_v2)(checkpoint)
        self.cls_score, self.bbox_pred = model.cls_score, model.bbox_pred

    @torch.inference_mode()
    def __call__(self, encoded: bytes, proposals: np.ndarray) -> Detections:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        height, width = self.preprocessing.resized_shape(image.height, image.width)
        features = self.trunk(
            self._normalised(image.resize((width, height), Image.Resampling.BILINEAR))
        )
        boxes = torch.from_numpy(np.array(proposals, np.float32))
        boxes = clip_boxes_to_image(boxes, (image.height, image.width))
        stretch = torch.tensor([width / image.width, height / image.height]).repeat(2)
        last_pixel = torch.tensor([0.0, 0.0, 1.0, 1.0])
        rois = boxes * stretch - last_pixel
        vectors = torch.cat(
            [
                self.head(roi_pool(features, [some], self.roi_size, self.scale))
                for some in rois.split(self.max_rois or len(rois))
            ]
        )
        scores = functional.softmax(self.cls_score(vectors), dim=1)
        deltas = self.bbox_pred(vectors).view(len(boxes), -1, 4)
        return self._detections(scores[:, 1:], decoded(deltas[:, 1:], boxes), image.size)

    def _normalised(self, image: Image.Image) -> Tensor:
        """`(1, 3, h, w)`; the checkpoint's scale is of 0..255, `to_tensor` gives 0..1."""
        settings = self.preprocessing
        values = transforms.to_tensor(image)
        if settings.channel_order == "BGR":
            values = values.flip(0)
        return transforms.normalize(values * (255 * settings.scale), settings.mean, settings.std)[
            None
        ]

    def _detections(self, scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> Detections:
        roi, label = torch.nonzero(scores >= self.keep.score_threshold, as_tuple=True)
        scores, boxes = scores[roi, label], clip_boxes_to_image(boxes[roi, label], size[::-1])
        solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores, label = boxes[solid], scores[solid], label[solid]
        kept = batched_nms(boxes, scores, label, self.keep.nms_iou)[: self.keep.max_per_image]
        return Detections(
            boxes[kept].numpy(), scores[kept].numpy(), label[kept].numpy().astype(np.int32)
        )


def decoded(deltas: Tensor, boxes: Tensor) -> Tensor:
    """Boxes `(R, K, 4)` from deltas `(R, K, 4)` of RoIs `(R, 4)`."""
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
    centres = boxes[:, None, :2] + 0.5 * sides + deltas[..., :2] * sides
    sides = sides * deltas[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp()
    return torch.cat([centres - 0.5 * sides, centres + 0.5 * sides], dim=-1)


def resnet(checkpoint: Checkpoint) -> tuple[nn.Module, nn.Module]:
    """Trunk to layer3; layer4 and the mean over cells as the head."""
    network = getattr(torchvision.models, checkpoint.model.architecture.backbone)()
    network.fc = nn.Identity()
    load(network, checkpoint)
    trunk = nn.Sequential(
        *(network.conv1, network.bn1, network.relu, network.maxpool),
        *(network.layer1, network.layer2, network.layer3),
    )
    return trunk, nn.Sequential(network.layer4, network.avgpool, nn.Flatten())


def mobilenet_v2(checkpoint: Checkpoint) -> tuple[nn.Module, nn.Module]:
    """Trunk to block 13, or to the expansion of block 14; the rest and the mean over cells as the head."""
    network = torchvision.models.mobilenet_v2()
    network.classifier = nn.Identity()
    load(network, checkpoint)
    blocks = network.features
    if checkpoint.model.architecture.padding != "symmetric":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
                layer.register_forward_pre_hook(pad_as_tensorflow)
                layer.padding = (0, 0)
    trunk, head = [*blocks[:14]], [*blocks[14:]]
    if checkpoint.model.architecture.backbone == "mobilenet_v2_expanded":
        trunk, head = [*trunk, blocks[14].conv[0]], [*blocks[14].conv[1:], *blocks[15:]]
    return nn.Sequential(*trunk), nn.Sequential(*head, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def pad_as_tensorflow(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """SAME for a 3x3 convolution at stride 2: before and after an odd side, only after an even one."""
    height, width = inputs[0].shape[2:]
    return (functional.pad(inputs[0], (width % 2, 1, height % 2, 1)),)


def load(network: nn.Module, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's tensors under torchvision's names."""
    backbone = checkpoint.model.backbone
    names = backbone.renamed()
    tensors = {names.get(own, own): tensor for own, tensor in backbone.state_dict().items()}
    network.load_state_dict(tensors, strict=False)
    lacking = set(network.state_dict()) - set(tensors)
    assert all(name.endswith("num_batches_tracked") for name in lacking), lacking
    network.eval().requires_grad_(False)
