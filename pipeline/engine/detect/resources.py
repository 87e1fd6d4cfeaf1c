"""How many detector actors a run gets, and what each takes of its node."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pipeline.engine.capacity import Capacity, Host
from pipeline.errors import InvalidConfiguration
from pipeline.option_ranges import check_fields
from pipeline.runs.placement import ANYWHERE, Need, Placement, parse_placement

MEMORY_PER_ACTOR = 1.5e9
"""Bytes that a detector on a CPU may take, torch included."""


@dataclass(frozen=True)
class ActorOptions:
    """How many detector actors a run starts, and what each takes."""

    actors: int | None = None
    """Largest number of detector actors; by default one per GPU, or one per core if the cluster has no GPU.
    The job chooses between the two when it starts, and uses nodes that join later in the same way. An
    autoscaler is asked for nodes that hold so many."""
    gpus_per_actor: float | None = None
    """GPUs of one actor: a fraction shares a GPU and its memory, 0 computes on cores. An actor computes on
    one GPU, however many it holds."""
    actor_resources: str | None = None
    """As --resources, for the detector actors; that option is for the tasks that read and propose."""
    actor_label_selector: str | None = None
    """As --label-selector, for the detector actors."""

    def __post_init__(self) -> None:
        check_fields(self, "actors", at_least=1)
        parse_placement(self.actor_resources, self.actor_label_selector, "actor-")
        gpus = self.gpus_per_actor
        if gpus is not None and (gpus < 0 or (gpus > 1 and not float(gpus).is_integer())):
            raise InvalidConfiguration(
                f"--gpus-per-actor is {gpus}, expected a share between 0 and 1 or a whole number"
            )

    @property
    def placement(self) -> Placement:
        """Which nodes may hold an actor."""
        return parse_placement(self.actor_resources, self.actor_label_selector, "actor-")


@dataclass(frozen=True)
class ActorResources:
    """What a detector actor takes, and how many there may be."""

    gpus: float
    """GPUs of one actor; 0 computes on cores."""
    threads: int
    """Threads that an actor computes and decodes with."""
    max_actors: int | None = None
    """Actors in all; None takes what the nodes can hold."""
    placement: Placement = ANYWHERE
    """Which nodes may hold an actor."""

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """The device that an actor computes on."""
        return "cuda" if self.gpus else "cpu"

    @property
    def need(self) -> Need:
        """What a node must have to hold an actor."""
        if self.gpus:
            return self.placement.build_need(GPU=self.gpus)
        return self.placement.build_need(CPU=1.0)

    def count_on(self, host: Host) -> int:
        """How many actors a node can hold: by its GPUs, or one per core as far as its memory goes."""
        custom = self.placement.build_need()
        if not custom.accepts(host.labels):
            return 0
        count = self._count_by_device(host)
        return min(count, custom.count_on(host.resources, host.labels)) if custom.amounts else count

    def _count_by_device(self, host: Host) -> int:
        if self.gpus >= 1:
            return int(host.gpus / self.gpus)
        if self.gpus > 0:  # an actor's share is of one GPU
            return int(host.gpus) * int(1 / self.gpus + 1e-6)
        if self.max_actors is not None:
            return self.max_actors if host.cpus else 0
        return min(host.cpus, max(1, int(host.memory / MEMORY_PER_ACTOR)))

    def count_all(self, hosts: Iterable[Host]) -> int:
        """How many actors these nodes get."""
        count = sum(self.count_on(host) for host in hosts)
        return count if self.max_actors is None else min(count, self.max_actors)

    def count_lacking(self, places: int, useful: float, *, is_limit: bool) -> int:
        """How many places for actors an autoscaler should add.

        It should add places up to `max_actors`. Without that number, actors on GPUs double while they limit
        the run, as tasks double the cores.

        Args:
            places: of the living nodes.
            useful: actors that the run has pieces for.
            is_limit: whether each actor has a piece to do after its present one.
        """
        wanted = places or 1
        if self.max_actors is not None:
            wanted = self.max_actors
        elif self.gpus and is_limit:
            wanted = 2 * places
        return max(0, int(min(wanted, useful)) - places)

    def reserve_cpus(self, host: Host) -> float:
        """Cores that an actor reserves: its threads', as far as one core stays for the tasks that feed it.

        Tasks then leave these cores to the detector, which decodes images and feeds its GPU with them.
        """
        if not self.gpus:
            return 0.0
        return float(min(self.threads, max(0, host.cpus - 1) // max(1, self.count_on(host))))


def choose_actor_resources(capacity: Capacity, options: ActorOptions) -> ActorResources:
    """Put the actors on GPUs if the cluster has any, otherwise on cores.

    Without GPUs, actors reserve no core: actors that hold all cores starve the tasks that feed them. The
    kernel's scheduler shares the cores between the one-threaded actors and tasks.
    """
    gpus = options.gpus_per_actor
    if gpus is None:
        gpus = min(1.0, capacity.gpus)
    threads = 2 if gpus else 1
    return ActorResources(gpus, threads, options.actors, options.placement)
