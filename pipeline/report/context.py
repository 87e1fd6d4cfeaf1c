"""What the sections of a report are built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.cells import Links
from pipeline.report.gallery import Gallery
from pipeline.report.job_progress import JobProgress
from pipeline.report.plan import GalleryPlan
from pipeline.report.provenance import Provenance


@dataclass(frozen=True)
class ReportContext:
    """The numbers, the galleries and the origin of one report."""

    metrics: Mapping[str, Any]
    """The content of metrics.json; diagnostics may be absent or None."""
    plan: GalleryPlan
    galleries: Mapping[str, Gallery]
    """By key."""
    provenance: Provenance
    progress: tuple[JobProgress, ...] = ()
    """Of the runs whose logs have it."""

    @property
    def links(self) -> Links:
        """Makes cells that lead to the galleries."""
        return Links(self.galleries)

    def get(self, *path: str) -> Any:
        """A value of the metrics by the names of its fields; None if one is absent."""
        return find_value(self.metrics, *path)

    def find_by_label(self, *path: str) -> dict[str, Mapping[str, Any]]:
        """The rows `per_class` of a diagnostic by their label."""
        rows = self.get(*path) or ()
        return {row["label"]: row for row in rows if isinstance(row, Mapping) and "label" in row}


def find_value(values: Mapping[str, Any], *path: str) -> Any:
    """A value by the names of nested fields; None if one is absent."""
    value: Any = values
    for name in path:
        if not isinstance(value, Mapping) or value.get(name) is None:
            return None
        value = value[name]
    return value
