"""The sections of the index about errors: TIDE's types, calibration, misses by their cause."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.analysis.matching import ERRORS
from pipeline.report.bars import Bar, build_count_bar, draw_bars
from pipeline.report.cells import EMPTY, Cell, format_share, read_estimate
from pipeline.report.charts import Axis, Curve, draw_curves, draw_histogram
from pipeline.report.context import ReportContext
from pipeline.report.overview_sections import join_interval, name_class_page
from pipeline.report.splits import ERROR_TITLES
from pipeline.report.views import Chart, Row, Section, Table, list_columns


def build_errors(context: ReportContext) -> Section:
    """What each of TIDE's error types costs, and how many errors there are."""
    gains = context.get("tide", "dap")
    if not context.plan.is_annotated:
        return Section("errors", "Errors", "Types of errors")
    links = context.links
    charts = [Chart("How many there are", draw_bars("Errors by type", _count_errors(context)))]
    if gains is not None:
        gain_bars = [_draw_gain(context, error, gains.get(error)) for error in ERRORS]
        gain = Chart(
            "What each type costs: gain in AP50 if it were corrected",
            draw_bars("Gain in AP50 by type of error", gain_bars),
            "TIDE's oracle corrects one type at a time, so the gains do not add up.",
        )
        charts.insert(0, gain)
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
        charts=tuple(charts),
        tables=(Table("Errors by class and type", columns, tuple(rows), is_sortable=True),),
    )


def _draw_gain(context: ReportContext, error: str, gain: Any) -> Bar:
    value, low, high = read_estimate(join_interval(gain, context.get("tide", "intervals", error)))
    href = context.links.find(f"error-{error}")
    return Bar(ERROR_TITLES[error], value, format_share(gain).text, low, high, href, colour=2)


def _count_errors(context: ReportContext) -> list[Bar]:
    cells = {error: context.links.count(f"error-{error}") for error in ERRORS}
    return [build_count_bar(ERROR_TITLES[error], cell) for error, cell in cells.items()]


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
        charts=(*((_draw_recall(overall),) if overall else ()), _draw_causes(context)),
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


def _draw_causes(context: ReportContext) -> Chart:
    """The missed objects by their cause."""
    bars = [
        build_count_bar(name, context.links.count(f"missed-by-{key}"), colour=2)
        for name, key in (("by the proposals", "proposals"), ("by the head", "head"))
    ]
    return Chart("Missed objects", draw_bars("Missed objects", bars))


def _list_recalls(row: Mapping[str, Any], href: str | None) -> tuple[Cell, ...]:
    names = ("recall", "proposal_recall50", "proposal_recall70")
    return tuple(format_share(row.get(name), href) for name in names)
