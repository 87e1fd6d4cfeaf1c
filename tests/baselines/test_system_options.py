"""Each system rejects the options that it does not use, and its record leaves them out."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from pipeline.baselines.settings import BASELINES, BaselineSettings, System
from pipeline.baselines.system_options import (
    UNUSED_RECIPE,
    UNUSED_SETTINGS,
    check_options,
    select_baseline_settings,
    select_recipe_settings,
)
from pipeline.errors import InvalidConfiguration
from pipeline.training.recipe import Recipe

RECIPE, SETTINGS = Recipe(), BaselineSettings()


@pytest.mark.parametrize(
    ("system", "recipe", "settings", "option"),
    [
        ("fast-rcnn", {}, {"ridge": 1.0}, "--ridge: leave it out, or choose another"),
        ("rcnn", {"background_iou_low": 0.2}, {}, "--background-iou-low: leave it out"),
        ("rcnn", {"epochs": 2.0}, {}, "--epochs: leave it out; --fine-tune-steps sets"),
        ("rcnn", {}, {"scales": (480,)}, "--scales"),
        ("rcnn", {}, {"scale_cap": 1500}, "--scale-cap"),
        ("sppnet", {"roi_size": 3}, {}, "--roi-size"),
        ("sppnet", {"freeze_until": "none"}, {}, "--freeze-until"),
        ("sppnet", {}, {"window_size": 96}, "--window-size"),
        ("sppnet", {}, {"window_context": 3}, "--window-context"),
        ("fast-rcnn-svm", {"epochs": 2.0}, {}, "--epochs: leave it out$"),
        ("fast-rcnn-svm", {}, {"fine_tune_steps": 5}, "--fine-tune-steps"),
        ("fast-rcnn-svm", {}, {"windows_per_step": 5}, "--windows-per-step"),
        ("fast-rcnn-svm", {}, {"ridge": 5.0}, "--ridge"),
        ("fast-rcnn-svm", {}, {"regression_iou": 0.5}, "--regression-iou"),
    ],
)
def test_unused_options_are_rejected(
    system: System, recipe: dict[str, object], settings: dict[str, object], option: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=f"--system {system} has no {option}"):
        check_options(
            system,
            replace(RECIPE, **recipe),  # type: ignore[arg-type]
            RECIPE,
            replace(SETTINGS, **settings),  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("system", "recipe", "settings"),
    [
        ("fast-rcnn", {"epochs": 2.0, "precision": "fp16"}, {}),
        ("rcnn", {"flip": 0.1, "freeze_until": "none"}, {"window_size": 96, "ridge": 1.0}),
        ("sppnet", {"background_iou_low": 0.2}, {"pyramid": (2,), "scales": (480,)}),
        ("fast-rcnn-svm", {"max_proposals": 10, "precision": "fp16"}, {"svm_c": 1.0}),
    ],
)
def test_used_options_are_taken(
    system: System, recipe: dict[str, object], settings: dict[str, object]
) -> None:
    changed = replace(RECIPE, **recipe)  # type: ignore[arg-type]
    check_options(system, changed, RECIPE, replace(SETTINGS, **settings))  # type: ignore[arg-type]
    stored = select_recipe_settings(system, changed)
    assert {name: stored[name] for name in recipe} == recipe


@pytest.mark.parametrize("system", ["rcnn", "sppnet"])
def test_fine_tuning_in_fp16_would_need_gradient_scaling(system: System) -> None:
    with pytest.raises(InvalidConfiguration, match="choose bf16, fp32 or auto"):
        check_options(system, replace(RECIPE, precision="fp16"), RECIPE, SETTINGS)


@pytest.mark.parametrize("system", BASELINES)
def test_a_record_has_what_the_system_uses(system: System) -> None:
    names = {item.name for item in fields(Recipe)}
    assert UNUSED_RECIPE[system] < names, "every name in the table is a field"
    assert set(select_recipe_settings(system, RECIPE)) == names - UNUSED_RECIPE[system]
    own = {item.name for item in fields(BaselineSettings)}
    assert UNUSED_SETTINGS[system] < own
    stored = select_baseline_settings(system, SETTINGS)
    assert set(stored) == own - UNUSED_SETTINGS[system] - {"images_per_part"}
