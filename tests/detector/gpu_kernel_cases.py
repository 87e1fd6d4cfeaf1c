"""Compares Triton's kernels with torch, on a CPU, by Triton's interpreter: exit code 1 if they differ.

TRITON_INTERPRET=1 python -m tests.detector.gpu_kernel_cases
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torchvision.ops import roi_pool

from pipeline.detector.gpu_epilogue import finish_convolution
from pipeline.detector.gpu_pooling import pool_on_gpu
from tests.detector.networks import draw_random_boxes

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
EDGES = [
    [0, 0, 400, 300],
    [399, 299, 400, 300],
    [8, 8, 24, 24],
    [-20, -20, 4, 4],
    [390, 290, 480, 380],
]


def compare_pooling() -> None:
    """Cells at the map's edges and outside of it, and channels that do not fill a block."""
    rng = np.random.default_rng(0)
    boxes = np.concatenate([EDGES, draw_random_boxes(rng, 40, 300, 400)])
    rois = np.insert(boxes, 0, np.arange(len(boxes)) % 2, axis=1).astype(np.float32)
    inclusive = torch.from_numpy(rois)
    inclusive[:, 3:] -= 1
    for dtype in DTYPES:
        for channels, size in ((32, 7), (40, 2)):
            features = torch.from_numpy(rng.normal(size=(2, channels, 19, 25))).to(dtype)
            for layout in (torch.contiguous_format, torch.channels_last):
                arranged = features.contiguous(memory_format=layout)
                pooled = pool_on_gpu(arranged, inclusive, size, 1 / 16)
                expected = roi_pool(features.float(), inclusive, size, 1 / 16).to(dtype)
                assert torch.equal(pooled, expected), (dtype, channels, size)
                assert pooled.is_contiguous(memory_format=torch.channels_last)
    assert pool_on_gpu(features, inclusive[:0], 7, 1 / 16).shape == (0, 40, 7, 7)


def compare_epilogue() -> None:
    """Bias, shortcut and limits, together and alone; NaN stays."""
    generator = torch.Generator().manual_seed(0)
    for dtype in DTYPES:
        for channels in (24, 300):
            shape = (2, channels, 5, 7)
            values, shortcut = (
                torch.randn(shape, generator=generator, dtype=torch.float32)
                .to(dtype)
                .contiguous(memory_format=torch.channels_last)
                for _ in range(2)
            )
            values[1, 3, 2, 1] = math.nan
            bias = torch.randn(channels, generator=generator).to(dtype)
            for added in (None, shortcut):
                for limits in (None, (0.0, math.inf), (0.0, 0.6)):
                    expected = values.float() + bias.float()[:, None, None]
                    expected += 0 if added is None else added.float()
                    if limits is not None:
                        expected = expected.clamp(*limits)
                    finished = finish_convolution(values.clone(), bias, added, limits)
                    # The interpreter cuts off where a GPU rounds to bf16's 8 bits.
                    tolerance = 2.0**-7 if dtype == torch.bfloat16 else 0.0
                    torch.testing.assert_close(
                        finished, expected.to(dtype), rtol=tolerance, atol=0, equal_nan=True
                    )


if __name__ == "__main__":
    compare_pooling()
    compare_epilogue()
