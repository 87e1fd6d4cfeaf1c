"""Arrays on their way to the device: without waiting for what it computes."""

from __future__ import annotations

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


def stage_image(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """A copy of an image, which may be read-only, as a tensor in host memory; see `stage_array`."""
    staged = torch.empty(image.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    staged.numpy()[...] = image
    return staged


def move_array(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on the device; the caller does not wait for the copy to a GPU."""
    return stage_array(array, device).to(device, non_blocking=True)
