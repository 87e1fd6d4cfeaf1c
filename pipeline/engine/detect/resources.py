"""How many detector actors a run gets, and what each takes of its node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.engine.cluster import Capacity, Host
from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields

MEMORY_PER_ACTOR = 1.5e9
"""Bytes that a detector on a CPU may take, torch included."""


@dataclass(frozen=True)
class ActorOptions:
    """How many detector actors a run starts, and what each takes."""

    actors: int | None = None
    """Detector actors; by default one per GPU, or one per core if the cluster has no GPU. The job chooses
    between the two when it starts, and uses nodes that join later in the same way."""
    gpus_per_actor: float | None = None
    """GPUs of one actor: a fraction shares a GPU, 0 computes on cores."""

    def __post_init__(self) -> None:
        check_fields(self, "actors", at_least=1)
        gpus = self.gpus_per_actor
        if gpus is not None and (gpus < 0 or (gpus > 1 and not float(gpus).is_integer())):
            raise InvalidConfiguration(
                f"--gpus-per-actor is {gpus}, expected a share between 0 and 1 or a whole number"
            )


@dataclass(frozen=True)
class ActorResources:
    """What a detector actor takes, and how many there may be."""

    gpus: float
    """GPUs of one actor; 0 computes on cores."""
    threads: int
    """Threads that an actor computes and decodes with."""
    max_actors: int | None = None
    """Actors in all; None takes what the nodes can hold."""

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """The device that an actor computes on."""
        return "cuda" if self.gpus else "cpu"

    @property
    def requirements(self) -> dict[str, float]:
        """What a node must have to hold an actor."""
        return {"GPU": self.gpus} if self.gpus else {"CPU": 1.0}

    def count_on(self, host: Host) -> int:
        """How many actors a node can hold: by its GPUs, or one per core as far as its memory goes."""
        if self.gpus >= 1:
            return int(host.gpus / self.gpus)
        if self.gpus > 0:  # an actor's share is of one GPU
            return int(host.gpus) * int(1 / self.gpus + 1e-6)
        if self.max_actors is not None:
            return self.max_actors if host.cpus else 0
        return min(host.cpus, max(1, int(host.memory / MEMORY_PER_ACTOR)))

    def count_all(self, capacity: Capacity) -> int:
        """How many actors the living nodes get."""
        count = sum(self.count_on(host) for host in capacity.hosts)
        return count if self.max_actors is None else min(count, self.max_actors)

    def reserve_cpus(self, host: Host) -> float:
        """Cores that an actor reserves: none if that would starve the tasks that feed it."""
        return 1.0 if self.gpus and host.cpus > self.count_on(host) else 0.0


def choose_actor_resources(capacity: Capacity, options: ActorOptions) -> ActorResources:
    """Put the actors on GPUs if the cluster has any, otherwise on cores.

    Without GPUs, actors reserve no core: actors that hold all cores starve the tasks that feed them. The
    kernel's scheduler shares the cores between the one-threaded actors and tasks.
    """
    gpus = options.gpus_per_actor
    if gpus is None:
        gpus = min(1.0, capacity.gpus)
    return ActorResources(gpus, threads=2 if gpus else 1, max_actors=options.actors)
