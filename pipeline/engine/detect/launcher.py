"""Detector actors on Ray: how one is started on a node, how its start ended, and how it is ended."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import sleep
from typing import Any

import ray
from ray import ObjectRef
from ray import exceptions as rx
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.engine import cluster
from pipeline.engine.capacity import Capacity, Host
from pipeline.engine.detect.actor import DetectorActor
from pipeline.engine.detect.plan import DetectionPlan
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.node_demand import NodeDemand
from pipeline.runs.placement import Need


@dataclass(frozen=True, eq=False)
class LaunchedActor:
    """An actor from the moment it is asked for; it may not have a place yet."""

    handle: Any
    """Ray's handle, whose `detect.remote` takes pieces."""
    placed: ObjectRef[Any]
    """Ends once the actor has a place on its node."""
    loaded: ObjectRef[str]
    """Ends once the actor has loaded the checkpoint, with the precision that it computes in."""


class ActorLauncher:
    """Starts and ends the detector actors of one run, and answers the pool's questions about the cluster."""

    def __init__(
        self,
        plan: ObjectRef[DetectionPlan],
        resources: ActorResources,
        actor_class: Any = DetectorActor,
    ) -> None:
        """Prepare a launcher.

        Args:
            plan: the run's plan in the object store.
            resources: what an actor takes of its node.
            actor_class: the remote class, created with the plan and a precision.
        """
        self._plan = plan
        self._resources = resources
        self._actor_class = actor_class
        self._demand = NodeDemand()

    def launch(self, host: Host, cpus: float, precision: str) -> LaunchedActor:
        """Ask Ray for an actor on this node that reserves `cpus` cores."""
        handle = self._actor_class.options(
            num_cpus=cpus,
            num_gpus=self._resources.gpus,
            resources=dict(self._resources.placement.resources),
            scheduling_strategy=NodeAffinitySchedulingStrategy(host.node, soft=False),
        ).remote(self._plan, precision)
        return LaunchedActor(handle, handle.__ray_ready__.remote(), handle.load.remote())

    def has_placed(self, actors: Sequence[LaunchedActor]) -> bool:
        """Whether one of these actors has a place."""
        places = [actor.placed for actor in actors]
        return bool(places and ray.wait(places, timeout=0)[0])

    def wait(self, actors: Sequence[LaunchedActor], seconds: float) -> list[LaunchedActor]:
        """Wait at most `seconds`; returns the actors that have loaded the checkpoint or failed to."""
        if not actors:
            sleep(seconds)
            return []
        by_reference = {actor.loaded: actor for actor in actors}
        ended, _ = ray.wait(list(by_reference), num_returns=len(by_reference), timeout=seconds)
        return [by_reference[reference] for reference in ended]

    def fetch_precision(self, actor: LaunchedActor) -> str:
        """The precision that an actor computes in, once `wait` returned it.

        Raises:
            RayError: the actor failed to start.
        """
        return ray.get(actor.loaded)

    def end(self, actor: LaunchedActor) -> None:
        """End an actor, or do nothing if it is gone."""
        with contextlib.suppress(rx.RayError):
            ray.kill(actor.handle)

    def get_capacity(self) -> Capacity:
        """What the living nodes have."""
        return cluster.get_capacity()

    def find_missing(self, need: Need) -> str | None:
        """What no living node has of an actor's need, in words; None if one has it all."""
        return cluster.describe_missing(need)

    def request_places(self, need: Need, count: int) -> None:
        """Ask an autoscaler, if there is one, for places that the nodes lack; 0 withdraws the request."""
        if count:
            self._demand.ask(need, count)
        else:
            self._demand.close()
