"""What follows a convolution on a GPU, in one pass over its output: bias, shortcut, ReLU or ReLU6.

Torch needs a pass for each. With ResNet-50 on RoIs these passes took longer than the convolutions.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

VALUES = 4096
"""That a program computes."""
WIDEST_BLOCK = 256
"""Channels of them."""


def finish_convolution(
    output: Tensor, bias: Tensor, shortcut: Tensor | None, limits: tuple[float, float] | None
) -> Tensor:
    """Add bias and shortcut in float32 and limit the values, in place.

    Args:
        output: `(B, C, h, w)`, channels last in memory without gaps.
        bias: `(C,)`.
        shortcut: of the output's shape and layout.
        limits: the least and the largest value; None leaves them.
    """
    count, channels, height, width = output.shape
    rows = count * height * width
    block = min(WIDEST_BLOCK, triton.next_power_of_2(channels))
    rows_together = VALUES // block
    low, high = limits or (-math.inf, math.inf)
    grid = (triton.cdiv(rows, rows_together), triton.cdiv(channels, block))
    with torch.cuda.device_of(output):  # type: ignore[no-untyped-call]  # Triton computes on the current device
        _finish[grid](
            *(output, bias, output if shortcut is None else shortcut, rows, channels, low, high),
            has_shortcut=shortcut is not None,
            has_limits=limits is not None,
            rows_together=rows_together,
            block=block,
        )
    return output


@triton.jit(do_not_specialize=["rows", "low", "high"])
def _finish(  # type: ignore[no-untyped-def]  # noqa: PLR0917  # Triton would evaluate other annotations
    output,
    bias,
    shortcut,
    rows,
    channels,
    low,
    high,
    has_shortcut: tl.constexpr,
    has_limits: tl.constexpr,
    rows_together: tl.constexpr,
    block: tl.constexpr,
):
    """Finish a few rows of the output, for a block of channels."""
    row = tl.program_id(0).to(tl.int64) * rows_together + tl.arange(0, rows_together)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    has_channel = channel < channels
    exists = (row < rows)[:, None] & has_channel[None, :]
    place = row[:, None] * channels + channel[None, :]
    values = tl.load(output + place, mask=exists, other=0.0).to(tl.float32)
    values += tl.load(bias + channel, mask=has_channel, other=0.0).to(tl.float32)[None, :]
    if has_shortcut:
        values += tl.load(shortcut + place, mask=exists, other=0.0).to(tl.float32)
    if has_limits:
        # Written so that NaN stays: the caller looks for it.
        values = tl.where(values < low, low, values)
        values = tl.where(values > high, high, values)
    tl.store(output + place, values.to(output.dtype.element_ty), mask=exists)
