"""What a verification finds wrong, by check: all are counted, the first ones are kept by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

CHECKS = {
    "record": "run.json is whole: its fingerprint is that of its settings",
    "dataset": "the manifest is the run's, each image_id once",
    "shards": "shards.parquet divides the manifest, keys are right",
    "parts": "each shard has its part",
    "strays": "no other parts, no scratch files",
    "identity": "each part is whole, its shard's and this run's",
    "schema": "columns, types and version of the parts",
    "images": "each image once, in order, with its uri and key",
    "rows": "values of all rows: boxes, scores, labels, failures",
    "thresholds": "candidate_thresholds.json follows from the parts",
    "counts": "summary.json counts what the parts hold",
}
"""The checks of a verification, in the order of its table."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    check: str
    """A key of `CHECKS`."""
    file: str
    """The name of the object in the output, or `manifest`."""
    text: str
    image: str | None = None
    """The image_id that it is about."""


@dataclass
class FaultList:
    """The faults of some checks."""

    most: int
    """Faults of each check that are kept."""
    counts: Counter[str] = field(default_factory=Counter)
    """All faults, by check."""
    kept: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        """Count a fault, and keep it if it is among the first of its check."""
        if self.counts[fault.check] < self.most:
            self.kept.append(fault)
        self.counts[fault.check] += 1

    def add_all(self, faults: Iterable[Fault]) -> None:
        """Add several faults."""
        for fault in faults:
            self.add(fault)

    def merge(self, other: FaultList) -> None:
        """Add the faults of another list, which come later."""
        kept = Counter(fault.check for fault in self.kept)
        for fault in other.kept:
            if kept[fault.check] < self.most:
                self.kept.append(fault)
                kept[fault.check] += 1
        self.counts.update(other.counts)
