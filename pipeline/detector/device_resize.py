"""Resizing on the device, as Pillow does it on a core (`imaging.resize`).

A core needs milliseconds per image, and one GPU would need several cores. Pillow's bilinear filter, which
widens where it shrinks an image, is separable: along rows, then along columns, each pass with weights of
22 bits, summed in integers and rounded to 8 bits. The result is equal to the last bit, except where the
height shrinks: for some sizes Pillow then goes along columns first, and a value may differ by 1 of 255.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.detector.host_transfer import move_array

WEIGHT_BITS = 22
"""Of Pillow's weights: 255 times their sum of 1 fits 31 bits."""


def resize_images(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize uint8 `(B, H, W, C)` to `(B, *shape, C)` on the images' device."""
    for axis, length in ((2, shape[1]), (1, shape[0])):
        if images.shape[axis] != length:
            images = _resize_along(images, axis, length)
    return images


def _resize_along(images: Tensor, axis: int, length: int) -> Tensor:
    first, weights = compute_weights(images.shape[axis], length)
    starts, factors = (move_array(values, images.device) for values in (first, weights))
    span = [1] * images.dim()
    span[axis] = length
    total: Tensor | None = None
    for tap in range(weights.shape[1]):
        # A weight beyond the filter is zero, so it does not matter which value it multiplies.
        index = (starts + tap).clamp_(max=images.shape[axis] - 1)
        part = images.index_select(axis, index).int().mul_(factors[:, tap].reshape(span))
        total = part if total is None else total.add_(part)
    assert total is not None
    rounded = total.add_(1 << (WEIGHT_BITS - 1)).bitwise_right_shift_(WEIGHT_BITS)
    return rounded.clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=256)
def compute_weights(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Compute the weights of Pillow's bilinear filter.

    Args:
        before: pixels along the axis.
        after: pixels that they become.

    Returns:
        The first pixel `(after,)` that contributes to each new one, and weights `(after, T)` of it and the
        following pixels, in units of 2 ** -22; rows with fewer than T end with zeros.
    """
    scale = before / after
    widening = max(scale, 1.0)
    first = np.zeros(after, np.int64)
    weights = np.zeros((after, math.ceil(widening) * 2 + 1))
    for new in range(after):
        centre = (new + 0.5) * scale
        start, end = max(0, int(centre - widening + 0.5)), min(before, int(centre + widening + 0.5))
        distances = (np.arange(start, end) - centre + 0.5) * (1.0 / widening)
        triangle = np.maximum(0.0, 1.0 - np.abs(distances))
        first[new] = start
        weights[new, : end - start] = triangle / _add_in_order(triangle)
    scaled = (weights * (1 << WEIGHT_BITS) + 0.5).astype(np.int32)
    used = np.flatnonzero(scaled.any(axis=0))
    return first, np.ascontiguousarray(scaled[:, : used[-1] + 1])


def _add_in_order(values: NDArray[np.float64]) -> float:
    """Add one after the other, as Pillow does: numpy's sum, in pairs, may differ in the last bit."""
    return float(np.cumsum(values)[-1])
