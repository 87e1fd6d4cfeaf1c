"""The page of one class: its numbers, curves, and the first images of its galleries."""

from __future__ import annotations

from pipeline.analysis.matching import ERRORS
from pipeline.analysis.object_sizes import SIZES
from pipeline.report.bars import Bar, draw_bars
from pipeline.report.cells import format_share
from pipeline.report.context import ReportContext
from pipeline.report.curve_section import draw_score_curves
from pipeline.report.error_sections import draw_reliability
from pipeline.report.overview_sections import build_score_card, join_interval
from pipeline.report.rendering import render_page
from pipeline.report.splits import ERROR_TITLES
from pipeline.report.views import Card, Chart, Row, Table, build_strip, list_columns

_SHOWN = 6


def render_class_page(context: ReportContext, class_id: int, footer: str) -> bytes:
    """Render the page of one class."""
    label = context.plan.classes[class_id]
    prefix = f"class-{class_id}-"
    outcomes = (
        ("true", "false", "missed", "ignored") if context.plan.is_annotated else ("detections",)
    )
    strips = [
        build_strip(context.galleries[prefix + key], _SHOWN, title)
        for key, title in zip(outcomes, map(_TITLES.__getitem__, outcomes), strict=True)
        if prefix + key in context.galleries
    ]
    return render_page(
        "class.html",
        "../",
        title=label,
        label=label,
        cards=_build_scores(context, label, prefix),
        counts=_build_counts(context, prefix),
        charts=_build_charts(context, label, prefix),
        tables=_build_tables(context, prefix),
        strips=strips,
        footer=footer,
    )


_TITLES = {
    "true": "True detections",
    "false": "False detections",
    "missed": "Missed objects",
    "ignored": "Ignored detections",
    "detections": "Detections",
}


def _build_scores(context: ReportContext, label: str, prefix: str) -> list[Card]:
    if not context.plan.is_annotated:
        return []
    errors = context.links.find(f"{prefix}false", f"{prefix}missed", f"{prefix}objects")
    scores = context.find_by_label("per_class").get(label, {})
    intervals = context.get("class_intervals", label) or {}
    points = context.find_by_label("operating_points", "per_class").get(label, {})
    best = points.get("best") or {}
    cards = [
        build_score_card(
            title,
            join_interval(scores.get(name), intervals.get(name)),
            errors,
            note,
            is_main=name == "coco_ap",
        )
        for name, title, note in (
            ("coco_ap", "COCO AP", "IoU 0.50 to 0.95"),
            ("ap11", "AP 11-point", "VOC2007, IoU 0.5"),
            ("ap_area", "AP area", "VOC2010, IoU 0.5"),
        )
    ]
    note = f"at score {format_share(best.get('score')).text}" if best else ""
    return [*cards, build_score_card("Best F1", best.get("f1"), errors, note)]


def _build_counts(context: ReportContext, prefix: str) -> list[Card]:
    links = context.links
    cards = [Card("Detections", links.count(f"{prefix}detections"), "of any score")]
    if not context.plan.is_annotated:
        return cards
    at_score = f"score ≥ {context.plan.min_score:.2f}"
    outcomes = (
        ("True detections", "true", at_score),
        ("False detections", "false", at_score),
        ("Missed objects", "missed", at_score),
        ("Ignored detections", "ignored", at_score),
    )
    return [
        Card("Objects", links.count(f"{prefix}objects")),
        *cards,
        *(Card(name, links.count(prefix + key), note) for name, key, note in outcomes),
    ]


def _build_charts(context: ReportContext, label: str, prefix: str) -> list[Chart]:
    charts = list(draw_score_curves(context, label))
    calibration = context.find_by_label("calibration", "per_class").get(label)
    if calibration and calibration.get("bins"):
        charts.append(Chart("Calibration", draw_reliability(calibration)))
    gains = context.find_by_label("tide", "per_class").get(label, {}).get("dap")
    if gains:
        bars = [
            Bar(
                ERROR_TITLES[error],
                gains.get(error),
                format_share(gains.get(error)).text,
                href=_go_up(context.links.find(f"{prefix}error-{error}")),
                colour=2,
            )
            for error in ERRORS
        ]
        charts.append(Chart("Gain in AP50 by type of error", draw_bars("Gain in AP50", bars)))
    return charts


def _go_up(href: str | None) -> str | None:
    """The address as seen from a folder of the report."""
    return None if href is None else f"../{href}"


def _build_tables(context: ReportContext, prefix: str) -> list[Table]:
    if not context.plan.is_annotated:
        return []
    links = context.links
    errors = [
        Row(ERROR_TITLES[error], (links.count(f"{prefix}error-{error}"),)) for error in ERRORS
    ]
    sizes = [
        Row(
            size,
            tuple(links.count(f"{prefix}{size}-{outcome}") for outcome in ("detected", "missed")),
        )
        for size in SIZES
    ]
    tables = [
        Table("Errors by type", list_columns("type", "count"), tuple(errors)),
        Table("Objects by size", list_columns("size", "detected", "missed"), tuple(sizes)),
    ]
    if context.plan.has_proposals:
        causes = [
            Row(title, (links.count(f"{prefix}{key}"),))
            for key, title in (
                ("missed-by-proposals", "by the proposals"),
                ("missed-by-head", "by the head"),
            )
        ]
        tables.append(Table("Missed objects", list_columns("missed", "objects"), tuple(causes)))
    return tables
