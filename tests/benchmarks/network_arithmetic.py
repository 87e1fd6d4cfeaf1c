"""The arithmetic of a network, and its share of what the processor could compute in the same time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.detector.network import FastRCNN


class Arithmetic:
    """Sums the GFLOP of images as torch counts them: two per multiply-add, including zero padding."""

    def __init__(self, model: FastRCNN) -> None:
        model = copy.deepcopy(model).to("meta")
        pooled = torch.empty(
            1, model.backbone.channels, model.roi_size, model.roi_size, device="meta"
        )
        self._per_roi = count_gflop(lambda: model.backbone.head(pooled))
        outputs = model.cls_score.out_features + model.bbox_pred.out_features
        self._per_roi += 2 * outputs * model.backbone.width / 1e9
        self._trunk = cache(
            lambda shape: count_gflop(
                lambda: model.backbone.trunk(torch.empty(1, 3, *shape, device="meta"))
            )
        )
        self.trunk, self.rois = 0.0, 0

    def add(self, shape: tuple[int, int], rois: int) -> None:
        """Add one image of size `shape` with a number of RoIs."""
        self.trunk += self._trunk(shape)
        self.rois += rois

    def compare_with_peak(
        self, peak: float, images: int, trunk_ms: float, head_ms: float
    ) -> dict[str, dict[str, float]]:
        """GFLOP per image, GFLOP/s and share of the peak, from the milliseconds per image of each part."""
        parts = {"trunk": (self.trunk, trunk_ms), "head": (self._per_roi * self.rois, head_ms)}
        return {
            name: {
                "gflop_per_image": gflop / images,
                "gflops": 1e3 * gflop / images / milliseconds,
                "of_peak": 1e3 * gflop / images / milliseconds / peak,
            }
            for name, (gflop, milliseconds) in parts.items()
        }


def count_gflop(function: Callable[[], Any]) -> float:
    """Count the GFLOP of a call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops() / 1e9


def measure_peak_gflops(dtype: torch.dtype, clock: Callable[[], float], side: int = 2048) -> float:
    """GFLOP/s of the fastest of six products of square matrices."""
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        begin = clock()
        a @ b
        best = min(best, clock() - begin)
    return 2 * side**3 / best / 1e9
