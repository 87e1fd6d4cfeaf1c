"""The first sections of the index: headline numbers, classes, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.bars import Bar, build_count_bar, draw_bars, draw_interval
from pipeline.report.cells import EMPTY, Cell, format_count, format_share, read_estimate
from pipeline.report.context import ReportContext
from pipeline.report.views import Card, Chart, Row, Section, Table, list_columns

_HEADLINE = (
    ("coco_ap", "COCO AP", "IoU 0.50 to 0.95"),
    ("coco_ap50", "AP50", "COCO, IoU 0.5"),
    ("coco_ap75", "AP75", "COCO, IoU 0.75"),
    ("voc07_map50", "VOC07 mAP", "11-point, IoU 0.5"),
    ("voc_map50", "VOC mAP", "area, IoU 0.5"),
    ("coco_ar_100", "AR100", "COCO, 100 detections"),
    ("coco_ar_10", "AR10", "COCO, 10 detections"),
    ("coco_ar_1", "AR1", "COCO, 1 detection"),
)
_BY_SIZE = ("small", "medium", "large")


def build_overview(context: ReportContext) -> Section:
    """Headline numbers, counts, and what the numbers may not be compared with."""
    notes = tuple(str(note) for note in context.get("notes") or ())
    if not context.plan.is_annotated:
        return Section(
            "overview",
            "Overview",
            "Overview",
            "The images have no annotations, so the report shows what was detected, not how well.",
            notes=notes,
            counts=_build_count_cards(context),
        )
    return Section(
        "overview",
        "Overview",
        "Overview",
        notes=notes,
        cards=_build_score_cards(context),
        counts=_build_count_cards(context),
    )


def _build_score_cards(context: ReportContext) -> tuple[Card, ...]:
    href = context.links.find("worst", "images")
    intervals = context.get("intervals") or {}
    cards = []
    for key, name, meaning in _HEADLINE:
        if key not in context.metrics:
            continue
        value = join_interval(context.metrics[key], intervals.get(key))
        cards.append(build_score_card(name, value, href, meaning, is_main=key == "coco_ap"))
    best = context.get("operating_points", "overall", "best")
    if best is not None:
        note = f"at score {best['score']:.3f}"
        cards.append(build_score_card("Best F1", best.get("f1"), href, note))
    return tuple(cards)


def build_score_card(
    name: str, value: Any, href: str | None, note: str = "", *, is_main: bool = False
) -> Card:
    """A card of a rate, with its interval if `value` has one."""
    cell = format_share(value, href)
    number, low, high = read_estimate(value)
    if number is None or low is None or high is None:
        return Card(name, cell, note, is_main)
    drawing = draw_interval(number, low, high)
    return Card(name, cell, note, is_main, _format_interval(cell), drawing)


def _format_interval(cell: Cell) -> str:
    """The interval of a score, short."""
    return cell.title.removeprefix("95 % interval ").replace(" to ", " – ")


def join_interval(value: Any, interval: Any) -> Any:
    """A number with the low and high of `interval`, which may be a pair, an estimate, or None."""
    _, low, high = read_estimate(interval)
    if isinstance(interval, list | tuple) and len(interval) == 2:
        low, high = interval
    return value if low is None or high is None else {"value": value, "low": low, "high": high}


def _build_count_cards(context: ReportContext) -> tuple[Card, ...]:
    links = context.links
    at_score = f"score ≥ {context.plan.min_score:.2f}"
    cards = [
        Card("Images", links.count("images")),
        Card("Detections", links.count("detections"), "of any score"),
    ]
    if context.plan.is_annotated:
        cards += [
            Card("Objects", links.count("objects")),
            Card("True detections", links.count("true"), at_score),
            Card("False detections", links.count("false"), at_score),
            Card("Missed objects", links.count("missed"), at_score),
        ]
    cards.append(Card("Images without detections", links.count("without-detections")))
    cards.append(Card("Failed images", links.count("failed")))
    return tuple(cards)


def build_classes(context: ReportContext) -> Section:
    """The table of classes."""
    is_annotated = context.plan.is_annotated
    metrics = context.find_by_label("per_class")
    points = context.find_by_label("operating_points", "per_class")
    rows = [
        _build_class_row(context, k, label, metrics.get(label, {}), points.get(label, {}))
        for k, label in enumerate(context.plan.classes)
    ]
    rows.append(_build_total_row(context))
    columns = (
        list_columns(
            "class",
            ("objects", "Annotated objects that count: neither difficult nor crowds"),
            ("detections", "Detections of any score"),
            ("true", f"True detections with a score of at least {context.plan.min_score:.3f}"),
            ("false", f"False detections with a score of at least {context.plan.min_score:.3f}"),
            ("missed", "Objects without a true detection of this score"),
            ("precision", "Share of these detections that is true"),
            ("recall", "Share of the objects that are detected"),
            ("best F1", "At the score that is best for the class"),
            ("at score", "The score that is best for the class's F1"),
            ("AP", "COCO's, IoU 0.50 to 0.95"),
            ("AP 11-point", "VOC2007's, IoU 0.5"),
            ("AP area", "VOC2010's, IoU 0.5"),
        )
        if is_annotated
        else list_columns("class", "detections")
    )
    intro = (
        "A class leads to its own page, and a number to its images. True, false and missed are counted "
        f"at IoU 0.5 over detections with a score of at least {context.plan.min_score:.3f}"
        + (
            ", the best one for F1 over all classes."
            if context.get("operating_points", "overall", "best") is not None
            else "."
        )
        if is_annotated
        else "A number leads to its images."
    )
    table = Table("Classes", columns, tuple(rows), is_sortable=True)
    charts = () if is_annotated else _draw_class_bars(context)
    return Section("classes", "Classes", "Classes", intro, tables=(table,), charts=charts)


def _draw_class_bars(context: ReportContext) -> tuple[Chart, ...]:
    links = context.links
    totals = sorted(
        ((links.get_total(f"class-{k}-detections"), k) for k in range(len(context.plan.classes))),
        reverse=True,
    )[:20]
    bars = [
        build_count_bar(context.plan.classes[k], links.count(f"class-{k}-detections"))
        for _, k in totals
    ]
    return (Chart("Detections per class", draw_bars("Detections per class", bars)),) if bars else ()


def _build_class_row(
    context: ReportContext, k: int, label: str, scores: Mapping[str, Any], points: Mapping[str, Any]
) -> Row:
    links, page = context.links, name_class_page(k)
    if not context.plan.is_annotated:
        return Row(label, (links.count(f"class-{k}-detections"),), page)
    best = points.get("best") or {}
    shared = points.get("at_overall") or {}
    intervals = context.get("class_intervals", label) or {}
    return Row(
        label,
        (
            links.count(f"class-{k}-objects"),
            links.count(f"class-{k}-detections"),
            *(links.count(f"class-{k}-{outcome}") for outcome in ("true", "false", "missed")),
            format_share(shared.get("precision"), page),
            format_share(shared.get("recall"), page),
            format_share(best.get("f1"), page),
            format_share(best.get("score"), page),
            *(
                format_share(join_interval(scores.get(name), intervals.get(name)), page)
                for name in ("coco_ap", "ap11", "ap_area")
            ),
        ),
        page,
    )


def _build_total_row(context: ReportContext) -> Row:
    links = context.links
    if not context.plan.is_annotated:
        return Row("all classes", (links.count("detections"),), is_total=True)
    best = context.get("operating_points", "overall", "best") or {}
    href = links.find("worst", "images")
    return Row(
        "all classes",
        (
            links.count("objects"),
            links.count("detections"),
            *(links.count(outcome) for outcome in ("true", "false", "missed")),
            *(
                format_share(best.get(name), href)
                for name in ("precision", "recall", "f1", "score")
            ),
            *(
                format_share(join_interval(context.get(name), context.get("intervals", name)), href)
                for name in ("coco_ap", "voc07_map50", "voc_map50")
            ),
        ),
        is_total=True,
    )


def name_class_page(class_id: int) -> str:
    """The address of a class's page in the report's folder."""
    return f"classes/class-{class_id}.html"


def build_sizes(context: ReportContext) -> Section:
    """Average precision and recall by the size of objects."""
    if not context.plan.is_annotated:
        return Section("sizes", "Sizes", "Object sizes")
    links = context.links
    rows = []
    for size in _BY_SIZE:
        detected, missed = (links.count(f"{size}-{outcome}") for outcome in ("detected", "missed"))
        objects = (detected.count or 0) + (missed.count or 0)
        href = missed.href or detected.href
        share = (detected.count or 0) / objects if objects else None
        rows.append(
            Row(
                size,
                (
                    Cell(f"{objects:,}", objects, href),
                    detected,
                    missed,
                    format_share(share, href),
                    *(
                        format_share(
                            join_interval(context.get(name), context.get("intervals", name)), href
                        )
                        for name in (f"coco_ap_{size}", f"coco_ar_{size}")
                    ),
                )
                if objects
                else (format_count(0), detected, missed, EMPTY, EMPTY, EMPTY),
            )
        )
    columns = list_columns("size", "objects", "detected", "missed", "recall", "AP", "AR100")
    bars = [
        Bar(row.name, row.cells[3].value, row.cells[3].text, href=row.cells[3].href) for row in rows
    ]
    return Section(
        "sizes",
        "Sizes",
        "Object sizes",
        "COCO's sizes, measured by the box: small below 32² pixels of area, large from 96² on. Recall at "
        f"IoU 0.5 and a score of at least {context.plan.min_score:.3f}.",
        charts=(Chart("Recall by size", draw_bars("Recall by size", bars, 1.0)),),
        tables=(Table("Objects by size", columns, tuple(rows)),),
    )
