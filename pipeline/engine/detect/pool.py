"""The detector actors of a run: started on each living node, watched and replaced.

An actor belongs to one node. A node that joins gets its actors, and the pool forgets those of a node that
is gone. Pieces go only to actors that have loaded their checkpoint: an actor that waits for a place would
keep its pieces for ever. Actors that will get no piece any more are ended, so that their GPUs are free
while others finish.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from ray import exceptions as rx

from pipeline.engine import cluster
from pipeline.engine.capacity import Capacity, Host
from pipeline.engine.detect.actor_losses import ActorLosses
from pipeline.engine.detect.launcher import ActorLauncher
from pipeline.engine.detect.pool_member import PoolMember, choose_idle
from pipeline.engine.detect.resources import ActorResources
from pipeline.engine.detect.start_failures import StartFailures
from pipeline.engine.shards.retry_policy import Cause, classify_error, unwrap_error
from pipeline.engine.shards.work import Flight
from pipeline.errors import InvalidCheckpoint, NoCapacity, PipelineError, StorageError
from pipeline.runs.run_logs import WORKER_ERROR

log = logging.getLogger(__name__)

PLACE_SECONDS = 120.0
"""How long an actor may wait for its place on a node before the pool looks for another: tasks that hold cores
end by then, other jobs may hold GPUs for hours."""
LOAD_SECONDS = 900.0
"""How long an actor that has its place may take to load the checkpoint, torch included."""


class DetectorPool:
    """The detector actors of a run."""

    def __init__(
        self,
        launcher: ActorLauncher,
        resources: ActorResources,
        start_seconds: float,
        precision: str,
        clock: Callable[[], float] = monotonic,
        *,
        pieces: float = inf,
    ) -> None:
        """Prepare a pool.

        Args:
            launcher: starts and ends the actors.
            resources: what an actor takes.
            start_seconds: how long to wait for a place while no actor has one.
            precision: what the actors compute in; the first one that is ready decides for all if it is auto.
            pieces: pieces of the run; more actors than that are of no use.
            clock: the time in seconds.
        """
        self.resources = resources
        self.start_seconds = start_seconds
        self.precision = precision
        self._launcher = launcher
        self._clock = clock
        self._capacity: Capacity | None = None
        self._members: list[PoolMember] = []
        self._active_when_lost: set[Flight] = set()
        self._start_failures = StartFailures(clock)
        self._last_failure = ""
        self._waiting = pieces
        """Pieces that no actor has yet: they are queued, or being read."""
        self._was_ever_ready = False
        self._losses = ActorLosses()
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

    def follow(self, capacity: Capacity, waiting: float | None = None) -> None:
        """Start actors where nodes can hold more; forget those of lost nodes, end those without work.

        Args:
            capacity: the living nodes.
            waiting: pieces that no actor has yet; None leaves the number as it is.

        Raises:
            NoCapacity: no actor has had a place for `start_seconds`.
            PipelineError: actors fail to start for a reason that a retry does not change.
        """
        self._capacity = capacity
        self._waiting = self._waiting if waiting is None else waiting
        living = {host.node for host in capacity.hosts}
        self._members = [member for member in self._members if member.node in living]
        self._end_idle()
        self._give_up_held_places()
        hosts = [
            host for host in capacity.hosts if not self._start_failures.should_avoid(host.node)
        ]
        places = self.resources.count_all(hosts)
        while len(self._members) < min(places, self.busy + self._waiting):
            load = Counter(member.node for member in self._members)
            open_hosts = [host for host in hosts if load[host.node] < self.resources.count_on(host)]
            if not open_hosts:
                break
            self._launch(min(open_hosts, key=lambda host: load[host.node]))
        self._request_places(places)
        self._check_places()

    def _end_idle(self) -> None:
        """End actors that no waiting piece needs."""
        idle = choose_idle(self._members, self._waiting)
        for member in idle:
            self._drop(member)
        if idle:
            log.info("%d detectors have nothing left to do: released", len(idle))

    def _give_up_held_places(self) -> None:
        """Avoid nodes where others hold what an actor waits for: an autoscaler may add a node instead."""
        late = self._clock() - PLACE_SECONDS
        for member in list(self._members):
            is_late = not member.is_ready and member.launched_at < late
            if is_late and not self._launcher.has_placed([member.actor]):
                log.info("node %s has no place for a detector: others hold it", member.node[:8])
                self._drop(member)
                self._start_failures.avoid(member.node)

    def _request_places(self, places: int) -> None:
        """Ask an autoscaler for the places that the nodes lack."""
        have_started = all(member.is_ready for member in self._members)
        backlog = min((len(member.flights) for member in self._members), default=0)
        lacking = self.resources.count_lacking(
            places, self.busy + self._waiting, is_limit=have_started and backlog > 1
        )
        self._launcher.request_places(self.resources.need, lacking)

    def _launch(self, host: Host) -> None:
        cpus = self.resources.reserve_cpus(host)
        actor = self._launcher.launch(host, cpus, self.precision)
        self._members.append(PoolMember(actor, host.node, cpus, self._clock()))

    def _check_places(self) -> None:
        now = self._clock()
        if self.has_ready() or not self.busy + self._waiting:
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
        need = self.resources.need
        missing = self._launcher.find_missing(need)
        if missing is None and self._last_failure:
            return self._last_failure
        return f"the cluster lacks {missing or f'a free {need}: others hold all'}"

    def await_first(self) -> None:
        """Find out now whether the checkpoint loads and whether any actor can have a place.

        Raises:
            NoCapacity: no actor had a place for `start_seconds`.
            PipelineError: the checkpoint cannot be used.
        """
        self._last_placed = self._last_ready = last_logged = self._clock()
        while not self.has_ready():
            self.follow(self._launcher.get_capacity())
            self._check_starts(seconds=0.5)
            if self._clock() - last_logged > cluster.LOG_EVERY:
                last_logged = self._clock()
                missing = self._launcher.find_missing(self.resources.need)
                loading = f"{self.size} detectors to get a place and load"
                log.info("waiting for %s", missing or loading)

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
            self._losses.note_success()
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
                self._losses.add(error, is_whole=active.piece.is_whole)
                self._waiting += 1  # the piece comes back
                if self._capacity is not None and classify_error(error) is not Cause.NODE_LOST:
                    self.follow(self._capacity)
                break
        was_active = flight in self._active_when_lost
        self._active_when_lost.discard(flight)
        return was_active

    def close(self) -> None:
        """End the actors."""
        self._launcher.request_places(self.resources.need, 0)
        for member in list(self._members):
            self._drop(member)

    def _check_starts(self, seconds: float = 0.0) -> None:
        """Learn which actors have started; wait at most `seconds`."""
        starting = {member.actor: member for member in self._members if not member.is_ready}
        if not starting and not seconds:
            return
        for actor in self._launcher.wait(list(starting), seconds):
            member = starting[actor]
            try:
                self._admit(member, self._launcher.fetch_precision(actor))
            except rx.RayError as error:
                self._drop(member)
                self._handle_failed_start(member, error)

    def _admit(self, member: PoolMember, precision: str) -> None:
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

    def _handle_failed_start(self, member: PoolMember, error: rx.RayError) -> None:
        cause = unwrap_error(error)
        # It may pass, or be this node's own trouble: others go on.
        may_pass = self._was_ever_ready or isinstance(cause, StorageError | NoCapacity)
        if not may_pass and isinstance(cause, PipelineError):
            raise cause
        if not may_pass and isinstance(error, rx.RayTaskError):
            raise error  # a defect, with its traceback
        message = str(cause).splitlines()[0]
        log.warning(
            "a detector did not start on node %s: %s",
            *(member.node[:8], message),
            extra={WORKER_ERROR: error},
        )
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

    def _drop(self, member: PoolMember) -> None:
        if member in self._members:
            self._members.remove(member)
        self._launcher.end(member.actor)
