"""How many training workers there are, and which resources of the cluster they use."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep

import ray

from pipeline.errors import NoCapacity
from pipeline.option_ranges import check_range
from pipeline.training.recipe import Recipe

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
        return {"CPU": self.cpus, "GPU": 1} if self.gpu else {"CPU": self.cpus}


def choose_workers(
    recipe: Recipe, count: int | None, patience: float, *, gpu: bool | None = None
) -> Workers:
    """Choose workers that the living nodes can hold; wait for nodes if there are too few.

    Args:
        recipe: its step is divided among the workers. With `scale_rate_with_workers` and GPUs or a
            `count`, each worker takes a whole step.
        count: workers; None takes one per GPU or core. A step that is divided takes no more workers than
            divide its images.
        patience: seconds to wait.
        gpu: whether every worker needs a GPU; None: if the cluster has one.

    Raises:
        InvalidConfiguration: fewer than one worker.
        NoCapacity: the nodes cannot hold that many workers.
    """
    check_range("workers", count, at_least=1)
    needed = count or 1
    if not recipe.scale_rate_with_workers:
        _, needed = recipe.divide_among_workers(needed)
    description = f"{needed} training workers{' with a GPU each' if gpu else ''}"
    deadline = monotonic() + patience
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        workers = find_fitting_workers(recipe, count, nodes, gpu)
        if workers is not None:
            return workers
        if monotonic() > deadline:
            cores = ", ".join(f"{n.get('CPU', 0):g}" for n in nodes)
            gpus = sum(n.get("GPU", 0) for n in nodes)
            hint = " or train on cores with --gpu False" if gpus and gpu is None else ""
            raise NoCapacity(
                f"{description} do not fit: the nodes have {cores} cores and {gpus:g} GPUs; "
                f"ask for fewer --workers{hint}"
            )
        log.info("waiting for nodes that can hold %s", description)
        sleep(min(5.0, max(0.1, patience / 10)))


def find_fitting_workers(
    recipe: Recipe,
    count: int | None,
    nodes: Sequence[dict[str, float]],
    gpu: bool | None = None,
) -> Workers | None:
    """The workers that nodes with these resources can hold, or None."""
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
        if sum(_count_fitting(node, cpus, on_gpu) for node in nodes) >= workers:
            return Workers(workers, cpus, on_gpu, worker_recipe, rate_factor, idle)
    return None


def _count_fitting(node: dict[str, float], cpus: int, gpu: bool) -> int:
    by_core = int(node.get("CPU", 0) // cpus)
    return min(by_core, int(node.get("GPU", 0))) if gpu else by_core
