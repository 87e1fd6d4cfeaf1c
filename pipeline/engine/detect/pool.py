"""The detector actors: as many on each living node as it can hold, started, watched and replaced.

An actor belongs to one node. A node that joins gets its actors, those of a node that is gone are
forgotten, and pieces go only to actors that have loaded their checkpoint: one that waits for a place
would keep its pieces for ever.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import ray
from ray import ObjectRef
from ray import exceptions as rx
from ray.autoscaler.sdk import request_resources
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.engine import cluster
from pipeline.engine.cluster import Capacity, Host
from pipeline.engine.detect.actor import DetectorActor
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.shards.ray_errors import died_with_node, ended_worker
from pipeline.engine.shards.work import Flight
from pipeline.errors import InvalidCheckpoint, NoCapacity, PipelineError, ShardFailed, StorageError

log = logging.getLogger(__name__)

MOST_LOSSES_IN_A_ROW = 20
"""Actors that may die at whole shards without a piece done between: more is the detector's fault."""
MOST_SINGLE_LOSSES_IN_A_ROW = 200
"""The same at images on their own, which are there because they end actors: each takes two."""
LOAD_SECONDS = 900.0
"""How long an actor that has its place may take to load the checkpoint, torch included."""
FAILED_STARTS = 3
"""Actors that may fail to start on a node before it is left alone for a while."""
LEFT_ALONE_SECONDS = 60.0


@dataclass(eq=False)
class _Member:
    """One actor."""

    handle: Any
    node: str
    placed: ObjectRef[Any]
    loaded: ObjectRef[str]
    ready: bool = False
    cpus: float = 0.0
    """Cores that it reserves."""
    flights: list[Flight] = field(default_factory=list)
    """Handed to it and not done, in order: it works on the first."""


class DetectorPool:
    """The detector actors of a run."""

    def __init__(
        self, plan: ObjectRef[Any], resources: ActorResources, start_seconds: float, precision: str
    ) -> None:
        """Prepare a pool.

        Args:
            plan: the run's DetectionPlan in the object store.
            resources: what an actor takes.
            start_seconds: how long to wait for a place where no actor has one.
            precision: what they compute in; auto is settled by the first that is ready, for all.
        """
        self.resources = resources
        self.start_seconds = start_seconds
        self.precision = precision
        self._plan = plan
        self._capacity: Capacity | None = None
        self._members: list[_Member] = []
        self._at_work_when_lost: set[Flight] = set()
        self._failed_starts: Counter[str] = Counter()
        self._failed_at: dict[str, float] = {}
        self._last_failure = ""
        self._asked = False
        self._was_ready = False
        self._losses_in_a_row = self._single_losses_in_a_row = 0
        self._placed_seen = self._ready_seen = monotonic()

    @property
    def size(self) -> int:
        """Actors that are ready or starting."""
        return len(self._members)

    @property
    def busy(self) -> int:
        """Actors with something to do."""
        return sum(bool(member.flights) for member in self._members)

    @property
    def reserved_cpus(self) -> float:
        """Cores that actors keep from the tasks."""
        return sum(member.cpus for member in self._members)

    def has_ready(self) -> bool:
        """Whether a piece can be handed out."""
        self._look()
        return any(member.ready for member in self._members)

    def follow(self, capacity: Capacity) -> None:
        """Start actors on nodes that can hold more, forget those of nodes that are gone.

        Raises:
            NoCapacity: no actor had a place for `start_seconds`.
            PipelineError: actors fail to start for a reason that a retry does not mend.
        """
        self._capacity = capacity
        living = {host.node for host in capacity.hosts}
        self._members = [member for member in self._members if member.node in living]
        hosts = [host for host in capacity.hosts if not self._left_alone(host.node)]
        total = self.resources.total(capacity)
        while len(self._members) < total:
            load = Counter(member.node for member in self._members)
            open_ones = [host for host in hosts if load[host.node] < self.resources.on(host)]
            if not open_ones:
                break
            self._start(min(open_ones, key=lambda host: load[host.node]))
        self._check_places()

    def _check_places(self) -> None:
        now = monotonic()
        if self.has_ready():
            self._ready_seen = self._placed_seen = now
            return
        places = [member.placed for member in self._members]
        if places and ray.wait(places, timeout=0)[0]:
            self._placed_seen = now
        if now - self._ready_seen > LOAD_SECONDS + self.start_seconds:
            raise NoCapacity(f"no detector loaded its checkpoint within {LOAD_SECONDS:.0f} s")
        if now - self._placed_seen > self.start_seconds:
            need = self.resources.need()
            held = " and ".join(f"{name} {amount:g}" for name, amount in need.items())
            missing = cluster.missing(need)
            if missing is None and self._last_failure:
                reason = self._last_failure
            else:
                reason = f"missing is {missing or f'{held}, which others hold'}"
            raise NoCapacity(
                f"for {self.start_seconds:.0f} s no detector could be placed and started: {reason}; what was "
                "done is committed, run again when that is mended"
            )

    def await_first(self) -> None:
        """Find out now whether the checkpoint loads and whether an actor can be placed at all.

        Raises:
            NoCapacity: no actor had a place for `start_seconds`.
            PipelineError: the checkpoint cannot be used.
        """
        self._placed_seen = self._ready_seen = told = monotonic()
        if not self.resources.total(cluster.capacity()):
            self._ask_for_nodes([self.resources.need()] * (self.resources.most or 1))
        while not self.has_ready():
            self.follow(cluster.capacity())
            self._look(seconds=0.5)
            if monotonic() - told > cluster.SILENCE:
                told = monotonic()
                log.info("waiting for %d detectors to be placed and to load", self.size)

    def hand_out(self, flight: Flight, node: str | None = None) -> Any | None:
        """The actor with the least to do, if it may be one of `node`; None where none is ready."""
        ready = [member for member in self._members if member.ready]
        if not ready:
            return None
        # One piece more is worth less than its images' way over the network.
        chosen = min(
            ready, key=lambda one: (len(one.flights) - (one.node == node), one.node != node)
        )
        chosen.flights.append(flight)
        return chosen.handle

    def done(self, flight: Flight, *, well: bool = True) -> None:
        """A piece came back from its actor, which lives."""
        if well:
            self._losses_in_a_row = self._single_losses_in_a_row = 0
        for member in self._members:
            if flight in member.flights:
                member.flights.remove(flight)

    def lost(self, flight: Flight, error: Exception) -> bool:
        """A piece's actor is gone: drop it, start another, tell whether this piece was at work.

        Raises:
            ShardFailed: too many actors died without a piece done between.
        """
        for member in self._members:
            if flight in member.flights:
                at_work_on = member.flights[0]
                self._at_work_when_lost.add(at_work_on)
                self._drop(member)
                self._count_loss(at_work_on, error)
                if self._capacity is not None and not died_with_node(error):
                    self.follow(self._capacity)
                break
        at_work = flight in self._at_work_when_lost
        self._at_work_when_lost.discard(flight)
        return at_work

    def close(self) -> None:
        """End the actors."""
        if self._asked:
            self._ask_for_nodes([])
        for member in list(self._members):
            self._drop(member)

    def _ask_for_nodes(self, bundles: list[dict[str, float]]) -> None:
        """Tell an autoscaler, if there is one, of actors that have no living node to be made for."""
        self._asked = bool(bundles)
        request_resources(bundles=bundles)

    def _start(self, host: Host) -> None:
        cpus = self.resources.cpus(host)
        actor = DetectorActor.options(  # type: ignore[attr-defined]
            num_cpus=cpus,
            num_gpus=self.resources.gpus,
            scheduling_strategy=NodeAffinitySchedulingStrategy(host.node, soft=False),
        ).remote(self._plan, self.precision)
        self._members.append(
            _Member(actor, host.node, actor.__ray_ready__.remote(), actor.ready.remote(), cpus=cpus)
        )

    def _look(self, seconds: float = 0.0) -> None:
        """Learn which actors have started."""
        starting = {member.loaded: member for member in self._members if not member.ready}
        if not starting:
            return
        ended, _ = ray.wait(list(starting), num_returns=len(starting), timeout=seconds)
        for reference in ended:
            member = starting[reference]
            try:
                self._welcome(member, ray.get(reference))
            except rx.RayError as error:
                self._drop(member)
                self._failed_start(member, error)

    def _welcome(self, member: _Member, precision: str) -> None:
        """Take an actor that is ready; one whose hardware has other arithmetic is started anew in ours."""
        if self.precision == "auto":
            self.precision = precision
        if precision == self.precision:
            member.ready = self._was_ready = True
            self._last_failure = ""
        else:
            log.info(
                "node %s computes in %s by itself: in %s now",
                member.node[:8],
                precision,
                self.precision,
            )
            self._drop(member)

    def _failed_start(self, member: _Member, error: rx.RayError) -> None:
        cause = error.cause if isinstance(error, rx.RayTaskError) else error
        # What may pass, or may be the node's own trouble: others go on.
        passing = self._was_ready or isinstance(cause, StorageError | NoCapacity)
        if not passing and isinstance(cause, PipelineError):
            raise cause
        if not passing and isinstance(error, rx.RayTaskError):
            raise error  # a defect, with its traceback
        told = str(cause).splitlines()[0]
        log.warning("a detector did not start on node %s: %s", member.node[:8], told)
        self._last_failure = "" if died_with_node(error) else told
        self._failed_starts[member.node] += 1
        self._failed_at[member.node] = monotonic()
        hosts = self._capacity.hosts if self._capacity else ()
        if self._was_ready or self._members:
            return  # it did start before, or may elsewhere: a store may be away for a while
        if all(self._left_alone(host.node) for host in hosts if self.resources.on(host)):
            if passing:
                raise cause
            if not died_with_node(error):
                raise InvalidCheckpoint(f"the detector could not start: {told}")

    def _left_alone(self, node: str) -> bool:
        if self._failed_starts[node] < FAILED_STARTS:
            return False
        if monotonic() - self._failed_at[node] < LEFT_ALONE_SECONDS:
            return True
        self._failed_starts[node] = 0
        return False

    def _drop(self, member: _Member) -> None:
        with contextlib.suppress(ValueError):
            self._members.remove(member)
        with contextlib.suppress(rx.RayError):
            ray.kill(member.handle)

    def _count_loss(self, flight: Flight, error: Exception) -> None:
        if not ended_worker(error) or died_with_node(error):
            return
        if flight.piece.whole:
            self._losses_in_a_row += 1
        else:
            self._single_losses_in_a_row += 1
        count = self._losses_in_a_row + self._single_losses_in_a_row
        if (
            self._losses_in_a_row > MOST_LOSSES_IN_A_ROW
            or self._single_losses_in_a_row > MOST_SINGLE_LOSSES_IN_A_ROW
        ):
            raise ShardFailed(
                f"{count} detector actors died one after the other, the last: {str(error).splitlines()[0]}"
            )
