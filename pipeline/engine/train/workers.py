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
        recipe: applies per worker if `count` is set or there are GPUs; else its step is divided.
        count: workers; None takes one per GPU, or one per core up to the images of a step.
        patience: seconds to wait.
        gpu: whether every worker needs a GPU; None: if the cluster has one.

    Raises:
        InvalidConfiguration: fewer than one worker.
        NoCapacity: the nodes cannot hold that many workers.
    """
    check_range("workers", count, at_least=1)
    description = f"{count or 1} training workers{' with a GPU each' if gpu else ''}"
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
    if on_gpu and gpus < (count or 1):
        return None
    cores = int(sum(node.get("CPU", 0) for node in nodes))
    worker_recipe = recipe
    if count is None and on_gpu:
        count = gpus
    elif count is None:
        worker_recipe, count = recipe.divide_among_workers(max(1, cores))
    for cpus in range(max(1, cores // count), 0, -1):
        if sum(_count_fitting(node, cpus, on_gpu) for node in nodes) >= count:
            return Workers(count, cpus, on_gpu, worker_recipe)
    return None


def _count_fitting(node: dict[str, float], cpus: int, gpu: bool) -> int:
    by_core = int(node.get("CPU", 0) // cpus)
    return min(by_core, int(node.get("GPU", 0))) if gpu else by_core
