"""All figures of the device, one after the other; each is printed, and kept, as soon as it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.gpu.checks import Setting
from tests.gpu.feeding_figures import measure_feeding
from tests.gpu.predictor_figures import measure_predictors
from tests.gpu.training_figures import measure_steps
from tests.gpu.variant_figures import measure_variants

Figures = dict[str, dict[str, Any]]


def measure_figures(setting: Setting, only: str, keep: Callable[[Figures], None]) -> Figures:
    """Measure predictors, the cores that feed them, training steps and variants.

    Args:
        setting: the device.
        only: leave out the groups without this in their name: predictors, feeding, training, variants.
        keep: receives all figures so far after each, since a machine may go before the last.
    """
    figures: Figures = {}
    groups: dict[str, Callable[[], Iterator[tuple[str, dict[str, Any]]]]] = {
        "predictors": lambda: measure_predictors(setting),
        "feeding": lambda: measure_feeding(setting, figures),
        "training": lambda: measure_steps(setting),
        "variants": lambda: measure_variants(setting),
    }
    for group, measure in groups.items():
        if only not in group:
            continue
        for name, values in measure():
            figures[name] = values
            print(f"{name:44} {_describe(values)}", flush=True)
            keep(figures)
    return figures


def _describe(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
        if value is not None
    )
