"""What this machine has, and the planned cluster as Ray would report it."""

from __future__ import annotations

import os
from importlib.util import find_spec

from pipeline.engine.capacity import Capacity, Host
from pipeline.engine.planning.image_costs import MEMORY_SHARE
from pipeline.runs.plan_options import GpuPlanOptions, PlanOptions
from pipeline.runs.run_plan import PlannedCluster

STORE_SHARE = 0.3
"""Share of a machine's memory that Ray gives its object store."""


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def count_gpus() -> int:
    """GPUs that torch can use here."""
    if find_spec("torch") is None:
        return 0
    import torch  # noqa: PLC0415  takes three seconds

    return torch.cuda.device_count()


def choose_cluster(options: PlanOptions) -> PlannedCluster:
    """The cluster that the options describe; what they leave open is as on this machine."""
    gpus = 0
    if isinstance(options, GpuPlanOptions):
        gpus = count_gpus() if options.gpus is None else options.gpus
    return PlannedCluster(options.nodes, options.cores or count_cores(), gpus)


def build_capacity(cluster: PlannedCluster) -> Capacity:
    """The planned cluster as Ray would report it, its nodes with as much memory per core as this machine."""
    own_memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = own_memory / count_cores() * cluster.cores
    hosts = tuple(
        Host(f"node{number}", cluster.cores, cluster.gpus, MEMORY_SHARE * memory)
        for number in range(cluster.nodes)
    )
    return Capacity(
        cpus=cluster.all_cores,
        gpus=cluster.all_gpus,
        memory=MEMORY_SHARE * memory * cluster.nodes,
        object_store=STORE_SHARE * memory * cluster.nodes,
        hosts=hosts,
    )
