"""The section of the index about the confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.report.cells import Cell, format_share, read_estimate
from pipeline.report.confusion_splits import BACKGROUND, name_cell
from pipeline.report.context import ReportContext
from pipeline.report.views import Row, Section, Table, list_columns

_MOST_CLASSES = 100
"""Classes of a drawn confusion matrix; of more, those with most confusions are drawn."""
_MOST_PAIRS = 15


def build_confusion(context: ReportContext) -> Section:
    """The confusion matrix and the most confused pairs of classes."""
    matrix = context.get("confusion")
    if matrix is None:
        return Section("confusion", "Confusion", "Confusion of classes")
    position = {label: k for k, label in enumerate(context.plan.classes)}
    counts = {
        (
            _find_position(cell["object"], position),
            _find_position(cell["detection"], position),
        ): cell
        for cell in matrix["cells"]
    }
    table = _build_matrix(context, counts)
    pairs = sorted(
        (
            (cell["count"], i, j)
            for (i, j), cell in counts.items()
            if i != j and BACKGROUND not in (i, j)
        ),
        reverse=True,
    )[:_MOST_PAIRS]
    rows = tuple(
        Row(
            f"{context.plan.classes[i]} → {context.plan.classes[j]}",
            (
                context.links.count(name_cell(i, j)),
                format_share(counts[i, j].get("share"), context.links.find(name_cell(i, j))),
            ),
        )
        for _, i, j in pairs
    )
    columns = list_columns("object → detection", "count", ("share", "Of the objects of the class"))
    tables = (table, Table("Most confused pairs", columns, rows)) if rows else (table,)
    return Section(
        "confusion",
        "Confusion",
        "Confusion of classes",
        f"Rows are annotated objects, columns detections with a score of at least {matrix['score']:.3f} that "
        f"overlap them by IoU {matrix['iou']:g} or more. “Nothing” is the background: below, detections of "
        "no object; at the right, objects without a detection.",
        tables=tables,
    )


def _find_position(label: str | None, position: Mapping[str, int]) -> int:
    return BACKGROUND if label is None else position.get(label, BACKGROUND)


def _build_matrix(
    context: ReportContext, counts: Mapping[tuple[int, int], Mapping[str, Any]]
) -> Table:
    chosen = _choose_classes(context, counts)
    positions = [*chosen, BACKGROUND]
    names = {k: context.plan.classes[k] for k in chosen} | {BACKGROUND: "nothing"}
    rows = []
    for i in positions:
        cells = []
        for j in positions:
            cell = counts.get((i, j))
            cells.append(Cell("") if cell is None else _shade(context, cell, (i, j)))
        rows.append(Row(names[i], tuple(cells)))
    note = "Blue: the right class. Orange: errors. The stronger, the larger the share of the row's objects."
    if len(chosen) < len(context.plan.classes):
        note += f" The {len(chosen)} classes with most confusions are shown."
    columns = list_columns("object", *((names[j], names[j]) for j in positions))
    return Table("Confusion matrix", columns, tuple(rows), note, is_matrix=True)


def _shade(context: ReportContext, cell: Mapping[str, Any], place: tuple[int, int]) -> Cell:
    """A cell of the matrix; small shares of errors are shaded more strongly than those of right ones."""
    share = read_estimate(cell.get("share"))[0] or 0.0
    is_error = place[0] != place[1]
    heat = max(1, min(9, math.ceil(9 * (share**0.5 if is_error else share)))) if share else 0
    return replace(context.links.count(name_cell(*place)), heat=heat, is_error=is_error)


def _choose_classes(
    context: ReportContext, counts: Mapping[tuple[int, int], Mapping[str, Any]]
) -> list[int]:
    classes = range(len(context.plan.classes))
    if len(classes) <= _MOST_CLASSES:
        return list(classes)
    confusions = dict.fromkeys(classes, 0)
    for (i, j), cell in counts.items():
        if i != j:
            for k in (i, j):
                if k != BACKGROUND:
                    confusions[k] += cell["count"]
    return sorted(sorted(classes, key=lambda k: -confusions[k])[:_MOST_CLASSES])
