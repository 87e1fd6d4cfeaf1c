"""Samples of a job's progress, written as JSON lines and read back to draw throughput over time.

A sample holds sums since the start of the job, so that samples can be left out of a series without making the
others wrong. Rates and shares are computed from two neighbours when the lines are written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import log_files, storage, uris
from pipeline.errors import StorageError
from pipeline.json_reader import InvalidJson, JsonFields, parse_fields
from pipeline.log_files import Start

MOST_BYTES = 4 << 20
"""The largest file of samples that is read; written ones stay far below."""


@dataclass(frozen=True)
class StageSums:
    """One stage of a job at one moment."""

    slots: int
    """Pieces that it can work on at once."""
    waiting: int
    """Pieces in front of it."""
    slot_seconds: float
    """Slots times seconds since the start."""
    busy_seconds: float
    """The same of the slots that were at work."""


@dataclass(frozen=True)
class ProgressSample:
    """A job at one moment."""

    elapsed: float
    """Seconds since this start of the job, by its own clock."""
    images: int
    """Images that this start has committed."""
    stages: Mapping[str, StageSums] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)
    """Further values of this moment, or sums, written as they are."""

    def as_json(self, previous: ProgressSample | None) -> dict[str, Any]:
        """The values of a line, with rates and shares since the previous line."""
        seconds = self.elapsed - (previous.elapsed if previous else 0.0)
        images = self.images - (previous.images if previous else 0)
        earlier = previous.stages if previous else {}
        return {
            "elapsed": round(self.elapsed, 1),
            "images": self.images,
            "images_per_second": round(images / seconds, 2) if seconds > 0 else 0.0,
            "stages": {
                name: {
                    "slots": sums.slots,
                    "waiting": sums.waiting,
                    "use": round(_compute_use(sums, earlier.get(name)), 3),
                }
                for name, sums in self.stages.items()
            },
            **self.others,
        }


def _compute_use(sums: StageSums, previous: StageSums | None) -> float:
    """Share of a stage's slots that were at work since the previous sample, 0 to 1."""
    slot_seconds = sums.slot_seconds - (previous.slot_seconds if previous else 0.0)
    busy_seconds = sums.busy_seconds - (previous.busy_seconds if previous else 0.0)
    return min(1.0, max(0.0, busy_seconds / slot_seconds)) if slot_seconds > 0 else 0.0


def format_samples(samples: Sequence[ProgressSample]) -> bytes:
    """The samples as JSON lines."""
    lines, previous = [], None
    for sample in samples:
        lines.append(json.dumps(sample.as_json(previous), separators=(",", ":")) + "\n")
        previous = sample
    return "".join(lines).encode()


@dataclass(frozen=True)
class ProgressLine:
    """What a chart needs of one line."""

    elapsed: float
    images: int
    images_per_second: float
    """Since the line before."""
    use: Mapping[str, float]
    """Busy share of each stage's slots since the line before, 0 to 1."""
    nodes: int | None
    """Living nodes; None if the line does not tell."""


@dataclass(frozen=True)
class StartProgress:
    """The progress of one start of a job."""

    start: Start
    lines: tuple[ProgressLine, ...]


def read_progress(output: str) -> list[StartProgress]:
    """The progress of all starts of a job, in their order; damaged lines and files are left out.

    Raises:
        StorageError: the logs cannot be listed.
    """
    progress = []
    for start in log_files.find_starts(log_files.list_log_files(output)):
        uri = uris.join(output, log_files.FOLDER, start.name_file("progress"))
        try:
            data = storage.read(uri, MOST_BYTES)
        except StorageError:  # this start wrote none, or it is no file of samples
            continue
        lines = parse_lines(data)
        if lines:
            progress.append(StartProgress(start, tuple(lines)))
    return progress


def parse_lines(data: bytes) -> list[ProgressLine]:
    """The lines that can be read and whose times follow on each other."""
    lines: list[ProgressLine] = []
    for text in data.decode(errors="replace").splitlines():
        try:
            line = _parse_line(parse_fields(text))
        except InvalidJson:
            continue
        if not lines or line.elapsed >= lines[-1].elapsed:
            lines.append(line)
    return lines


def _parse_line(fields: JsonFields) -> ProgressLine:
    stages = fields.read_object("stages", {})
    use = {name: stages.read_object(name).read_number("use") for name in stages.values}
    nodes = fields.values.get("nodes")
    return ProgressLine(
        fields.read_number("elapsed"),
        fields.read_integer("images"),
        fields.read_number("images_per_second"),
        use,
        len(nodes) if isinstance(nodes, dict) else None,
    )
