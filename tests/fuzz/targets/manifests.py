"""Manifests: Parquet files whose columns, cells, metadata or bytes are changed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq

from pipeline import shards
from pipeline.manifests import Manifest, open_manifest
from pipeline.training.annotated_dataset import read_annotations
from tests.fuzz.mutators.table_mutator import encode_table, mutate_table
from tests.fuzz.target import Target
from tests.fuzz.targets.run_outputs import read_rows, write_manifest_of_five
from tests.fuzz.targets.source_answers import find_fault_in_rows

_BATCH = 2


@dataclass(frozen=True)
class _Answer:
    """A manifest as runs and training read it."""

    manifest: Manifest
    rows: list[dict[str, Any]]
    images: int
    """Images in the cut."""


def _write(folder: Path, random: Random) -> str:
    path = Path(write_manifest_of_five(folder))
    table, change = mutate_table(pq.read_table(path), random)
    data, form = encode_table(table, random)
    path.write_bytes(data)
    return ", ".join(filter(None, (change, form)))


def _read(folder: Path) -> _Answer:
    manifest = open_manifest(str(folder / "manifest.parquet"))
    cut = shards.cut_manifest(manifest, _BATCH)
    rows: list[dict[str, Any]] = []
    for first_row in range(0, manifest.rows, _BATCH):
        table = manifest.read(first_row, min(_BATCH, manifest.rows - first_row))
        if manifest.classes is not None:
            read_annotations(table, manifest.classes)
        rows += table.to_pylist()
    return _Answer(manifest, rows, cut.images)


def _find_fault(folder: Path, answer: _Answer) -> str | None:
    rows, manifest = answer.rows, answer.manifest
    # Boxes may reach out of the image here: decoding decides its size.
    unbounded = [row | {"width": None, "height": None} for row in rows]
    fault = find_fault_in_rows(unbounded, manifest.classes, sized=False)
    if fault is not None:
        return fault
    if any(side is not None and side < 1 for row in rows for side in (row["width"], row["height"])):
        return "an image has no positive size"
    if not len(rows) == manifest.rows == answer.images > 0:
        return f"{manifest.rows} rows are stated, {len(rows)} read, {answer.images} cut"
    classes, categories = manifest.classes, manifest.category_ids
    if classes is not None and (len(set(classes)) < len(classes) or "" in classes):
        return f"the classes are {classes}"
    if categories is not None and len(categories) != len(classes or ()):
        return f"{len(categories)} category ids for the classes {classes}"
    return _compare_rows(folder / "manifest.parquet", rows)


def _compare_rows(path: Path, rows: list[dict[str, Any]]) -> str | None:
    """Whether each row holds what its file says, nothing of another."""
    stored = read_rows(path)
    if stored is None:
        return "pyarrow cannot read the file"
    if len(stored) != len(rows):
        return f"the file has {len(stored)} rows, {len(rows)} are read"
    for expected, row in zip(stored, rows, strict=True):
        for name, value in row.items():
            if not are_alike(expected.get(name), value):
                return (
                    f"{name} is {expected.get(name)!r:.200} in the file and read as {value!r:.200}"
                )
    return None


def are_alike(stored: Any, value: Any) -> bool:
    """Whether a value is the stored one, but for the rounding of numbers to the column's type."""
    if isinstance(value, dict):
        return isinstance(stored, dict) and all(
            are_alike(stored.get(k), v) for k, v in value.items()
        )
    if isinstance(value, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(value)
            and all(are_alike(s, v) for s, v in zip(stored, value, strict=True))
        )
    if isinstance(stored, bool) or isinstance(value, bool | str):
        return type(stored) is type(value) and stored == value
    if value is None or stored is None:
        return stored is value
    return isinstance(stored, int | float) and math.isclose(
        stored, value, rel_tol=1e-6, abs_tol=1e-30
    )


TARGETS = (Target("manifest", _write, _read, _find_fault),)
