"""The kernels of Triton, where they can be compiled: they need Triton and a C compiler at run time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class GpuKernels(NamedTuple):
    """What Triton computes on a GPU."""

    pool: Callable[[Tensor, Tensor, int, float], Tensor]
    """`gpu_pooling.pool_on_gpu`."""
    finish_convolution: Callable[
        [Tensor, Tensor, Tensor | None, tuple[float, float] | None], Tensor
    ]
    """`gpu_epilogue.finish_convolution`."""


@lru_cache(maxsize=1)
def load_gpu_kernels() -> GpuKernels | None:
    """Return the kernels after a first use; None, and a warning, where that fails."""
    try:
        from pipeline.detector.gpu_epilogue import finish_convolution  # noqa: PLC0415  needs Triton
        from pipeline.detector.gpu_pooling import pool_on_gpu  # noqa: PLC0415

        one = torch.zeros((1, 1, 1, 1), device="cuda")
        finish_convolution(one, one.view(1), None, None)
        pool_on_gpu(one, torch.zeros((1, 5), device="cuda"), 1, 1.0)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        log.warning(
            "the GPU computes with torch's own operators, which are slower: Triton's kernels cannot be used "
            "(%s: %s)",
            type(error).__name__,
            reason,
        )
        return None
    return GpuKernels(pool_on_gpu, finish_convolution)
