"""What a detector actor takes, and how many of them the nodes of a cluster can hold."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.cluster import Capacity, Host

MEMORY_PER_ACTOR = 1.5e9
"""Bytes that a detector on a CPU may take, torch included."""


@dataclass(frozen=True)
class ActorResources:
    """What a detector actor takes, and how many there may be."""

    gpus: float
    """GPUs of one actor; 0 computes on cores."""
    threads: int
    """Threads that an actor computes and decodes with."""
    most: int | None = None
    """Actors in all; None takes what the nodes can hold."""

    def on(self, host: Host) -> int:
        """How many actors a node can hold: by its GPUs, or one per core as far as its memory goes."""
        if self.gpus >= 1:
            return int(host.gpus / self.gpus)
        if self.gpus > 0:  # an actor's share is of one GPU
            return int(host.gpus) * int(1 / self.gpus + 1e-6)
        if self.most is not None:
            return self.most if host.cpus else 0
        fitting = max(1, int(host.memory / MEMORY_PER_ACTOR))
        return min(host.cpus, fitting)

    def total(self, capacity: Capacity) -> int:
        """How many actors the living nodes get."""
        held = sum(self.on(host) for host in capacity.hosts)
        return held if self.most is None else min(held, self.most)

    def cpus(self, host: Host) -> float:
        """Cores that an actor reserves: none where that would starve the tasks that feed it."""
        return 1.0 if self.gpus and host.cpus > self.on(host) else 0.0

    def need(self) -> dict[str, float]:
        """What a node must have to hold an actor."""
        return {"GPU": self.gpus} if self.gpus else {"CPU": 1.0}
