"""What the living nodes of a cluster have. Nothing here needs ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.runs.placement import ANYWHERE, Placement

NODE_DIGITS = 8
"""Digits of a node's id that logs show."""


@dataclass(frozen=True)
class Host:
    """One living node and its total resources."""

    node: str
    """Its id."""
    cpus: int
    gpus: float
    memory: float
    """Bytes."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """All of its resources by name, custom ones included."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def count_tasks(self, placement: Placement, gpus: float = 0.0) -> int:
        """How many tasks of a core and so many GPUs each it can run at once."""
        return placement.build_need(CPU=1.0, GPU=gpus).count_on(
            {**self.resources, "CPU": self.cpus, "GPU": self.gpus}, self.labels
        )


@dataclass(frozen=True)
class Capacity:
    """The total resources of the living nodes."""

    cpus: int
    gpus: float
    memory: float
    """Bytes."""
    object_store: float
    """Bytes."""
    hosts: tuple[Host, ...]
    """The living nodes, in a stable order."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Ids of the living nodes that have cores."""
        return tuple(host.node for host in self.hosts if host.cpus)

    def count_tasks(self, placement: Placement, gpus: float = 0.0) -> int:
        """How many tasks of a core and so many GPUs each the nodes can run at once.

        It is at least one if not every node will do: one that does may join.
        """
        if placement == ANYWHERE and not gpus:
            return self.cpus
        return max(1, sum(host.count_tasks(placement, gpus) for host in self.hosts))
