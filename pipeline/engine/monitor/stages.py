"""How busy each stage of a run is and what waits in front of it, which tells what is the limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from time import monotonic

WINDOW = 30.0
"""Seconds that the shown utilisation looks back."""
BUSY = 0.85
"""Share of its slots that a stage uses when it is at its limit."""


@dataclass(frozen=True)
class StageLoad:
    """One stage at one moment."""

    name: str
    """A word, such as `propose`."""
    title: str
    """What does it where, in words: `proposals on CPU`."""
    slots: int
    """Pieces that it can work on at once: cores or detectors."""
    busy: int
    """Slots that have a piece."""
    waiting: int
    """Pieces in front of it that no slot has taken."""


@dataclass(frozen=True)
class FlowState:
    """A run at one moment."""

    stages: Sequence[StageLoad]
    """In the order in which a piece goes through them."""
    held: float = 0.0
    """Bytes in flight: what the object store holds of pieces that are read."""
    budget: float = 0.0
    """Bytes that may be in flight; 0 where nothing is held."""


@dataclass
class _Track:
    """One stage over time: means that forget, and integrals that do not."""

    busy: float
    waiting: float
    slot_seconds: float = 0.0
    busy_seconds: float = 0.0

    def look(self, load: StageLoad, seconds: float) -> None:
        share = load.busy / max(1, load.slots)
        fresh = 1 - exp(-seconds / WINDOW)
        self.busy += fresh * (share - self.busy)
        self.waiting += fresh * (load.waiting - self.waiting)
        self.slot_seconds += seconds * load.slots
        self.busy_seconds += seconds * load.busy


@dataclass
class Utilisation:
    """Follows the stages of a run from look to look."""

    clock: Callable[[], float] = monotonic
    state: FlowState = field(default_factory=lambda: FlowState(()))
    """As last seen."""
    _tracks: dict[str, _Track] = field(default_factory=dict)
    _seen: float | None = None

    def look(self, state: FlowState) -> None:
        """Take note of the stages now; what was seen before is taken to have lasted until now."""
        now = self.clock()
        for load in self.state.stages:
            assert self._seen is not None
            self._tracks[load.name].look(load, now - self._seen)
        for load in state.stages:
            if load.name not in self._tracks:
                self._tracks[load.name] = _Track(load.busy / max(1, load.slots), load.waiting)
        self.state, self._seen = state, now

    def recent(self, name: str) -> float:
        """Busy share of a stage's slots over about the last half minute, 0 to 1."""
        return self._tracks[name].busy

    def means(self) -> dict[str, float]:
        """Busy share of each stage's slots over the whole run, 0 to 1."""
        return {
            name: track.busy_seconds / track.slot_seconds
            for name, track in self._tracks.items()
            if track.slot_seconds > 0
        }

    def limit(self) -> str:
        """The stage that the others wait for, in words.

        It is the last one whose slots are all busy while more pieces wait in front of it; a stage before
        that one is slowed by it, one after it is starved.
        """
        for load in reversed(self.state.stages):
            track = self._tracks[load.name]
            if track.busy >= BUSY and track.waiting >= 0.5:
                return load.title
        if self.state.budget and self.state.held > 0.8 * self.state.budget:
            return "object store memory"
        for load in self.state.stages:
            if self._tracks[load.name].busy >= BUSY:
                return load.title
        return "none, few shards are left" if self.state.stages else "none yet"

    def told(self, seconds: Mapping[str, float]) -> str:
        """All of it in one line, for the terminal and the log.

        Args:
            seconds: worker time by stage so far; `detect` against `wait` tells a detector's own share.
        """
        parts = []
        for load in self.state.stages:
            text = f"{load.name} {load.busy}/{load.slots} busy ({self.recent(load.name):.0%})"
            if load.name == "detect" and seconds.get("detect"):
                share = seconds["detect"] / (seconds["detect"] + seconds.get("wait", 0.0))
                text += f", computing {share:.0%} of it"
            parts.append(f"{text}, {load.waiting} waiting")
        if self.state.budget:
            parts.append(
                f"{self.state.held / 1e6:.0f} of {self.state.budget / 1e6:.0f} MB in flight"
            )
        return "; ".join([*parts, f"limit: {self.limit()}"])
