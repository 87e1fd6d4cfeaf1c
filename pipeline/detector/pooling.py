"""RoI max pooling (Fast R-CNN, section 2.1) for half-open boxes, as an operator that torch can trace.

`pooling_kernels` computes it on the CPU; on a GPU `gpu_pooling` does without gradients, and torchvision
with them. It is registered through `torch.library`, so that autograd and `torch.compile` treat it like any
other operator; autocast leaves the dtype of the features unchanged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_pool

from pipeline.detector import pooling_kernels
from pipeline.detector.gpu_kernels import load_gpu_kernels


def roi_max_pool(features: Tensor, rois: Tensor, size: int, spatial_scale: float) -> Tensor:
    """Pool the largest value in each cell of a `size` x `size` grid over each RoI.

    Args:
        features: `(B, C, h, w)`.
        rois: `(R, 5)`: index in the batch, then x1, y1, x2, y2, half open, in pixels of the image.
        size: cells per side.
        spatial_scale: cells of the feature map per pixel.

    Returns:
        `(R, C, size, size)` of the features' dtype; channels last in memory, except on a GPU with gradients.

    Scaled corners are rounded and the last cell belongs to the RoI, as in the released layer, whose boxes
    include their last pixel: it receives x2 - 1, y2 - 1. A RoI covers at least one cell. The index in the
    batch and corners outside the image are not checked.
    """
    inclusive = rois.float().clone()
    # By a number: a tensor of ordinary memory would make the caller wait for the GPU.
    inclusive[:, 3:] -= 1.0
    needs_gradient = torch.is_grad_enabled() and features.requires_grad
    if features.device.type == "cuda" and not needs_gradient and features.dtype != torch.float64:
        kernels = load_gpu_kernels()
        if kernels is not None:
            return kernels.pool(features, inclusive, size, spatial_scale)
    if features.device.type != "cpu" or features.dtype not in (torch.float32, torch.bfloat16):
        return _pool_by_torchvision(features, inclusive, size, spatial_scale)
    if needs_gradient:
        wide, _ = _pool_with_argmax(features.float(), inclusive, size, spatial_scale)
        pooled: Tensor = wide.to(features.dtype)
    else:
        pooled = _pool(features, inclusive, size, spatial_scale)
    return pooled


def _pool_by_torchvision(features: Tensor, rois: Tensor, size: int, spatial_scale: float) -> Tensor:
    # The operator takes RoIs of the features' dtype; the mantissa of fp16 would shift them by pixels.
    wide = features.double() if features.dtype == torch.float64 else features.float()
    pooled: Tensor = roi_pool(wide, rois.to(wide.dtype), size, spatial_scale)
    return pooled.to(features.dtype)


@torch.library.custom_op("fast_rcnn::roi_max_pool", mutates_args=(), device_types="cpu")
def _pool(features: Tensor, rois: Tensor, size: int, spatial_scale: float) -> Tensor:
    pooled = _allocate_pooled(features, rois, size, features.dtype)
    target = pooled.view(torch.int16) if pooled.dtype == torch.bfloat16 else pooled
    cells = target.permute(0, 2, 3, 1).numpy()
    if pooled.dtype == torch.bfloat16:
        cells = cells.view(np.uint16)
    pooling_kernels.pool(
        _to_rows(features.float()), _to_numpy(rois), np.float32(spatial_scale), size, cells
    )
    return pooled


@torch.library.custom_op("fast_rcnn::roi_max_pool_with_argmax", mutates_args=(), device_types="cpu")
def _pool_with_argmax(
    features: Tensor, rois: Tensor, size: int, spatial_scale: float
) -> tuple[Tensor, Tensor]:
    pooled = _allocate_pooled(features, rois, size, torch.float32)
    argmax = _allocate_pooled(features, rois, size, torch.int32)
    pooling_kernels.pool_with_argmax(
        _to_rows(features),
        _to_numpy(rois),
        np.float32(spatial_scale),
        size,
        pooled.permute(0, 2, 3, 1).numpy(),
        argmax.permute(0, 2, 3, 1).numpy(),
    )
    return pooled, argmax


@torch.library.custom_op("fast_rcnn::roi_max_pool_backward", mutates_args=(), device_types="cpu")
def _scatter_gradient(gradient: Tensor, argmax: Tensor, rois: Tensor, shape: list[int]) -> Tensor:
    batch, channels, height, width = shape
    result = torch.zeros((batch, height, width, channels))
    pooling_kernels.scatter(
        _to_rows(gradient),
        _to_rows(argmax),
        _to_numpy(rois),
        result.view(batch, height * width, channels).numpy(),
    )
    return result.permute(0, 3, 1, 2)


@_pool.register_fake
def _(features: Tensor, rois: Tensor, size: int, spatial_scale: float) -> Tensor:  # noqa: ARG001
    return _allocate_pooled(features, rois, size, features.dtype)


@_pool_with_argmax.register_fake
def _(
    features: Tensor,
    rois: Tensor,
    size: int,
    spatial_scale: float,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    return (
        _allocate_pooled(features, rois, size, torch.float32),
        _allocate_pooled(features, rois, size, torch.int32),
    )


@_scatter_gradient.register_fake
def _(gradient: Tensor, argmax: Tensor, rois: Tensor, shape: list[int]) -> Tensor:  # noqa: ARG001
    batch, channels, height, width = shape
    return gradient.new_empty((batch, height, width, channels)).permute(0, 3, 1, 2)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, rois, _, _ = inputs
    ctx.save_for_backward(output[1], rois)
    ctx.mark_non_differentiable(output[1])
    ctx.shape = list(features.shape)


def _backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
    argmax, rois = ctx.saved_tensors
    return _scatter_gradient(gradient.float(), argmax, rois, ctx.shape), None, None, None


_pool_with_argmax.register_autograd(_backward, setup_context=_save_for_backward)


def _allocate_pooled(features: Tensor, rois: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Allocate `(R, C, size, size)`, channels last."""
    shape = (rois.shape[0], size, size, features.shape[1])
    return torch.empty(shape, dtype=dtype, device=features.device).permute(0, 3, 1, 2)


def _to_rows(tensor: Tensor) -> Any:
    """View `(N, C, h, w)` as a numpy array `(N, h, w, C)` without gaps."""
    return tensor.detach().permute(0, 2, 3, 1).contiguous().numpy()


def _to_numpy(rois: Tensor) -> Any:
    return rois.detach().contiguous().numpy()
