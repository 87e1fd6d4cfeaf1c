"""RoI max pooling for inference on a GPU: a kernel of Triton that reads features channels last.

torchvision's kernel, made for training, pools float32 in the other memory layout, and stores for each value
where it came from. This one reads and writes the features' own dtype and layout, and nothing else. Where
the RoIs' cells lie is computed by torch, with torchvision's roundings, so that both pool the same values.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WIDEST_BLOCK = 1024
"""Channels that a program pools."""
LEAST = -3.4028234663852886e38
"""The value before the first, as torchvision's."""


def pool_on_gpu(features: Tensor, rois: Tensor, size: int, spatial_scale: float) -> Tensor:
    """Pool as `roi_max_pool` does, without gradients.

    Args:
        features: `(B, C, h, w)`; a copy is made if they are not channels last in memory.
        rois: `(R, 5)`, float32: index in the batch, then corners that include their last pixel.
        size: cells per side.
        spatial_scale: cells of the feature map per pixel.

    Returns:
        `(R, C, size, size)`, channels last in memory.
    """
    count, (_, channels, height, width) = len(rois), features.shape
    rows = features.permute(0, 2, 3, 1).contiguous()
    pooled = torch.empty(
        (count, size, size, channels), dtype=features.dtype, device=features.device
    )
    if count:
        block = min(WIDEST_BLOCK, triton.next_power_of_2(channels))
        grid = (count * size * size, triton.cdiv(channels, block))
        bounds = compute_bounds(rois, size, spatial_scale, height, width)
        with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]  # Triton computes on the current device
            _pool_cell[grid](
                *(rows, bounds, pooled, channels, height, width),
                size=size,
                block=block,
                least_value=LEAST,
                num_warps=max(1, min(8, block // 128)),
            )
    return pooled.permute(0, 3, 1, 2)


def compute_bounds(
    rois: Tensor, size: int, spatial_scale: float, height: int, width: int
) -> Tensor:
    """Compute where the cells of each RoI begin and end on the map, int32 `(R, 1 + 4 * size)`.

    A row has the index in the batch, then the begins and the ends of the cells' rows, then those of their
    columns. `rois` are those of `pool_on_gpu`.
    """
    corners = rois[:, 1:] * spatial_scale
    # Half away from zero; torch itself rounds half to even. Exact in double precision.
    wide = corners.double()
    corners = (wide.abs() + 0.5).floor().copysign(wide).float()
    steps = torch.arange(size + 1, dtype=torch.float32, device=rois.device)
    columns = [rois[:, :1]]
    for first, last, limit in ((1, 3, height), (0, 2, width)):
        start = corners[:, first, None]
        extent = (corners[:, last, None] - start + 1).clamp(min=1)
        # By a tensor: CUDA multiplies by the reciprocal of a number, which moves whole edges.
        edges = steps * (extent / torch.full_like(extent, size))
        columns.append((edges[:, :-1].floor() + start).clamp(0, limit))
        columns.append((edges[:, 1:].ceil() + start).clamp(0, limit))
    return torch.cat(columns, dim=1).int()


@triton.jit(do_not_specialize=["height", "width"])  # else it compiles again for other sizes
def _pool_cell(  # type: ignore[no-untyped-def]  # noqa: PLR0917  # Triton would evaluate other annotations
    features,
    bounds,
    pooled,
    channels,
    height,
    width,
    size: tl.constexpr,
    block: tl.constexpr,
    least_value: tl.constexpr,
):
    """Pool one cell of one RoI, for a block of channels."""
    cell = tl.program_id(0).to(tl.int64)
    roi, place = cell // (size * size), cell % (size * size)
    row, column = place // size, place % size
    of_roi = bounds + roi * (1 + 4 * size)
    image = tl.load(of_roi).to(tl.int64)
    top, bottom = tl.load(of_roi + 1 + row), tl.load(of_roi + 1 + size + row)
    left, right = tl.load(of_roi + 1 + 2 * size + column), tl.load(of_roi + 1 + 3 * size + column)
    channel = tl.program_id(1) * block + tl.arange(0, block)
    exists = channel < channels
    best = tl.full((block,), least_value, tl.float32)
    for y in range(top, bottom):
        line = features + ((image * height + y) * width + left) * channels + channel
        for _ in range(left, right):
            value = tl.load(line, mask=exists, other=least_value)
            best = tl.maximum(best, value.to(tl.float32))
            line += channels
    is_empty = (bottom <= top) | (right <= left)
    best = tl.where(is_empty, 0.0, best)
    tl.store(pooled + cell * channels + channel, best.to(pooled.dtype.element_ty), mask=exists)
