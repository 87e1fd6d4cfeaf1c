"""One actor of the detector pool, and which actors the pool does without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.engine.detect.launcher import LaunchedActor
from pipeline.engine.shards.work import Flight


@dataclass(eq=False)
class PoolMember:
    """One actor of the pool."""

    actor: LaunchedActor
    node: str
    cpus: float
    """Cores that it reserves."""
    launched_at: float
    """When the pool asked for it."""
    is_ready: bool = False
    """Whether it has loaded the checkpoint."""
    flights: list[Flight] = field(default_factory=list)
    """Handed to it and not done, in order: it works on the first."""


def choose_idle(members: Sequence[PoolMember], waiting: float) -> list[PoolMember]:
    """The actors that have nothing to do and will get nothing, as no more than `waiting` pieces are left.

    Those that have not started come first, then those of nodes with few busy actors: whole nodes become
    free sooner if the nodes with busy actors keep theirs.
    """
    busy = Counter(member.node for member in members if member.flights)
    idle = [member for member in members if not member.flights]
    idle.sort(key=lambda member: (member.is_ready, busy[member.node]))
    return idle[: max(0, len(idle) - int(min(waiting, len(idle))))]
