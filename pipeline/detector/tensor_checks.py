"""Whether a tensor from a file can be a network's weights: dense, of floating numbers, all finite."""

from __future__ import annotations

import torch
from torch import Tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether all values of a floating tensor are finite, also after a conversion to float32."""
    if tensor.numel() == 0:
        return True
    smallest, largest = torch.aminmax(
        tensor.float()
    )  # NaN if a value is; no mask of all values is made
    return bool(torch.isfinite(smallest) and torch.isfinite(largest))


def describe_unusable(tensor: Tensor) -> str | None:
    """Why a tensor from a state dict cannot be weights; None if it can.

    Float64, float16 and bfloat16 can: they become float32.
    """
    if tensor.is_quantized:
        return "is quantised"
    if tensor.layout != torch.strided:
        return "is sparse"
    if tensor.device.type == "meta":
        return "has no values (it is on the meta device)"
    if not tensor.dtype.is_floating_point:
        return f"is {str(tensor.dtype).removeprefix('torch.')}, expected floating numbers"
    if not is_finite(tensor):
        return "has values that are not finite numbers"
    return None
