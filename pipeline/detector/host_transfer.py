"""Arrays on their way to the device: without waiting for what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def stage_array(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor in host memory, from which `device` can copy by itself.

    A copy from ordinary memory to a GPU makes the caller wait until all earlier work of the GPU is done.
    """
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if device.type == "cuda" else tensor


def stage_bytes(arrays: Sequence[NDArray[np.uint8]], device: torch.device) -> Tensor:
    """The bytes of arrays, which may be read-only, one after the other in host memory; see `stage_array`."""
    total = sum(array.size for array in arrays)
    staged = torch.empty(total, dtype=torch.uint8, pin_memory=device.type == "cuda")
    target, start = staged.numpy(), 0
    for array in arrays:
        target[start : start + array.size].reshape(array.shape)[...] = array
        start += array.size
    return staged


def move_array(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on the device; the caller does not wait for the copy to a GPU."""
    return stage_array(array, device).to(device, non_blocking=True)
