"""Seeded errors in the annotated boxes of a manifest: boxes deleted, relabelled, shifted and added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.analysis.manifest_join import JoinedBatch

KINDS = ("missing", "label", "box", "spurious")
"""The errors, by the names of `annotation_suspects.KINDS`: deleted, relabelled, shifted and added boxes."""


@dataclass(frozen=True)
class NoisyBox:
    """One error: what the annotation says now, and what it said."""

    kind: str
    row: int
    """The image's row in the manifest."""
    object_index: int | None
    """In the changed annotation; None for a deleted box."""
    box: tuple[float, ...]
    """The box as it was; of an added one, the box itself."""


def add_noise(
    batch: JoinedBatch, classes: Sequence[str], share: float, seed: int
) -> tuple[JoinedBatch, list[NoisyBox]]:
    """Change a share of the objects in each of the four ways.

    A shifted box moves by 30 to 60 % of its sides along both axes. An added box has the sides of an object of
    its image and overlaps no object. Difficult objects and crowds stay. The draws are keyed by (seed, row).
    """
    noise: list[NoisyBox] = []
    lists = []
    columns = (batch.manifest.column(name).to_pylist() for name in ("objects", "width", "height"))
    for position, (objects, width, height) in enumerate(zip(*columns, strict=True)):
        row = batch.first_row + position
        if objects is None:
            lists.append(None)
            continue
        changed, errors = _change_image(
            objects,
            row,
            (width, height),
            classes,
            share=share,
            rng=np.random.default_rng((seed, row)),
        )
        lists.append(changed)
        noise += errors
    column = batch.manifest.schema.get_field_index("objects")
    field = schema.MANIFEST.field("objects")
    manifest = batch.manifest.set_column(column, field, pa.array(lists, field.type))
    return replace(batch, manifest=manifest), noise


def _change_image(
    objects: list[dict[str, Any]],
    row: int,
    size: tuple[int, int],
    classes: Sequence[str],
    *,
    share: float,
    rng: np.random.Generator,
) -> tuple[list[dict[str, Any]], list[NoisyBox]]:
    changed: list[dict[str, Any]] = []
    errors = []
    for entry in objects:
        draw = rng.random()
        box = _get_box(entry)
        if entry["difficult"] or entry["crowd"] or draw >= 4 * share:
            changed.append(entry)
            continue
        kind = KINDS[int(draw / share)]
        if kind == "missing":
            errors.append(NoisyBox(kind, row, None, box))
            continue
        if kind == "label":
            others = [name for name in classes if name != entry["label"]]
            if others:
                errors.append(NoisyBox(kind, row, len(changed), box))
                changed.append({**entry, "label": others[rng.integers(len(others))]})
                continue
        elif kind == "box":
            errors.append(NoisyBox(kind, row, len(changed), box))
            changed.append({**entry, **_shift(box, rng)})
            continue
        else:
            added = _place_beside(box, [_get_box(other) for other in objects], size, rng)
            if added is not None:
                label = classes[rng.integers(len(classes))]
                errors.append(NoisyBox(kind, row, len(changed), added))
                changed.append({**entry, "label": label, **_name_corners(added)})
        changed.append(entry)
    return changed, errors


def _shift(box: tuple[float, ...], rng: np.random.Generator) -> dict[str, float]:
    x1, y1, x2, y2 = box
    dx, dy = rng.uniform(0.3, 0.6, 2) * rng.choice([-1, 1], 2) * (x2 - x1, y2 - y1)
    return _name_corners((x1 + dx, y1 + dy, x2 + dx, y2 + dy))


def _place_beside(
    box: tuple[float, ...],
    others: list[tuple[float, ...]],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[float, ...] | None:
    """A box of the same sides within the image that overlaps none of the others, if one is drawn."""
    width, height = box[2] - box[0], box[3] - box[1]
    for _ in range(50):
        x1, y1 = rng.uniform(0, 1, 2) * (size[0] - width, size[1] - height)
        placed = (x1, y1, x1 + width, y1 + height)
        if all(measure_iou(placed, other) == 0 for other in others):
            return placed
    return None


def _get_box(entry: dict[str, Any]) -> tuple[float, ...]:
    return tuple(entry[name] for name in ("x1", "y1", "x2", "y2"))


def _name_corners(box: Sequence[float]) -> dict[str, float]:
    return dict(zip(("x1", "y1", "x2", "y2"), map(float, box), strict=True))


def measure_iou(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inner = width * height
    return inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner)
