"""Images/s and memory of the training step, by network, precision and images per step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from pipeline.detector.architecture import Architecture
from pipeline.detector.backbones.catalog import BACKBONES
from pipeline.detector.network import build_network
from pipeline.errors import InvalidConfiguration
from pipeline.training.recipes import get_recipe
from tests.gpu.checks import Setting
from tests.gpu.timing import measure_busy_share, measure_peak_bytes, synchronise, time_call
from tests.gpu.training_checks import build_step, draw_samples

RECIPES = ("paper_l", "resnet50", "mobilenet_v2")
CLASSES = ("cat", "dog")


def measure_steps(setting: Setting) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and figures for each recipe, precision and number of images with 64 RoIs each."""
    for name in ("tiny",) if setting.is_quick else RECIPES:
        for precision in ("fp32", "bf16", "fp16"):
            for images in (2,) if setting.is_quick else (2, 8):
                title = f"train {name} {precision} {images} images"
                yield title, _measure_or_explain(setting, name, precision, images)
                if setting.on_gpu:
                    torch.cuda.empty_cache()


def _measure_or_explain(setting: Setting, name: str, precision: str, images: int) -> dict[str, Any]:
    """The figures, or why there are none: the others still count."""
    try:
        return _measure_step(setting, name, precision, images)
    except InvalidConfiguration as error:
        return {"skipped": str(error)}
    except Exception as error:  # such as full memory
        synchronise(setting)
        return {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"}


def _measure_step(setting: Setting, name: str, precision: str, images: int) -> dict[str, Any]:
    recipe = replace(get_recipe(name), precision=precision, learning_rate=1e-6)  # type: ignore[arg-type]
    freeze = BACKBONES[recipe.network].freeze_until
    network = build_network(Architecture(CLASSES, recipe.network, freeze_until=freeze)).train()
    step = build_step(network, recipe, setting.device)
    size, rois = ((64, 80), 8) if setting.is_quick else ((600, 800), 64)
    samples = draw_samples(0, images, size, rois)

    def train() -> None:
        step(samples, 0)

    seconds = time_call(setting, train)
    return {
        "images_per_second": images / seconds,
        "seconds_per_step": seconds,
        "busy_share": measure_busy_share(setting, train),
        "peak_bytes": measure_peak_bytes(setting, train),
    }
