"""The detector actors of a run: started on each living node, watched and replaced.

An actor belongs to one node. A node that joins gets its actors, and the pool forgets those of a node that
is gone. Pieces go only to actors that have loaded their checkpoint: an actor that waits for a place would
keep its pieces for ever.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from ray import exceptions as rx

from pipeline.engine import cluster
from pipeline.engine.cluster import Capacity, Host
from pipeline.engine.detect.launcher import ActorLauncher, LaunchedActor
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.detect.start_failures import StartFailures
from pipeline.engine.shards.retry_policy import Cause, classify_error, unwrap_error
from pipeline.engine.shards.work import Flight
from pipeline.errors import InvalidCheckpoint, NoCapacity, PipelineError, ShardFailed, StorageError

log = logging.getLogger(__name__)

MAX_LOSSES_IN_A_ROW = 20
"""Actors that may die at whole shards with no piece done in between: more is the detector's fault."""
MAX_SINGLE_LOSSES_IN_A_ROW = 200
"""The same at single images, which are isolated because they end actors: each takes two."""
LOAD_SECONDS = 900.0
"""How long an actor that has its place may take to load the checkpoint, torch included."""


@dataclass(eq=False)
class _Member:
    """One actor of the pool."""

    actor: LaunchedActor
    node: str
    cpus: float
    """Cores that it reserves."""
    is_ready: bool = False
    flights: list[Flight] = field(default_factory=list)
    """Handed to it and not done, in order: it works on the first."""


class DetectorPool:
    """The detector actors of a run."""

    def __init__(
        self,
        launcher: ActorLauncher,
        resources: ActorResources,
        start_seconds: float,
        precision: str,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Prepare a pool.

        Args:
            launcher: starts and ends the actors.
            resources: what an actor takes.
            start_seconds: how long to wait for a place while no actor has one.
            precision: what the actors compute in; the first one that is ready decides for all if it is auto.
            clock: the time in seconds.
        """
        self.resources = resources
        self.start_seconds = start_seconds
        self.precision = precision
        self._launcher = launcher
        self._clock = clock
        self._capacity: Capacity | None = None
        self._members: list[_Member] = []
        self._active_when_lost: set[Flight] = set()
        self._start_failures = StartFailures(clock)
        self._last_failure = ""
        self._has_requested_nodes = False
        self._was_ever_ready = False
        self._losses_in_a_row = self._single_losses_in_a_row = 0
        self._last_placed = self._last_ready = clock()

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
        """Whether an actor can take a piece."""
        self._check_starts()
        return any(member.is_ready for member in self._members)

    def follow(self, capacity: Capacity) -> None:
        """Start actors on nodes that can hold more, and forget those of nodes that are gone.

        Raises:
            NoCapacity: no actor has had a place for `start_seconds`.
            PipelineError: actors fail to start for a reason that a retry does not change.
        """
        self._capacity = capacity
        living = {host.node for host in capacity.hosts}
        self._members = [member for member in self._members if member.node in living]
        hosts = [
            host for host in capacity.hosts if not self._start_failures.should_avoid(host.node)
        ]
        total = self.resources.count_all(capacity)
        while len(self._members) < total:
            load = Counter(member.node for member in self._members)
            open_hosts = [host for host in hosts if load[host.node] < self.resources.count_on(host)]
            if not open_hosts:
                break
            self._launch(min(open_hosts, key=lambda host: load[host.node]))
        self._check_places()

    def _launch(self, host: Host) -> None:
        cpus = self.resources.reserve_cpus(host)
        actor = self._launcher.launch(host, cpus, self.precision)
        self._members.append(_Member(actor, host.node, cpus))

    def _check_places(self) -> None:
        now = self._clock()
        if self.has_ready():
            self._last_ready = self._last_placed = now
            return
        if self._launcher.has_placed([member.actor for member in self._members]):
            self._last_placed = now
        if now - self._last_ready > LOAD_SECONDS + self.start_seconds:
            raise NoCapacity(f"no detector loaded its checkpoint within {LOAD_SECONDS:.0f} s")
        if now - self._last_placed > self.start_seconds:
            raise NoCapacity(
                f"no detector could start for {self.start_seconds:.0f} s: {self._explain_no_place()}; "
                "committed shards are kept, run the command again once this is fixed"
            )

    def _explain_no_place(self) -> str:
        requirements = self.resources.requirements
        missing = self._launcher.find_missing(requirements)
        if missing is None and self._last_failure:
            return self._last_failure
        place = " and ".join(f"{name} {amount:g}" for name, amount in requirements.items())
        return f"the cluster lacks {missing or f'a free {place}: others hold all'}"

    def await_first(self) -> None:
        """Find out now whether the checkpoint loads and whether any actor can have a place.

        Raises:
            NoCapacity: no actor had a place for `start_seconds`.
            PipelineError: the checkpoint cannot be used.
        """
        self._last_placed = self._last_ready = last_logged = self._clock()
        if not self.resources.count_all(self._launcher.get_capacity()):
            self._has_requested_nodes = True
            count = self.resources.max_actors or 1
            self._launcher.request_nodes([self.resources.requirements] * count)
        while not self.has_ready():
            self.follow(self._launcher.get_capacity())
            self._check_starts(seconds=0.5)
            if self._clock() - last_logged > cluster.LOG_EVERY:
                last_logged = self._clock()
                log.info("waiting for %d detectors to get a place and load", self.size)

    def hand_out(self, flight: Flight, node: str | None = None) -> Any | None:
        """Give a piece to the actor with the least to do, preferably one of `node`.

        Returns:
            The actor's handle, or None if no actor is ready.
        """
        ready = [member for member in self._members if member.is_ready]
        if not ready:
            return None
        # One piece more is worth less than its images' way over the network.
        chosen = min(ready, key=lambda m: (len(m.flights) - (m.node == node), m.node != node))
        chosen.flights.append(flight)
        return chosen.actor.handle

    def take_back(self, flight: Flight, *, succeeded: bool = True) -> None:
        """Note that an actor, which lives, has returned a piece."""
        if succeeded:
            self._losses_in_a_row = self._single_losses_in_a_row = 0
        for member in self._members:
            if flight in member.flights:
                member.flights.remove(flight)

    def replace_lost(self, flight: Flight, error: Exception) -> bool:
        """Drop the actor of a piece, which is gone, and start another.

        Returns:
            Whether the actor was working on this piece when it died.

        Raises:
            ShardFailed: too many actors died with no piece done in between.
        """
        for member in self._members:
            if flight in member.flights:
                active = member.flights[0]
                self._active_when_lost.add(active)
                self._drop(member)
                self._count_loss(active, error)
                if self._capacity is not None and classify_error(error) is not Cause.NODE_LOST:
                    self.follow(self._capacity)
                break
        was_active = flight in self._active_when_lost
        self._active_when_lost.discard(flight)
        return was_active

    def close(self) -> None:
        """End the actors."""
        if self._has_requested_nodes:
            self._has_requested_nodes = False
            self._launcher.request_nodes([])
        for member in list(self._members):
            self._drop(member)

    def _check_starts(self, seconds: float = 0.0) -> None:
        """Learn which actors have started; wait at most `seconds`."""
        starting = {member.actor: member for member in self._members if not member.is_ready}
        if not starting:
            return
        for actor in self._launcher.wait(list(starting), seconds):
            member = starting[actor]
            try:
                self._admit(member, self._launcher.fetch_precision(actor))
            except rx.RayError as error:
                self._drop(member)
                self._handle_failed_start(member, error)

    def _admit(self, member: _Member, precision: str) -> None:
        """Take an actor that has started, or replace it if it chose another precision than the pool's."""
        if self.precision == "auto":
            self.precision = precision
        if precision == self.precision:
            member.is_ready = self._was_ever_ready = True
            self._last_failure = ""
        else:
            log.info(
                "node %s chose %s by itself: restarting its detector in %s",
                member.node[:8],
                precision,
                self.precision,
            )
            self._drop(member)

    def _handle_failed_start(self, member: _Member, error: rx.RayError) -> None:
        cause = unwrap_error(error)
        # It may pass, or be this node's own trouble: others go on.
        may_pass = self._was_ever_ready or isinstance(cause, StorageError | NoCapacity)
        if not may_pass and isinstance(cause, PipelineError):
            raise cause
        if not may_pass and isinstance(error, rx.RayTaskError):
            raise error  # a defect, with its traceback
        message = str(cause).splitlines()[0]
        log.warning("a detector did not start on node %s: %s", member.node[:8], message)
        self._last_failure = "" if classify_error(error) is Cause.NODE_LOST else message
        self._start_failures.add(member.node)
        if self._was_ever_ready or self._members:
            return  # it did start before, or may elsewhere: a store may be away for a while
        hosts = self._capacity.hosts if self._capacity else ()
        usable = [host.node for host in hosts if self.resources.count_on(host)]
        if all(self._start_failures.should_avoid(node) for node in usable):
            if may_pass:
                raise cause
            if classify_error(error) is not Cause.NODE_LOST:
                raise InvalidCheckpoint(f"the detector could not start: {message}")

    def _drop(self, member: _Member) -> None:
        if member in self._members:
            self._members.remove(member)
        self._launcher.end(member.actor)

    def _count_loss(self, flight: Flight, error: Exception) -> None:
        if not classify_error(error).lost_worker:
            return
        if flight.piece.is_whole:
            self._losses_in_a_row += 1
        else:
            self._single_losses_in_a_row += 1
        if (
            self._losses_in_a_row > MAX_LOSSES_IN_A_ROW
            or self._single_losses_in_a_row > MAX_SINGLE_LOSSES_IN_A_ROW
        ):
            count = self._losses_in_a_row + self._single_losses_in_a_row
            raise ShardFailed(
                f"{count} detector actors died one after the other, the last: {str(error).splitlines()[0]}"
            )
