"""The paper's tables by name: each function runs its jobs, once, and returns its rows."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks.paper_rows import Row
from tests.benchmarks.paper_runs import Runs
from tests.benchmarks.paper_systems import (
    measure_quality,
    measure_speed,
    measure_svd,
    measure_svm,
)
from tests.benchmarks.paper_trainings import (
    measure_fixed_proposals,
    measure_layers,
    measure_multi_task,
    measure_proposals,
    measure_sampling,
    measure_scales,
)

TABLES: dict[str, Callable[[Runs], list[Row]]] = {
    "speed": measure_speed,
    "quality": measure_quality,
    "layers": measure_layers,
    "multi_task": measure_multi_task,
    "scales": measure_scales,
    "svd": measure_svd,
    "svm": measure_svm,
    "proposals": measure_proposals,
    "sampling": measure_sampling,
    "fixed_proposals": measure_fixed_proposals,
}
"""The tables in their order."""
