"""Which options each system uses: others are rejected, and records leave them out.

Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pipeline.baselines.settings import BaselineSettings, System
from pipeline.errors import InvalidConfiguration
from pipeline.training.recipe import Recipe

_FAST_RCNN_ONLY = frozenset(
    (
        *("short_sides", "max_side", "use_empty_images", "images_per_step", "rois_per_step"),
        *("accumulate", "background_iou_high", "widen_background", "box_loss_weight", "epochs"),
        *("box_epochs", "iterations", "scale_rate_with_workers", "channels_last"),
    )
)
_RECIPE = frozenset(item.name for item in fields(Recipe))
_SETTINGS = frozenset(item.name for item in fields(BaselineSettings))
_WINDOWS = frozenset(("window_size", "window_context"))
_PYRAMID = frozenset(("pyramid", "scales", "scale_cap"))

UNUSED_RECIPE: Mapping[System, frozenset[str]] = {
    "fast-rcnn": frozenset(),
    # A window of background may overlap no object at all.
    "rcnn": _FAST_RCNN_ONLY | {"background_iou_low"},
    # Windows are pooled from stored maps, by a pyramid, and all convolutions are fixed.
    "sppnet": _FAST_RCNN_ONLY | {"flip", "roi_size", "freeze_until"},
    "fast-rcnn-svm": _RECIPE - {"max_proposals", "min_proposal_side", "precision"},
}
"""Fields of a recipe that a system does not use."""

UNUSED_SETTINGS: Mapping[System, frozenset[str]] = {
    "fast-rcnn": _SETTINGS,
    "rcnn": _PYRAMID,
    "sppnet": _WINDOWS,
    "fast-rcnn-svm": _WINDOWS
    | _PYRAMID
    | {"fine_tune_steps", "windows_per_step", "ridge", "regression_iou"},
}
"""Fields of `BaselineSettings` that a system does not use."""


def check_options(
    system: System, recipe: Recipe, default: Recipe, settings: BaselineSettings
) -> None:
    """Reject options that a system does not use, so that none is ignored.

    Args:
        system: what is trained.
        recipe: the recipe with the options of the command.
        default: the recipe as its name gives it.
        settings: the options of R-CNN and SPPnet.

    Raises:
        InvalidConfiguration: an unused option is not its default, or fine-tuning is to run in fp16.
    """
    changed = [
        *_list_changed(recipe, default, UNUSED_RECIPE[system]),
        *_list_changed(settings, BaselineSettings(), UNUSED_SETTINGS[system]),
    ]
    if changed:
        raise InvalidConfiguration(
            f"--system {system} has no --{changed[0].replace('_', '-')}: {_advise(system, changed[0])}"
        )
    if recipe.precision == "fp16" and system in ("rcnn", "sppnet"):
        raise InvalidConfiguration(
            f"--precision is fp16, which --system {system} cannot fine-tune in, as it does not scale "
            "gradients: choose bf16, fp32 or auto"
        )


def _list_changed(options: object, default: object, unused: frozenset[str]) -> list[str]:
    names = [item.name for item in fields(options) if item.name in unused]  # type: ignore[arg-type]
    return [name for name in names if getattr(options, name) != getattr(default, name)]


def _advise(system: System, name: str) -> str:
    if system == "fast-rcnn":
        return "leave it out, or choose another --system"
    if name in ("epochs", "iterations") and system != "fast-rcnn-svm":
        return "leave it out; --fine-tune-steps sets the length"
    return "leave it out"


def select_recipe_settings(system: System, recipe: Recipe) -> dict[str, Any]:
    """JSON values of the recipe's fields that the system uses."""
    values = recipe.as_settings()
    return {name: value for name, value in values.items() if name not in UNUSED_RECIPE[system]}


def select_baseline_settings(system: System, settings: BaselineSettings) -> dict[str, Any]:
    """JSON values of the settings that the system uses and that change a number."""
    values = settings.as_settings()
    return {name: value for name, value in values.items() if name not in UNUSED_SETTINGS[system]}
