"""The figures of a plan from totals, and the fixed costs that no sample shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.runs.plan_estimation import Estimate, summarise
from pipeline.runs.plan_options import PlanOptions
from pipeline.runs.run_plan import PlannedCluster

RUN_START_SECONDS = 1.0
"""What Ray adds to the start of a run's workers: it places them, starts their processes, connects them."""
TRAIN_START_SECONDS = 5.0
"""The same for a training, and what Ray Train takes to end."""
TRAIN_PROCESSES = 4
"""Processes that a training starts beside its controller and workers."""
RAY_CORES = 0.15
"""Cores of each node that Ray's own processes and the driver take while all cores have work: what a
machine of two cores spent beside its workers."""
TASK_SECONDS = 0.006
"""Core time of Ray's own processes and the driver for a task or actor call."""


def compute_slowdown(cluster: PlannedCluster) -> float:
    """How many times as long work on all cores takes because of Ray's own processes."""
    return cluster.cores / (cluster.cores - RAY_CORES)


def build_figures(
    cluster: PlannedCluster,
    options: PlanOptions,
    *,
    parts: int,
    core_seconds: NDArray[np.float64],
    wall_seconds: NDArray[np.float64] | None,
    bytes_read: NDArray[np.float64],
    bytes_written: NDArray[np.float64],
    gpu_seconds: NDArray[np.float64] | None = None,
    detector_seconds_per_image: NDArray[np.float64] | None = None,
) -> dict[str, Estimate]:
    """The figures by name; arrays `(1 + RESAMPLES,)` hold the estimate, then the resamples."""
    values: dict[str, NDArray[np.float64] | None] = {
        "core_hours": core_seconds / 3600,
        "gpu_hours": None if gpu_seconds is None else gpu_seconds / 3600,
        "wall_seconds": wall_seconds,
        "bytes_read": bytes_read,
        "bytes_written": bytes_written,
        "bytes_per_part": bytes_written / parts,
        "detector_seconds_per_image": detector_seconds_per_image,
    }
    price_per_hour = cluster.compute_price_per_hour(options)
    if price_per_hour is not None and wall_seconds is not None:
        values["price"] = wall_seconds / 3600 * price_per_hour
    return {name: summarise(array) for name, array in values.items() if array is not None}
