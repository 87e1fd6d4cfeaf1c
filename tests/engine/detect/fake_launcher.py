"""A launcher for tests of the pool: its actors are objects of this process, and its clock is set by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import exceptions as rx

from pipeline.engine.capacity import Capacity, Host
from pipeline.runs.placement import Need

GB = 1e9


def make_host(name: str, cpus: int = 4, gpus: float = 0.0, memory: float = 64 * GB) -> Host:
    """A node."""
    return Host(name, cpus, gpus, memory)


def make_capacity(*hosts: Host) -> Capacity:
    """A cluster of these nodes."""
    cpus, gpus = sum(host.cpus for host in hosts), sum(host.gpus for host in hosts)
    return Capacity(cpus, gpus, sum(host.memory for host in hosts), 1 * GB, hosts)


class Clock:
    """A clock that tests move."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class FakeActor:
    """An actor that starts as its launcher decides."""

    node: str
    precision: str
    """The precision that it was launched with."""
    is_ended: bool = False

    @property
    def handle(self) -> FakeActor:
        """What the pool hands out."""
        return self


StartResult = str | rx.RayError | None
"""The precision of an actor that has started, why it failed to, or None while it waits for a place."""


class FakeLauncher:
    """Launches actors that start at once, unless `start` says otherwise."""

    def __init__(self, capacity: Callable[[], Capacity] = make_capacity) -> None:
        self.launched: list[FakeActor] = []
        self.requested: list[int] = []
        """Places that an autoscaler was asked for, whenever the number changed."""
        self.missing: str | None = None
        self.start: Callable[[FakeActor], StartResult] = lambda actor: (
            "fp32" if actor.precision == "auto" else actor.precision
        )
        self.get_capacity = capacity

    @property
    def nodes(self) -> list[str]:
        """The node of each actor launched, in order."""
        return [actor.node for actor in self.launched]

    def launch(self, host: Host, cpus: float, precision: str) -> FakeActor:
        self.launched.append(FakeActor(host.node, precision))
        return self.launched[-1]

    def has_placed(self, actors: Sequence[FakeActor]) -> bool:
        return any(self.start(actor) is not None for actor in actors)

    def wait(self, actors: Sequence[FakeActor], seconds: float) -> list[FakeActor]:
        return [actor for actor in actors if self.start(actor) is not None]

    def fetch_precision(self, actor: FakeActor) -> str:
        result = self.start(actor)
        assert result is not None
        if isinstance(result, rx.RayError):
            raise result
        return result

    def end(self, actor: FakeActor) -> None:
        actor.is_ended = True

    def find_missing(self, need: Need) -> str | None:
        return self.missing

    def request_places(self, need: Need, count: int) -> None:
        if count != (self.requested[-1] if self.requested else 0):
            self.requested.append(count)


def start_error(cause: Exception) -> Any:
    """What Ray raises when an actor's `load` raises `cause`."""
    return rx.RayTaskError("load", str(cause), cause)
