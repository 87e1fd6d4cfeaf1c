"""How busy each stage of a run is, what waits in front of it, and which stage limits the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from time import monotonic

from pipeline.engine.capacity import Host
from pipeline.progress_samples import StageSums

SHARE_WINDOW = 30.0
"""Seconds that the displayed busy shares cover."""
FULL_SHARE = 0.85
"""Share of busy slots above which a stage counts as fully used."""


@dataclass(frozen=True)
class StageLoad:
    """One stage at one moment."""

    name: str
    """A word, such as `propose`."""
    title: str
    """What the stage does and where, in words: `proposals on CPU`."""
    slots: int
    """Pieces that the stage can work on at once: cores or detectors."""
    busy: int
    """Slots with a piece."""
    waiting: int
    """Pieces in front of the stage that no slot has taken."""


@dataclass(frozen=True)
class FlowState:
    """A run at one moment."""

    stages: Sequence[StageLoad]
    """In the order in which a piece goes through them."""
    bytes_in_flight: float = 0.0
    """What the object store holds of pieces that are read."""
    budget: float = 0.0
    """Limit of `bytes_in_flight`; 0 if the run keeps no images there."""
    queued: int = 0
    """Pieces that no stage has yet."""
    hosts: Sequence[Host] = ()
    """The living nodes."""


@dataclass
class _Track:
    """One stage over time: moving means, and sums since the start."""

    busy: float
    waiting: float
    slot_seconds: float = 0.0
    busy_seconds: float = 0.0

    def add(self, load: StageLoad, seconds: float) -> None:
        share = load.busy / max(1, load.slots)
        weight = 1 - exp(-seconds / SHARE_WINDOW)
        self.busy += weight * (share - self.busy)
        self.waiting += weight * (load.waiting - self.waiting)
        self.slot_seconds += seconds * load.slots
        self.busy_seconds += seconds * load.busy


@dataclass
class Utilisation:
    """Follows the load of a run's stages from one observation to the next."""

    clock: Callable[[], float] = monotonic
    state: FlowState = field(default_factory=lambda: FlowState(()))
    """The latest observation."""
    _tracks: dict[str, _Track] = field(default_factory=dict)
    _observed_at: float | None = None
    _began_at: float | None = None

    def observe(self, state: FlowState) -> None:
        """Note the load of the stages now; the one before counts as having lasted until now."""
        now = self.clock()
        self._began_at = now if self._began_at is None else self._began_at
        for load in self.state.stages:
            assert self._observed_at is not None
            self._tracks[load.name].add(load, now - self._observed_at)
        for load in state.stages:
            if load.name not in self._tracks:
                self._tracks[load.name] = _Track(load.busy / max(1, load.slots), load.waiting)
        self.state, self._observed_at = state, now

    def get_recent_share(self, name: str) -> float:
        """Busy share of a stage's slots over about the last half minute, 0 to 1."""
        return self._tracks[name].busy

    def compute_shares(self) -> dict[str, float]:
        """Busy share of each stage's slots over the whole run, 0 to 1."""
        return {
            name: track.busy_seconds / track.slot_seconds
            for name, track in self._tracks.items()
            if track.slot_seconds > 0
        }

    def sum_stages(self) -> dict[str, StageSums]:
        """The latest load of each stage, and its sums since the start."""
        return {
            load.name: StageSums(
                load.slots,
                load.waiting,
                self._tracks[load.name].slot_seconds,
                self._tracks[load.name].busy_seconds,
            )
            for load in self.state.stages
        }

    def find_limit(self) -> str:
        """The stage that the others wait for, in words.

        This is the last stage whose slots are all busy while more pieces wait in front of it: it slows the
        stages before it and starves those after it.
        """
        for load in reversed(self.state.stages):
            track = self._tracks[load.name]
            if track.busy >= FULL_SHARE and track.waiting >= 0.5:
                return load.title
        if self.state.budget and self.state.bytes_in_flight > 0.8 * self.state.budget:
            return "object store memory"
        for load in self.state.stages:
            if self._tracks[load.name].busy >= FULL_SHARE:
                return load.title
        return self._describe_no_limit()

    def _describe_no_limit(self) -> str:
        """Why no stage limits the run, in words."""
        if not self.state.stages or self._began_at is None:
            return "none yet"
        if not self.state.queued:
            return "none, few shards are left"
        if self.clock() - self._began_at < SHARE_WINDOW:
            return "none yet, the stages are filling"
        return "none, no stage is fully used"

    def describe(self, seconds: Mapping[str, float]) -> str:
        """All stages and the limit in one line, for the terminal and the log.

        Args:
            seconds: worker time by stage so far; `detect` and `wait` give a detector's share of computing.
        """
        parts = []
        for load in self.state.stages:
            text = f"{load.name} {load.busy}/{load.slots} busy ({self.get_recent_share(load.name):.0%})"
            if load.name == "detect" and seconds.get("detect"):
                share = seconds["detect"] / (seconds["detect"] + seconds.get("wait", 0.0))
                text += f", computing {share:.0%} of it"
            parts.append(f"{text}, {load.waiting} waiting")
        if self.state.budget:
            parts.append(
                f"{self.state.bytes_in_flight / 1e6:.0f} of {self.state.budget / 1e6:.0f} MB in flight"
            )
        return "; ".join([*parts, f"limit: {self.find_limit()}"])
