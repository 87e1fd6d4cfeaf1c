"""How many training workers there are, and what each takes of the cluster."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep

import ray

from pipeline.errors import InvalidConfiguration, NoCapacity
from pipeline.training.recipe import Recipe

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workers:
    """The workers of a training."""

    count: int
    cpus: int
    """Cores of each, which are its threads too."""
    gpu: bool
    """Whether each has a GPU."""
    recipe: Recipe
    """What each one does in a step."""

    def __str__(self) -> str:
        device = "a GPU and " if self.gpu else ""
        threads = "1 core" if self.cpus == 1 else f"{self.cpus} cores"
        plural = "s" if self.count > 1 else ""
        return f"{self.count} worker{plural} with {device}{threads}"

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for each."""
        return {"CPU": self.cpus, "GPU": 1} if self.gpu else {"CPU": self.cpus}


def placed(
    recipe: Recipe, count: int | None, patience: float, *, gpu: bool | None = None
) -> Workers:
    """Choose workers that the living nodes can hold, waiting for nodes where there are too few.

    Args:
        recipe: per worker where `count` is given or there are GPUs; else its step is divided.
        count: workers; None takes one per GPU, or one per core up to the images of a step.
        patience: seconds to wait.
        gpu: whether each is to have a GPU; None: where the cluster has one.

    Raises:
        InvalidConfiguration: fewer than one worker.
        NoCapacity: the nodes cannot hold that many workers.
    """
    if count is not None and count < 1:
        raise InvalidConfiguration(f"{count} workers; expected at least 1")
    wanted = f"{count or 1} training workers{' with a GPU each' if gpu else ''}"
    deadline = monotonic() + patience
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        found = fitting(recipe, count, nodes, gpu)
        if found is not None:
            return found
        if monotonic() > deadline:
            cores = ", ".join(f"{n.get('CPU', 0):g}" for n in nodes)
            gpus = sum(n.get("GPU", 0) for n in nodes)
            hint = " or train on cores with --gpu False" if gpus and gpu is None else ""
            raise NoCapacity(
                f"{wanted} do not fit: the nodes have {cores} cores and {gpus:g} GPUs; "
                f"ask for fewer --workers{hint}"
            )
        log.info("waiting for nodes that can hold %s", wanted)
        sleep(min(5.0, max(0.1, patience / 10)))


def fitting(
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
    mine = recipe
    if count is None and on_gpu:
        count = gpus
    elif count is None:
        mine, count = recipe.divided(max(1, cores))
    for cpus in range(max(1, cores // count), 0, -1):
        if sum(_room(node, cpus, on_gpu) for node in nodes) >= count:
            return Workers(count, cpus, on_gpu, mine)
    return None


def _room(node: dict[str, float], cpus: int, gpu: bool) -> int:
    by_core = int(node.get("CPU", 0) // cpus)
    return min(by_core, int(node.get("GPU", 0))) if gpu else by_core
