"""Proposals of other tools, imported for a manifest of three images: what must hold of the output."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline import shards
from pipeline.engine.propose.exchange import ExchangeCounts, import_proposals
from tests.fuzz.targets.source_answers import find_fault_in_box
from tests.outputs import write_annotations

IMAGES = ("a", "b", "7")
SIDE = 100
BOXES = [[10.0, 10.0, 40.0, 40.0], [50.0, 50.0, 90.0, 90.0]]
"""Of each image, half open, best first."""
REJECTED = "must not be accepted"
"""Name of a file that says that the input has no right reading."""


@dataclass(frozen=True)
class Imported:
    """An imported output."""

    counts: ExchangeCounts
    rows: list[dict[str, Any]]


def read_import(folder: Path, source: str) -> Imported:
    """Import a file for the manifest of the three images."""
    manifest = write_annotations(
        str(folder / "manifest.parquet"), dict.fromkeys(IMAGES), size=(SIDE, SIDE)
    )
    output = str(folder / "output")
    counts = import_proposals(str(folder / source), manifest, output)
    columns = ["image_id", "boxes", "status"]
    tables = shards.open_parts(output).read_tables(columns)
    return Imported(counts, [row for table in tables for row in table.to_pylist()])


def find_fault_in_import(folder: Path, answer: Imported) -> str | None:
    """What is wrong with the output, whatever the file was."""
    if [row["image_id"] for row in answer.rows] != list(IMAGES):
        return f"the images are {[row['image_id'] for row in answer.rows]}"
    if sum(len(row["boxes"] or ()) for row in answer.rows) != answer.counts.boxes:
        return f"{answer.counts} are counted"
    for row in answer.rows:
        for box in row["boxes"] or ():
            fault = find_fault_in_box(box, SIDE + 1, SIDE + 1)
            if fault is not None:
                return f"image {row['image_id']}: {fault}"
    if (folder / REJECTED).exists() and not count_skipped(answer):
        return f"it has no right reading, but gives {answer.rows!r:.300}"
    return None


def count_skipped(answer: Imported) -> int:
    """Images and boxes that the counts say to be left out or changed."""
    names = [field.name for field in fields(answer.counts) if field.name not in ("images", "boxes")]
    return sum(value for name in names if isinstance(value := getattr(answer.counts, name), int))
