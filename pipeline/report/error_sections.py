"""The sections of the index about errors: TIDE's types, confusion, calibration, misses by their cause."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.analysis.matching import ERRORS
from pipeline.report.cells import EMPTY, Cell, format_share, read_estimate
from pipeline.report.charts import Axis, Bar, Curve, draw_bars, draw_curves, draw_histogram
from pipeline.report.confusion_splits import BACKGROUND, name_cell
from pipeline.report.context import ReportContext
from pipeline.report.overview_sections import name_class_page
from pipeline.report.splits import ERROR_TITLES
from pipeline.report.views import Chart, Row, Section, Table, list_columns

_MOST_CLASSES = 40
"""Classes of a drawn confusion matrix; of more, those with most confusions are drawn."""
_MOST_PAIRS = 30


def build_errors(context: ReportContext) -> Section:
    """What each of TIDE's error types costs, and how many errors there are."""
    gains = context.get("tide", "dap")
    if not context.plan.is_annotated:
        return Section("errors", "Errors", "Types of errors")
    links = context.links
    charts: tuple[Chart, ...] = ()
    if gains is not None:
        bars = [
            Bar(
                ERROR_TITLES[error],
                read_estimate(gains.get(error))[0],
                format_share(gains.get(error)).text,
                *read_estimate(gains.get(error))[1:],
                href=links.find(f"error-{error}"),
                colour=2,
            )
            for error in ERRORS
        ]
        charts = (
            Chart(
                "What each type costs: gain in AP50 if it were corrected",
                draw_bars("Gain in AP50 by type of error", bars),
                "TIDE's oracle corrects one type at a time, so the gains do not add up.",
            ),
        )
    columns = list_columns(
        "class", *((ERROR_TITLES[error], f"TIDE's type {error}") for error in ERRORS), "costliest"
    )
    per_class = context.find_by_label("tide", "per_class")
    rows = [
        Row(
            label,
            (
                *(links.count(f"class-{k}-error-{error}") for error in ERRORS),
                _find_costliest(per_class.get(label, {}), k, context),
            ),
            name_class_page(k),
        )
        for k, label in enumerate(context.plan.classes)
    ]
    rows.append(
        Row("all classes", (*(links.count(f"error-{e}") for e in ERRORS), EMPTY), is_total=True)
    )
    return Section(
        "errors",
        "Errors",
        "Types of errors",
        "TIDE's types of the detections that are false at IoU 0.5, of any score, and of missed objects.",
        charts=charts,
        tables=(Table("Errors by class and type", columns, tuple(rows), is_sortable=True),),
    )


def _find_costliest(row: Mapping[str, Any], class_id: int, context: ReportContext) -> Cell:
    """The type of error that costs the class most."""
    gains = row.get("dap") or {}
    values = {error: read_estimate(gains.get(error))[0] or 0.0 for error in ERRORS}
    worst = max(values, key=lambda error: values[error])
    if not values[worst]:
        return EMPTY
    own = context.links.find(
        f"class-{class_id}-error-{worst}"
    )  # none if other labels have the errors
    href = own or context.links.find(f"class-{class_id}-missed") or name_class_page(class_id)
    return Cell(f"{ERROR_TITLES[worst]} +{values[worst]:.3f}", values[worst], href)


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
            share = None if cell is None else read_estimate(cell.get("share"))[0]
            heat = 0 if not share else max(1, min(9, math.ceil(9 * share)))
            shown = context.links.count(name_cell(i, j), heat) if cell is not None else Cell("")
            cells.append(shown)
        rows.append(Row(names[i], tuple(cells)))
    note = ""
    if len(chosen) < len(context.plan.classes):
        note = f"The {len(chosen)} classes with most confusions are shown."
    columns = list_columns("object ↓ detected as →", *((names[j], names[j]) for j in positions))
    return Table("Confusion matrix", columns, tuple(rows), note, is_matrix=True)


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


def build_calibration(context: ReportContext) -> Section:
    """Whether a score is the share of true detections."""
    calibration = context.get("calibration", "overall")
    if calibration is None or not calibration.get("bins"):
        return Section("calibration", "Calibration", "Calibration of scores")
    chart = draw_reliability(calibration)
    bins = calibration["bins"]
    hrefs = [context.links.find(f"score-{round(10 * b['low'])}") for b in bins]
    edges = [index / 10 for index in range(11)]
    counts = [0.0] * 10
    links: list[str | None] = [None] * 10
    for one, href in zip(bins, hrefs, strict=True):
        counts[round(10 * one["low"])] = one["detections"]
        links[round(10 * one["low"])] = href
    rows = tuple(
        Row(
            f"{one['low']:.1f} to {one['high']:.1f}",
            (
                context.links.count(f"score-{round(10 * one['low'])}"),
                format_share(one["mean_score"], href),
                format_share(one["true_share"], href),
            ),
        )
        for one, href in zip(bins, hrefs, strict=True)
    )
    ece = format_share(calibration["ece"])
    return Section(
        "calibration",
        "Calibration",
        "Calibration of scores",
        "If scores are calibrated, a share s of the detections with score s is true: the curve follows the "
        f"diagonal. The expected calibration error is {ece.text}{f' ({ece.title})' if ece.title else ''}.",
        charts=(
            Chart("Share of true detections by score", chart),
            Chart(
                "Detections by score",
                draw_histogram(
                    "Detections by score",
                    edges,
                    counts,
                    x_axis=Axis("score"),
                    y_title="detections",
                    hrefs=links,
                ),
            ),
        ),
        tables=(
            Table(
                "Detections by score",
                list_columns("score", "detections", "mean score", "true share"),
                rows,
            ),
        ),
    )


def draw_reliability(calibration: Mapping[str, Any]) -> Any:
    """The reliability curve of one class, or of all."""
    points = [
        (one["mean_score"], read_estimate(one["true_share"])[0])
        for one in calibration["bins"]
        if one["mean_score"] is not None
    ]
    pairs = [(x, y) for x, y in points if y is not None]
    curves = [
        Curve("calibrated", (0.0, 1.0), (0.0, 1.0), 0, "dashed"),
        Curve("detections", [x for x, _ in pairs], [y for _, y in pairs], 1),
    ]
    return draw_curves("Reliability", curves, Axis("mean score"), Axis("share of true detections"))


def build_misses(context: ReportContext) -> Section:
    """Which missed objects the proposals missed, and recall of proposals beside that of detections."""
    if not context.plan.has_proposals:
        return Section("misses", "Misses", "Missed by the proposals or by the head")
    links = context.links
    keys = ("missed-by-proposals", "missed-by-head")
    per_class = context.find_by_label("misses", "per_class")
    rows = [
        Row(
            label,
            (
                links.count(f"class-{k}-objects"),
                links.count(f"class-{k}-missed"),
                *(links.count(f"class-{k}-{key}") for key in keys),
                *_list_recalls(per_class.get(label, {}), name_class_page(k)),
            ),
            name_class_page(k),
        )
        for k, label in enumerate(context.plan.classes)
    ]
    overall = context.get("misses", "overall") or {}
    rows.append(
        Row(
            "all classes",
            (
                links.count("objects"),
                links.count("missed"),
                *(links.count(key) for key in keys),
                *_list_recalls(overall, links.find("missed", "objects")),
            ),
            is_total=True,
        )
    )
    columns = list_columns(
        "class",
        "objects",
        "missed",
        ("by proposals", "No proposal covers the object at IoU 0.5: no head could find it"),
        ("by the head", "A proposal covers the object: the head rejected or misplaced it"),
        ("recall", "Of the detections, at the report's lowest score"),
        ("proposal recall", "Share of objects that a proposal covers at IoU 0.5"),
        ("at IoU 0.7", "Share of objects that a proposal covers at IoU 0.7"),
    )
    perfect = context.get("misses", "perfect_head", "map50")
    note = (
        ""
        if perfect is None
        else f" A perfect head would reach an mAP50 of {perfect:.3f} on these proposals."
    )
    return Section(
        "misses",
        "Misses",
        "Missed by the proposals or by the head",
        f"Of the objects that no detection with a score of {context.plan.min_score:.3f} or more finds.{note}",
        charts=(_draw_recall(overall),) if overall else (),
        tables=(Table("Missed objects by cause", columns, tuple(rows), is_sortable=True),),
    )


def _draw_recall(overall: Mapping[str, Any]) -> Chart:
    """The recall of proposals beside that of detections."""
    bars = [
        Bar(
            name,
            read_estimate(overall.get(key))[0],
            format_share(overall.get(key)).text,
            colour=colour,
        )
        for name, key, colour in (
            ("proposals, IoU 0.7", "proposal_recall70", 3),
            ("proposals, IoU 0.5", "proposal_recall50", 3),
            ("detections", "recall", 1),
        )
    ]
    return Chart("Recall at IoU 0.5", draw_bars("Recall", bars, 1.0))


def _list_recalls(row: Mapping[str, Any], href: str | None) -> tuple[Cell, ...]:
    names = ("recall", "proposal_recall50", "proposal_recall70")
    return tuple(format_share(row.get(name), href) for name in names)
