"""What follows a convolution on a GPU, in one pass over its output: bias, shortcut, ReLU or ReLU6.

Torch needs a pass for each. With ResNet-50 on RoIs these passes took longer than the convolutions.
"""

from __future__ import annotations

import math

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
    _finish[grid](
        *(output, bias, output if shortcut is None else shortcut, rows, channels, low, high),
        HAS_SHORTCUT=shortcut is not None,
        HAS_LIMITS=limits is not None,
        ROWS=rows_together,
        BLOCK=block,
    )
    return output


@triton.jit(do_not_specialize=["rows", "low", "high"])
def _finish(  # type: ignore[no-untyped-def]  # Triton would evaluate other annotations
    output,
    bias,
    shortcut,
    rows,
    channels,
    low,
    high,
    HAS_SHORTCUT: tl.constexpr,
    HAS_LIMITS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Finish a few rows of the output, for a block of channels."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    has_channel = channel < channels
    exists = (row < rows)[:, None] & has_channel[None, :]
    place = row[:, None] * channels + channel[None, :]
    values = tl.load(output + place, mask=exists, other=0.0).to(tl.float32)
    values += tl.load(bias + channel, mask=has_channel, other=0.0).to(tl.float32)[None, :]
    if HAS_SHORTCUT:
        values += tl.load(shortcut + place, mask=exists, other=0.0).to(tl.float32)
    if HAS_LIMITS:
        # Written so that NaN stays: the caller looks for it.
        values = tl.where(values < low, low, values)
        values = tl.where(values > high, high, values)
    tl.store(output + place, values.to(output.dtype.element_ty), mask=exists)
