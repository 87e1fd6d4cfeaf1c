"""Fast R-CNN composed of torchvision's parts, as a baseline for `Predictor`.

fp32, channels first, separate BatchNorm layers, one image at a time. By default all of its RoIs pass
`torchvision.ops.roi_pool` and the head at once; every class is decoded, and `batched_nms` runs once.
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
from torchvision.transforms.functional import normalize, to_tensor

from pipeline.detector.checkpoint import TrainedNetwork
from pipeline.detector.postprocessing_settings import PostprocessingSettings
from pipeline.detector.predictor import ImageDetections
from pipeline.geometry import LARGEST_LOG_SCALE

NETWORKS = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v2_expanded")
"""Backbones whose layers torchvision has, so that a checkpoint's weights fit."""


class PlainDetector:
    """`PlainDetector(trained)(encoded image, proposals)`."""

    def __init__(
        self,
        trained: TrainedNetwork,
        postprocessing: PostprocessingSettings = PostprocessingSettings(),
        max_rois: int | None = None,
    ) -> None:
        model = trained.network
        name = model.architecture.backbone
        if name not in NETWORKS or model.architecture.fc_widths:
            raise SystemExit(
                f"no plain detector for {name} (available: {', '.join(NETWORKS)}, without fc layers)"
            )
        self.preprocessing, self.postprocessing = trained.preprocessing, postprocessing
        self.max_rois = max_rois
        self.scale, self.roi_size = model.spatial_scale, model.roi_size
        self.trunk, self.head = (split_resnet if "resnet" in name else split_mobilenet_v2)(trained)
        self.cls_score, self.bbox_pred = model.cls_score, model.bbox_pred

    @torch.inference_mode()
    def __call__(self, encoded: bytes, proposals: np.ndarray) -> ImageDetections:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
        height, width = self.preprocessing.compute_resized_shape(image.height, image.width)
        features = self.trunk(
            self._normalise(image.resize((width, height), Image.Resampling.BILINEAR))
        )
        boxes = torch.from_numpy(np.array(proposals, np.float32))
        boxes = clip_boxes_to_image(boxes, (image.height, image.width))
        stretch = torch.tensor([width / image.width, height / image.height]).repeat(2)
        last_pixel = torch.tensor([0.0, 0.0, 1.0, 1.0])
        rois = boxes * stretch - last_pixel
        vectors = torch.cat(
            [
                self.head(roi_pool(features, [part], self.roi_size, self.scale))
                for part in rois.split(self.max_rois or len(rois))
            ]
        )
        scores = functional.softmax(self.cls_score(vectors), dim=1)
        deltas = self.bbox_pred(vectors).view(len(boxes), -1, 4)
        return self._select_detections(
            scores[:, 1:], decode_boxes(deltas[:, 1:], boxes), image.size
        )

    def _normalise(self, image: Image.Image) -> Tensor:
        """`(1, 3, h, w)`; the checkpoint's scale is for 0..255, `to_tensor` returns 0..1."""
        settings = self.preprocessing
        values = to_tensor(image)
        if settings.channel_order == "BGR":
            values = values.flip(0)
        return normalize(values * (255 * settings.scale), settings.mean, settings.std)[None]

    def _select_detections(
        self, scores: Tensor, boxes: Tensor, size: tuple[int, int]
    ) -> ImageDetections:
        roi, label = torch.nonzero(scores >= self.postprocessing.score_threshold, as_tuple=True)
        scores, boxes = scores[roi, label], clip_boxes_to_image(boxes[roi, label], size[::-1])
        solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores, label = boxes[solid], scores[solid], label[solid]
        best = batched_nms(boxes, scores, label, self.postprocessing.nms_iou)[
            : self.postprocessing.max_per_image
        ]
        return ImageDetections(
            boxes[best].numpy(), scores[best].numpy(), label[best].numpy().astype(np.int32)
        )


def decode_boxes(deltas: Tensor, boxes: Tensor) -> Tensor:
    """Decode deltas `(R, K, 4)` of RoIs `(R, 4)` into boxes `(R, K, 4)`."""
    sides = (boxes[:, 2:] - boxes[:, :2])[:, None]
    centres = boxes[:, None, :2] + 0.5 * sides + deltas[..., :2] * sides
    sides = sides * deltas[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp()
    return torch.cat([centres - 0.5 * sides, centres + 0.5 * sides], dim=-1)


def split_resnet(trained: TrainedNetwork) -> tuple[nn.Module, nn.Module]:
    """The trunk ends with layer3; layer4 and the mean over cells are the head."""
    network = getattr(torchvision.models, trained.network.architecture.backbone)()
    network.fc = nn.Identity()
    load_weights(network, trained)
    trunk = nn.Sequential(
        *(network.conv1, network.bn1, network.relu, network.maxpool),
        *(network.layer1, network.layer2, network.layer3),
    )
    return trunk, nn.Sequential(network.layer4, network.avgpool, nn.Flatten())


def split_mobilenet_v2(trained: TrainedNetwork) -> tuple[nn.Module, nn.Module]:
    """The trunk ends with block 13 or the expansion of block 14; the rest and the mean are the head."""
    network = torchvision.models.mobilenet_v2()
    network.classifier = nn.Identity()
    load_weights(network, trained)
    blocks = network.features
    if trained.network.architecture.padding != "symmetric":
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
                layer.register_forward_pre_hook(pad_as_tensorflow)
                layer.padding = (0, 0)
    trunk, head = [*blocks[:14]], [*blocks[14:]]
    if trained.network.architecture.backbone == "mobilenet_v2_expanded":
        trunk, head = [*trunk, blocks[14].conv[0]], [*blocks[14].conv[1:], *blocks[15:]]
    return nn.Sequential(*trunk), nn.Sequential(*head, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def pad_as_tensorflow(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """SAME padding of a 3x3 convolution at stride 2: both ends of an odd side, the far end of an even one."""
    height, width = inputs[0].shape[2:]
    return (functional.pad(inputs[0], (width % 2, 1, height % 2, 1)),)


def load_weights(network: nn.Module, trained: TrainedNetwork) -> None:
    """Load a checkpoint's tensors into a torchvision network, under its names."""
    backbone = trained.network.backbone
    names = backbone.get_pretrained_names()
    tensors = {names.get(own, own): tensor for own, tensor in backbone.state_dict().items()}
    network.load_state_dict(tensors, strict=False)
    missing = set(network.state_dict()) - set(tensors)
    assert all(name.endswith("num_batches_tracked") for name in missing), missing
    network.eval().requires_grad_(False)
