"""The options of `--plan`: what to measure, and which cluster the run is planned for."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields


@dataclass(frozen=True)
class PlanOptions:
    """Options of a plan; the other ones are rejected without `--plan`."""

    plan: bool = False
    """Measure a sample of the images on this machine, print what the run will cost, write plan.json into the
    output, and start nothing."""
    plan_images: int = 64
    """Images to measure."""
    plan_seconds: float = 300.0
    """Seconds after which no further image is measured."""
    plan_seed: int = 0
    """Seed of the sample."""
    nodes: int = 1
    """Nodes of the planned cluster."""
    cores: int | None = None
    """Cores of each of these nodes; unset: those of this machine."""
    core_hour_price: float | None = None
    """Price of a core for an hour, whether it is busy or not."""

    def __post_init__(self) -> None:
        check_fields(self, "plan_images", at_least=8)
        check_fields(self, "nodes", "cores", at_least=1)
        check_fields(self, "plan_seconds", above=0)
        check_fields(self, "core_hour_price", at_least=0)
        if not self.plan:
            for field in fields(self):
                if getattr(self, field.name) != field.default:
                    option = field.name.replace("_", "-")
                    raise InvalidConfiguration(f"--{option} is an option of --plan: add --plan")


@dataclass(frozen=True)
class GpuPlanOptions(PlanOptions):
    """Options of the plan of a job that may compute on GPUs."""

    gpus: int | None = None
    """GPUs of each of these nodes; unset: those of this machine."""
    gpu_hour_price: float | None = None
    """Price of a GPU for an hour, whether it is busy or not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "gpus", "gpu_hour_price", at_least=0)


@dataclass(frozen=True)
class DetectionPlanOptions(GpuPlanOptions):
    """Options of the plan of a detection."""

    detector_seconds_per_image: float | None = None
    """Seconds that a GPU of the planned cluster takes per image, for a plan on a machine without such a GPU:
    `detector_seconds_per_image` in a plan.json that was written on a machine with one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "detector_seconds_per_image", above=0)
