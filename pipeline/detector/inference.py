"""A trained network made ready to detect: nothing is computed per image that the checkpoint fixes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.detector.backbones.frozen_norm import bake_frozen_norms
from pipeline.detector.fusion import can_fuse, fused
from pipeline.detector.network import FastRCNN
from pipeline.detector.pooling import roi_max_pool
from pipeline.errors import InvalidConfiguration


class InferenceNetwork:
    """A copy of a `FastRCNN` on one device: norms folded, layers fused, trunk and head in `dtype`.

    The last layers are joined into one and stay fp32. Call it in inference mode.
    """

    def __init__(self, model: FastRCNN, device: torch.device, dtype: torch.dtype) -> None:
        own = copy.deepcopy(model).eval().requires_grad_(False)
        bake_frozen_norms(own.backbone)
        own.to(device, torch.float32).to(memory_format=torch.channels_last)
        own.backbone.to(dtype=dtype)
        self.dtype = dtype
        self.spatial_scale = own.spatial_scale
        self.roi_size = own.roi_size
        if can_fuse(device, dtype):
            self._trunk, self._head = fused(own.backbone, "trunk"), fused(own.backbone, "head")
            cells = (1, own.backbone.channels, own.roi_size, own.roi_size)
            with torch.inference_mode():  # filters for small maps are made at the first of them
                self._head(torch.zeros(cells, dtype=dtype).to(memory_format=torch.channels_last))
        else:
            self._trunk, self._head = own.backbone.trunk, own.backbone.head
        last = (own.cls_score, own.bbox_pred)
        self._outputs = own.cls_score.out_features
        self._last_weight = torch.cat([layer.weight for layer in last])
        self._last_bias = torch.cat([layer.bias for layer in last])

    def features(self, images: Tensor) -> Tensor:
        """The feature map `(B, C, h, w)` of preprocessed images `(B, 3, H, W)`."""
        return self._trunk(images.to(self.dtype))

    def scores_and_deltas(
        self, features: Tensor, rois: Tensor, max_rois: int
    ) -> tuple[Tensor, Tensor]:
        """Softmax scores `(R, K + 1)` and deltas `(R, K + 1, 4)` of RoIs `(R, 5)`, in fp32.

        Args:
            features: of `features`.
            rois: index in the batch, then x1, y1, x2, y2 in pixels of the preprocessed images.
            max_rois: so many go through the head at once.
        """
        vectors = torch.cat(
            [self.vectors(features, batch) for batch in torch.split(rois, max_rois)]
        )
        outputs = functional.linear(vectors.float(), self._last_weight, self._last_bias)
        scores = outputs[:, : self._outputs].softmax(dim=1)
        return scores, outputs[:, self._outputs :].reshape(len(rois), -1, 4)

    def vectors(self, features: Tensor, rois: Tensor) -> Tensor:
        """The head's output `(R, width)` for RoIs that go through it at once."""
        return self.head(self.pooled(features, rois))

    def pooled(self, features: Tensor, rois: Tensor) -> Tensor:
        """Pooled features `(R, C, size, size)`."""
        return roi_max_pool(features, rois, self.roi_size, self.spatial_scale)

    def head(self, pooled: Tensor) -> Tensor:
        """Vectors `(R, width)` of pooled features."""
        return self._head(pooled)


def device_named(name: str) -> torch.device:
    """The device; `auto` is a GPU if there is one.

    Raises:
        InvalidConfiguration: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidConfiguration(f"device {name!r} cannot be used: {reason}") from error
    return device


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The arithmetics of trunk and head by their names."""


def dtype_named(precision: str, device: torch.device) -> torch.dtype:
    """The arithmetic of trunk and head; `auto` is bf16 where the device computes in it, else fp32.

    Raises:
        InvalidConfiguration: an unknown precision, or fp16 on a processor that cannot compute in it:
            torch would convert back and forth around every product, at a tenth of fp32's speed.
    """
    if precision == "auto":
        return torch.bfloat16 if _computes_bf16(device) else torch.float32
    if precision not in PRECISIONS:
        raise InvalidConfiguration(f"precision {precision!r} is not auto, {', '.join(PRECISIONS)}")
    if precision == "fp16" and not _computes_fp16(device):
        raise InvalidConfiguration(
            "precision 'fp16': this processor has no fp16 arithmetic (AVX512-FP16 or "
            "AMX-FP16): take auto, bf16 or fp32, or a GPU"
        )
    return PRECISIONS[precision]


def precision_of(dtype: torch.dtype) -> str:
    """The name of an arithmetic: fp32, bf16 or fp16."""
    return next(name for name, known in PRECISIONS.items() if known == dtype)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _computes_fp16(device: torch.device) -> bool:
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
