"""The sections of the index about slices, likely annotation errors, and what was detected at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.analysis.object_sizes import SIZES
from pipeline.report.cells import Cell, format_share
from pipeline.report.charts import Axis, draw_histogram
from pipeline.report.context import ReportContext
from pipeline.report.slice_splits import OUTCOMES, name_slice
from pipeline.report.suspects import KINDS
from pipeline.report.views import Chart, Row, Section, Table, build_strip, list_columns

_SHOWN = 6
_LIKELY_FROM = 0.5


def build_slices(context: ReportContext) -> Section:
    """Recall, precision and AP50 by attributes of objects and images."""
    slices = {s["attribute"]: s for s in context.get("slices", "attributes") or ()}
    tables = []
    for index, attribute in enumerate(context.plan.attributes):
        figures = slices.get(attribute.name)
        if figures is None or not figures["slices"]:
            continue
        rows = [
            _build_slice_row(context, index, attribute.slices.index(figure["name"]), figure)
            for figure in figures["slices"]
            if figure["name"] in attribute.slices
        ]
        columns = list_columns(attribute.name, "objects", *OUTCOMES, "recall", "precision", "AP50")
        tables.append(Table(f"By {attribute.name}", columns, tuple(rows), width="narrow"))
    return Section(
        "slices",
        "Slices",
        "Slices",
        f"Recall and precision at IoU 0.5 and a score of {context.plan.min_score:.3f} or more. A true "
        "detection belongs to the slices of its object, a false one to those of its own box.",
        tables=tuple(tables),
    )


def _build_slice_row(
    context: ReportContext, attribute: int, position: int, figure: Mapping[str, Any]
) -> Row:
    links = context.links
    keys = {outcome: name_slice(attribute, position, outcome) for outcome in OUTCOMES}
    href = links.find(keys["missed"], keys["true"])
    counts = {outcome: links.count(key) for outcome, key in keys.items()}
    if figure.get("false") is None:  # false detections belong to no slice
        counts["false"] = Cell("–")
    return Row(
        figure["name"],
        (
            Cell(f"{figure['objects']:,}", figure["objects"], href),
            *counts.values(),
            format_share(figure["recall"], href),
            format_share(figure["precision"], links.find(keys["false"], keys["true"])),
            format_share(figure["ap50"], href),
        ),
    )


def build_annotation_errors(context: ReportContext) -> Section:
    """What in the annotation may be wrong."""
    galleries = {kind: context.galleries.get(f"suspect-{kind}") for kind in KINDS}
    return Section(
        "annotation-errors",
        "Annotation",
        "Likely annotation errors",
        "Where confident detections contradict the annotation, the most suspected first. Yellow boxes are "
        "annotated, red ones detected. All suspects are in annotation_errors.parquet.",
        strips=tuple(
            replace(build_strip(gallery, _SHOWN), note=_describe_suspicion(context, kind))
            for kind, gallery in galleries.items()
            if gallery is not None
        ),
    )


def _describe_suspicion(context: ReportContext, kind: str) -> str:
    """How many of the listed suspects of a kind are likely errors."""
    errors = context.get("annotation_errors", "errors") or ()
    suspicions = [error["suspicion"] for error in errors if error["kind"] == kind]
    likely = sum(suspicion >= _LIKELY_FROM for suspicion in suspicions)
    return f"{likely} of the first {len(suspicions)} have a suspicion of {_LIKELY_FROM} or more."


def build_distributions(context: ReportContext) -> Section:
    """Scores and sizes of all detections, and detections per image."""
    distributions = context.get("distributions")
    if distributions is None or not distributions["overall"]["detections"]:
        return Section("distributions", "Detections", "What was detected")
    overall = distributions["overall"]
    scores = overall["scores"]
    edges = [index / len(scores) for index in range(len(scores) + 1)]
    per_image = {int(n): count for n, count in distributions["per_image_counts"].items()}
    rows = tuple(
        Row(str(n) if n < 2 else f"{n} to {2 * n - 1}", (context.links.count(f"images-with-{n}"),))
        for n, count in sorted(per_image.items())
        if count
    )
    sizes = tuple(Row(name, (context.links.count(f"{name}-detections"),)) for name in SIZES)
    names = ("fewest", "lower quartile", "median", "upper quartile", "most")
    quantiles = zip(names, distributions["per_image"], strict=False)
    note = ", ".join(f"{name} {n:g}" for name, n in quantiles)
    histogram = draw_histogram(
        "Detections by score", edges, scores, x_axis=Axis("score"), y_title="detections"
    )
    return Section(
        "distributions",
        "Detections",
        "What was detected",
        charts=(Chart("Detections by score", histogram),),
        tables=(
            Table(
                "Images by number of detections", list_columns("detections", "images"), rows, note
            ),
            Table("Detections by size", list_columns("size", "detections"), sizes),
        ),
    )
