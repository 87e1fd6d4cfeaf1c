"""The outcome of work on images: how many, failures, seconds and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import pyarrow as pa

from pipeline.secret_mask import SecretMask


@dataclass(frozen=True)
class Failure:
    """Why an image failed: the stage, the kind of error, and a message that is the same in every run."""

    stage: str
    error_type: str
    message: str

    @classmethod
    def from_error(cls, stage: str, error: BaseException) -> Failure:
        """The failure that an exception causes, with its message's first line, without secrets."""
        lines = str(error).splitlines() or [""]
        return cls(stage, type(error).__name__, SecretMask().hide(lines[0])[:500])


@dataclass
class Report:
    """The outcome of work on images."""

    images: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Images by stage and error type."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by stage, summed over workers."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """CPU seconds of the workers' processes by kind of worker: `propose`, `read`, `detect`."""
    counts: Counter[str] = field(default_factory=Counter)
    """Other sums: boxes, detections, bytes."""
    images_by_node: Counter[str] = field(default_factory=Counter)
    """Images that went through a stage on a node, by both: `propose 3f2a9c1d`."""
    versions_by_node: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Versions of packages by package, of each node that took part, by the node's address."""
    table: pa.Table | None = None
    """The rows of a piece that its worker does not commit."""

    def add(self, other: Report) -> None:
        """Add another report's sums to this one."""
        self.images += other.images
        self.failed.update(other.failed)
        for stage, seconds in other.seconds.items():
            self.add_seconds(stage, seconds)
        for kind, seconds in other.cpu_seconds.items():
            self.add_cpu_seconds(kind, seconds)
        self.counts.update(other.counts)
        self.images_by_node.update(other.images_by_node)
        self.versions_by_node.update(other.versions_by_node)

    def fail(self, failure: Failure) -> None:
        """Count a failed image."""
        self.failed[f"{failure.stage}: {failure.error_type}"] += 1

    @contextmanager
    def time_stage(self, stage: str) -> Iterator[None]:
        """Add the block's wall-clock seconds to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.add_seconds(stage, perf_counter() - start)

    def add_cpu_seconds(self, kind: str, seconds: float) -> None:
        """Add CPU seconds of a kind of worker."""
        self.cpu_seconds[kind] = self.cpu_seconds.get(kind, 0.0) + seconds

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
