"""How far a plan was off, once its run has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.runs.run_plan import FIGURES, RunPlan

IN_PROPORTION = ("core_hours", "gpu_hours", "bytes_read", "bytes_written")
"""Figures that are in proportion to the images; others hold for the whole run only."""


@dataclass(frozen=True)
class PlanError:
    """One figure of a plan beside what the run measured."""

    planned: float
    """For the images that the run did."""
    actual: float

    @property
    def relative(self) -> float:
        """The difference as a share of what the run measured: 0.1 if the plan was 10 % too high."""
        return (self.planned - self.actual) / self.actual

    def as_json(self) -> dict[str, float]:
        """The values as summary.json stores them."""
        return {
            "planned": self.planned,
            "actual": self.actual,
            "relative": round(self.relative, 4),
        }


def compare_with_plan(
    plan: RunPlan, actual: Mapping[str, float], images: int, cores: int, gpus: float
) -> dict[str, PlanError]:
    """The figures of a plan beside those of its run.

    A run that did a part of the planned images, because another did the rest, is compared with the same
    part of the figures that are in proportion to images. The wall time is compared if the run did all
    images on as many cores and GPUs as were planned.

    Args:
        plan: the plan.
        actual: what the run measured, by the names in `FIGURES`.
        images: images that the run did.
        cores: cores of the run's cluster.
        gpus: its GPUs.
    """
    share = images / plan.images if plan.images else 0.0
    is_as_planned = images == plan.images and (cores, gpus) == (
        plan.cluster.all_cores,
        plan.cluster.all_gpus,
    )
    errors = {}
    for name, value in actual.items():
        estimate = plan.figures.get(name)
        if estimate is None or value <= 0 or share <= 0:
            continue
        if name in IN_PROPORTION:
            errors[name] = PlanError(estimate.value * share, value)
        elif is_as_planned:
            errors[name] = PlanError(estimate.value, value)
    return errors


def format_plan_errors(errors: Mapping[str, PlanError]) -> str:
    """One line for the end of a run."""
    described = ", ".join(
        f"{FIGURES[name]} {error.relative:+.1%}" for name, error in errors.items()
    )
    return f"plan against run: {described}"
