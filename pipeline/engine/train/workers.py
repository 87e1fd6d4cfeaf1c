"""How many training workers there are, and which resources of the cluster they use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic, sleep

from pipeline.engine import cluster
from pipeline.engine.node_demand import NodeDemand
from pipeline.errors import NoCapacity
from pipeline.option_ranges import check_range
from pipeline.runs.placement import ANYWHERE, Need, Placement
from pipeline.training.recipe import Recipe
from pipeline.training.specification import TrainingSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workers:
    """The workers of a training."""

    count: int
    cpus: int
    """Cores per worker, which are its threads too."""
    gpu: bool
    """Whether every worker has a GPU."""
    recipe: Recipe
    """The recipe of one worker."""
    rate_factor: int = 1
    """Multiplies the recipe's learning rates."""
    idle: int = 0
    """Requested workers, or GPUs, that are left out because the step has no image for them."""
    placement: Placement = ANYWHERE
    """Which nodes may hold a worker."""

    def divide(self, spec: TrainingSpec) -> TrainingSpec:
        """The part of a training that each of the workers does."""
        return replace(spec, recipe=self.recipe, workers=self.count, rate_factor=self.rate_factor)

    def log_schedule(self) -> None:
        """Log what the workers make of a step; warn if the schedule or the number of workers changes."""
        images = self.recipe.images_per_step
        if self.rate_factor > 1:
            log.warning(
                "%d workers take %d images each: a step has %d images, there are 1/%d of the steps, and the "
                "learning rates are multiplied by %d after the warm-up; --scale-rate-with-workers False "
                "divides a step's images instead",
                *(self.count, images, images * self.count, self.count, self.rate_factor),
            )
        elif self.count > 1:
            log.info(
                "%d workers divide a step's %d images: the schedule is that of one worker",
                *(self.count, images * self.count),
            )
        if self.idle:
            log.warning(
                "%d of %d workers are left out: a step's %d images divide among %d; "
                "--scale-rate-with-workers True --warm-up 0.05 gives each worker a whole step's images",
                *(self.idle, self.idle + self.count, images * self.count, self.count),
            )

    def __str__(self) -> str:
        device = "a GPU and " if self.gpu else ""
        threads = "1 core" if self.cpus == 1 else f"{self.cpus} cores"
        plural = "s" if self.count > 1 else ""
        return f"{self.count} worker{plural} with {device}{threads}"

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves per worker."""
        return dict(_build_need(self.placement, self.cpus, gpu=self.gpu).amounts)


def choose_workers(
    recipe: Recipe,
    count: int | None,
    patience: float,
    *,
    gpu: bool | None = None,
    placement: Placement = ANYWHERE,
) -> Workers:
    """Choose workers that the living nodes can hold; if there are too few, ask an autoscaler and wait.

    Args:
        recipe: its step is divided among the workers. With `scale_rate_with_workers` and GPUs or a
            `count`, each worker takes a whole step.
        count: workers; None takes one per GPU or core. A step that is divided takes no more workers than
            divide its images.
        patience: seconds to wait.
        gpu: whether every worker needs a GPU; None: if the cluster has one.
        placement: which nodes may hold a worker.

    Raises:
        InvalidConfiguration: fewer than one worker.
        NoCapacity: the nodes cannot hold that many workers.
    """
    check_range("workers", count, at_least=1)
    start = monotonic()
    demand = NodeDemand()
    try:
        while True:
            nodes = _list_nodes(placement)
            workers = find_fitting_workers(recipe, count, nodes, gpu, placement)
            if workers is not None:
                return workers
            needed = count or 1
            if not recipe.scale_rate_with_workers:
                _, needed = recipe.divide_among_workers(needed)
            description = _describe_workers(needed, placement, gpu=bool(gpu))
            if monotonic() - start >= patience:
                raise NoCapacity(_explain_no_room(description, nodes, gpu))
            if not demand.has_asked:
                demand.ask_together([_build_need(placement, 1, gpu=bool(gpu))] * needed)
                log.info("waiting up to %.0f s for nodes that can hold %s", patience, description)
            sleep(min(1.0, max(0.1, patience / 10)))
    finally:
        demand.close()


def _describe_workers(count: int, placement: Placement, *, gpu: bool) -> str:
    where = "" if placement == ANYWHERE else f" on nodes that have {placement.build_need()}"
    return f"{count} training workers{' with a GPU each' if gpu else ''}{where}"


def _list_nodes(placement: Placement) -> list[dict[str, float]]:
    """The resources of the living nodes that may hold a worker."""
    custom = placement.build_need()
    return [
        dict(host.resources)
        for host in cluster.get_capacity().hosts
        if custom.accepts(host.labels)
        and all(host.resources.get(name, 0) >= amount for name, amount in custom.amounts.items())
    ]


def _explain_no_room(description: str, nodes: Sequence[dict[str, float]], gpu: bool | None) -> str:
    cores = ", ".join(f"{node.get('CPU', 0):g}" for node in nodes) or "no"
    gpus = sum(node.get("GPU", 0) for node in nodes)
    hint = " or train on cores with --gpu False" if gpus and gpu is None else ""
    return (
        f"{description} do not fit: the nodes have {cores} cores and {gpus:g} GPUs; "
        f"ask for fewer --workers{hint}"
    )


def _build_need(placement: Placement, cpus: int, *, gpu: bool) -> Need:
    return placement.build_need(CPU=cpus, GPU=1) if gpu else placement.build_need(CPU=cpus)


def find_fitting_workers(
    recipe: Recipe,
    count: int | None,
    nodes: Sequence[dict[str, float]],
    gpu: bool | None = None,
    placement: Placement = ANYWHERE,
) -> Workers | None:
    """The workers that nodes with these resources can hold, or None.

    Args:
        recipe: as `choose_workers` takes it.
        count: as `choose_workers` takes it.
        nodes: the resources of the nodes whose labels `placement` accepts.
        gpu: as `choose_workers` takes it.
        placement: the custom resources that a worker takes.
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    on_gpu = gpus > 0 if gpu is None else gpu
    cores = int(sum(node.get("CPU", 0) for node in nodes))
    requested = count or max(1, gpus if on_gpu else cores)
    worker_recipe, workers, rate_factor, idle = recipe, requested, requested, 0
    if not recipe.scale_rate_with_workers or (count is None and not on_gpu):
        worker_recipe, workers = recipe.divide_among_workers(requested)
        rate_factor = 1
        if count is not None or on_gpu:  # cores beyond the images become threads of the workers
            idle = requested - workers
    for cpus in range(max(1, cores // workers), 0, -1):
        need = Need(_build_need(placement, cpus, gpu=on_gpu).amounts)
        if sum(need.count_on(node, {}) for node in nodes) >= workers:
            return Workers(workers, cpus, on_gpu, worker_recipe, rate_factor, idle, placement)
    return None
