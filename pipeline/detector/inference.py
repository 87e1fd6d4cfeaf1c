"""A trained network prepared for detection: everything that the checkpoint fixes is computed once."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.detector.backbones.frozen_norm import bake_frozen_norms
from pipeline.detector.device_memory import PartLimit
from pipeline.detector.device_selection import compute_in_ieee
from pipeline.detector.fusion import can_fuse, fuse_for_inference
from pipeline.detector.network import FastRCNN
from pipeline.detector.pooling import roi_max_pool


class InferenceNetwork:
    """A copy of a `FastRCNN` on one device: norms folded, layers fused, trunk and head in `dtype`.

    The two output layers are joined into one and stay in fp32. Call it in inference mode. If the device's
    memory is full, fewer images and RoIs go through at once, from then on.
    """

    def __init__(self, network: FastRCNN, device: torch.device, dtype: torch.dtype) -> None:
        own = copy.deepcopy(network).eval().requires_grad_(False)
        bake_frozen_norms(own.backbone)
        own.to(device, torch.float32).to(memory_format=torch.channels_last)
        own.backbone.to(dtype=dtype)
        self.dtype, self.device = dtype, device
        self.image_limit, self.roi_limit = PartLimit("images"), PartLimit("RoIs")
        self.spatial_scale = own.spatial_scale
        self.roi_size = own.roi_size
        if can_fuse(device, dtype):
            self._trunk = fuse_for_inference(own.backbone, "trunk")
            self._head = fuse_for_inference(own.backbone, "head")
            cells = (1, own.backbone.channels, own.roi_size, own.roi_size)
            with torch.inference_mode():  # the first small map computes the filters for all of them
                self._head(torch.zeros(cells, dtype=dtype).to(memory_format=torch.channels_last))
        elif device.type == "cuda":
            self._trunk = fuse_for_inference(own.backbone, "trunk", on_gpu=True)
            self._head = fuse_for_inference(own.backbone, "head", on_gpu=True)
        else:
            self._trunk, self._head = own.backbone.trunk, own.backbone.head
        output_layers = (own.cls_score, own.bbox_pred)
        self._num_scores = own.cls_score.out_features
        self._output_weight = torch.cat([layer.weight for layer in output_layers])
        self._output_bias = torch.cat([layer.bias for layer in output_layers])

    def extract_features(self, images: Tensor) -> Tensor:
        """Compute the feature map `(B, C, h, w)` of preprocessed images `(B, 3, H, W)`."""
        with compute_in_ieee(self.device, self.dtype):
            return self.image_limit.compute(
                lambda part: self._trunk(part.to(self.dtype)), images, len(images)
            )

    def score_rois(self, features: Tensor, rois: Tensor, max_rois: int) -> tuple[Tensor, Tensor]:
        """Compute softmax scores `(R, K + 1)` and deltas `(R, K + 1, 4)` of RoIs `(R, 5)`, in fp32.

        Args:
            features: from `extract_features`.
            rois: index in the batch, then x1, y1, x2, y2 in pixels of the preprocessed images.
            max_rois: number of RoIs that go through the head at once, unless memory is full.
        """
        logits, deltas = self.compute_outputs(self.compute_vectors(features, rois, max_rois))
        return logits.softmax(dim=1), deltas

    def compute_outputs(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits `(R, K + 1)` and deltas `(R, K + 1, 4)` from vectors `(R, width)`, in fp32."""
        outputs = functional.linear(vectors.float(), self._output_weight, self._output_bias)
        logits, deltas = outputs[:, : self._num_scores], outputs[:, self._num_scores :]
        return logits, deltas.reshape(len(vectors), -1, 4)

    def compute_vectors(self, features: Tensor, rois: Tensor, max_rois: int) -> Tensor:
        """Compute the head's output `(R, width)` for RoIs; the arguments are those of `score_rois`."""
        with compute_in_ieee(self.device, self.dtype):
            return self.roi_limit.compute(
                lambda part: self.head(self.pool_rois(features, part)), rois, max_rois
            )

    def pool_rois(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pool the features of each RoI to `(R, C, size, size)`."""
        return roi_max_pool(features, rois, self.roi_size, self.spatial_scale)

    def head(self, pooled: Tensor) -> Tensor:
        """Compute vectors `(R, width)` from pooled features."""
        return self._head(pooled)
