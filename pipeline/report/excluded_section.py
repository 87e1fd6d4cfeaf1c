"""The section that sets the metrics beside those without leaked, repeated or otherwise excluded images."""

from __future__ import annotations

from typing import Any

from pipeline.report.cells import EMPTY, Cell, format_count, format_share, read_estimate
from pipeline.report.context import ReportContext
from pipeline.report.views import Card, Row, Section, Table, list_columns

_NAMES = {
    "voc07_map50": "mAP 11-point, IoU 0.5",
    "voc_map50": "mAP area, IoU 0.5",
    "coco_ap": "COCO AP",
    "coco_ap50": "COCO AP50",
    "coco_ap75": "COCO AP75",
    "coco_ar_100": "COCO AR100",
}


def build_excluded(context: ReportContext) -> Section:
    """The metrics with and without the images of `--exclude`."""
    section = Section("excluded", "Without leaks", "With and without excluded images")
    without = context.get("excluded", "without")
    if without is None:
        return section
    rows = [
        Row(title, _compare(context.get(name), without.get(name))) for name, title in _NAMES.items()
    ]
    for name in ("objects", "detections"):
        rows.append(
            Row(name, (*(format_count(v) for v in (context.get(name), without[name])), EMPTY))
        )
    per_class = {row["label"]: row for row in context.get("excluded", "per_class") or ()}
    of_classes = tuple(
        Row(label, _compare(row.get("ap11"), per_class.get(label, {}).get("ap11")))
        for label, row in context.find_by_label("per_class").items()
    )
    columns = ("all images", "without", "difference")
    count = context.links.count("excluded")
    return Section(
        "excluded",
        "Without leaks",
        "With and without excluded images",
        "The list of --exclude names images that the training may have seen, or that are there twice. All "
        "other numbers of this report are over all images.",
        counts=(Card("Excluded images", count, f"of {context.get('images'):,}"),),
        tables=(
            Table("Scores", list_columns("score", *columns), tuple(rows)),
            Table(
                "11-point AP by class",
                list_columns("class", *columns),
                of_classes,
                is_sortable=True,
            ),
        ),
    )


def _compare(first: Any, second: Any) -> tuple[Cell, ...]:
    before, after = read_estimate(first)[0], read_estimate(second)[0]
    difference = EMPTY
    if before is not None and after is not None:
        difference = Cell(f"{after - before:+.3f}", after - before)
    return format_share(before), format_share(after), difference
