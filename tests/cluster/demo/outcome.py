"""What the demo measured: how often each image occurs in each output, as a table and as cluster-demo.json."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from tests.chaos import outputs

JSON_NAME = "cluster-demo.json"


@dataclass(frozen=True)
class OutputCount:
    """How often the images of a dataset occur in an output."""

    output: str
    images: int
    """Images of the dataset."""
    rows: int
    distinct_ids: int
    lost: int
    """Images without a row."""
    foreign: int
    """Rows with an id that the dataset does not have."""
    failed: int
    """Rows of images that could not be processed."""

    @property
    def is_right(self) -> bool:
        """Whether each image has one row, and none failed."""
        is_once = self.images == self.rows == self.distinct_ids
        return is_once and not (self.lost or self.foreign or self.failed)


def count_rows(output: str, image_ids: Collection[str]) -> OutputCount:
    """Count the rows of all parts in a folder, whether or not the run's own records list them."""
    rows = outputs.read_rows(output)
    times = Counter(row["image_id"] for row in rows)
    expected = set(image_ids)
    return OutputCount(
        output,
        images=len(image_ids),
        rows=len(rows),
        distinct_ids=len(times),
        lost=len(expected - times.keys()),
        foreign=sum(count for name, count in times.items() if name not in expected),
        failed=sum(row["status"] == "failed" for row in rows),
    )


@dataclass(frozen=True)
class StoppedJob:
    """A job that `ray job stop` ended, and its output right afterwards."""

    images: int
    """Images that the job was to do."""
    reported: int
    """Images that are committed, as the job said in its last words."""
    stored: int
    """Rows in the store; tasks that were at work may have added some after the report."""
    stop_seconds: float
    resumed_from: int = 0
    """Images that the same command, submitted again, did not do again."""

    @property
    def is_right(self) -> bool:
        """Whether the job stopped in the middle, reported the truth, and lost nothing."""
        return 0 < self.reported <= self.stored <= self.resumed_from < self.images


@dataclass
class Outcome:
    """Everything that the demo measures."""

    outputs: list[OutputCount] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    nodes_started: int = 0
    nodes_killed: int = 0
    parts: int = 0
    """Parts of the detections at the end."""
    parts_at_kill: int = 0
    """Those that were committed when the node was killed."""
    stopped_job: StoppedJob | None = None
    voc07_map50: float | None = None
    """Mean average precision of the detections, by VOC 2007's rule."""
    seconds: float = 0.0
    """Of the whole demo."""

    @property
    def is_right(self) -> bool:
        """Whether every output has every image once, although a job was stopped and a node killed.

        Both must have happened in the middle: a node that is lost after the last part disturbs nothing.
        """
        is_each_once = bool(self.outputs) and all(count.is_right for count in self.outputs)
        was_at_work = self.nodes_killed > 0 and 0 < self.parts_at_kill < self.parts
        stopped = self.stopped_job
        return is_each_once and was_at_work and stopped is not None and stopped.is_right

    def to_json(self) -> dict[str, Any]:
        """The content of cluster-demo.json; its first counts are sums over the outputs."""
        summed = ("images", "rows", "distinct_ids", "lost", "foreign", "failed")
        counts = {name: sum(getattr(count, name) for count in self.outputs) for name in summed}
        return counts | {"right": self.is_right, "cores": os.cpu_count()} | asdict(self)

    def write(self, folder: Path) -> Path:
        """Write cluster-demo.json into a folder, and return its path."""
        path = folder / JSON_NAME
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")
        return path

    def print_tables(self, console: Console) -> None:
        """Print the counts per output, and the seconds per stage."""
        names = ("images", "rows", "distinct ids", "lost", "foreign", "failed")
        table = Table("output", *(Column(name, justify="right") for name in names))
        for count in self.outputs:
            counts = (count.images, count.rows, count.distinct_ids)
            table.add_row(
                count.output,
                *map(str, (*counts, count.lost, count.foreign, count.failed)),
            )
        console.print(table)
        times = Table("stage", Column("seconds", justify="right"))
        for stage, seconds in self.stage_seconds.items():
            times.add_row(stage, f"{seconds:.0f}")
        times.add_section()
        times.add_row("all", f"{self.seconds:.0f}")
        console.print(times)
