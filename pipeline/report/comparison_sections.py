"""The sections of the report of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline import uris
from pipeline.analysis.comparison import MOST_CELLS
from pipeline.analysis.paired_figures import ScoreDifference
from pipeline.analysis.run_comparison import RunComparison
from pipeline.report.bars import ChangeBar, draw_changes
from pipeline.report.cells import EMPTY, Cell
from pipeline.report.comparison_drawing import ComparedRuns, ItemPair
from pipeline.report.comparison_pages import PairLinks, PairPage, build_pairs
from pipeline.report.splits import ERROR_TITLES
from pipeline.report.views import (
    Card,
    Chart,
    Fact,
    PairStrip,
    Row,
    Section,
    Table,
    list_columns,
)

_SHOWN = 2
_MOST_CLASSES = 40
_COLUMNS = ("first", "second", "difference", "95 % interval")
_IMAGES = ("images", "Images on which the number of these errors differs")


def build_overview(comparison: RunComparison, pages: Sequence[PairPage]) -> Section:
    """The differences of the means, and how many images changed."""
    names = (
        ("COCO AP", comparison.coco_ap),
        ("AP50", comparison.coco_ap50),
        ("AP75", comparison.coco_ap75),
        ("VOC07 mAP", comparison.voc07_map50),
        ("VOC mAP", comparison.voc_map50),
    )
    cards = [
        Card(
            name,
            Cell(_format_change(score.difference, 3), score.difference),
            f"{score.first:.3f} → {score.second:.3f}",
            interval=_format_interval(score, 3),
        )
        for name, score in names
        if score.difference is not None
    ]
    counts = [
        Card(page.title, _count(page), "fewer errors" if page.key == "better" else "more errors")
        for page in pages
    ]
    return Section(
        "overview",
        "Overview",
        "Overview",
        notes=comparison.notes,
        cards=tuple(cards),
        counts=tuple(counts),
    )


def _count(page: PairPage) -> Cell:
    return Cell(f"{page.images:,}", page.images, page.address, page.images)


def build_images(
    comparison: RunComparison, pages: Sequence[PairPage], drawn: Mapping[int, ItemPair]
) -> Section:
    """The first images that got better and worse."""
    strips = tuple(
        PairStrip(page.title, page.images, page.address, build_pairs(page, drawn)[:_SHOWN])
        for page in pages
        if page.images
    )
    first, second = comparison.scores
    return Section(
        "images",
        "Images",
        "Images that changed",
        "Left the first run, right the second. Errors are false detections and missed objects at IoU 0.5, "
        f"over detections with scores of at least {first:.3f} and {second:.3f}, each run's best for F1.",
        pairs=strips,
    )


def build_classes(comparison: RunComparison, links: PairLinks) -> Section:
    """Average precision by class."""
    hrefs = {row.label: links.find("class", k) for k, row in enumerate(comparison.per_class)}
    rows = [
        Row(
            row.label,
            (
                Cell(f"{row.objects:,}", row.objects),
                links.count("class", k),
                *_list_cells(row.coco_ap, hrefs[row.label]),
                *_list_cells(row.ap11, hrefs[row.label]),
            ),
            hrefs[row.label],
        )
        for k, row in enumerate(comparison.per_class)
    ]
    columns = list_columns(
        "class",
        "objects",
        _IMAGES,
        *(f"AP {name}" for name in _COLUMNS),
        *(f"AP11 {name}" for name in _COLUMNS),
    )
    chosen = sorted(
        (row for row in comparison.per_class if row.coco_ap.difference is not None),
        key=lambda row: -abs(row.coco_ap.difference or 0.0),
    )[:_MOST_CLASSES]
    bars = [_build_bar(row.label, row.coco_ap, hrefs[row.label]) for row in chosen]
    return Section(
        "classes",
        "Classes",
        "Classes",
        "Grey bars: the interval holds zero, so another sample of images could reverse the sign.",
        charts=(Chart("Difference in COCO AP", draw_changes("Difference in COCO AP", bars)),)
        if bars
        else (),
        tables=(Table("Average precision by class", columns, tuple(rows), is_sortable=True),),
    )


def _build_bar(
    name: str, score: ScoreDifference, href: str | None, digits: int = 3, is_good_up: bool = True
) -> ChangeBar:
    values = (score.difference or 0.0, score.low or 0.0, score.high or 0.0)
    return ChangeBar(
        name, *values, text=_format_change(values[0], digits), is_good_up=is_good_up, href=href
    )


def _list_cells(score: ScoreDifference, href: str | None, digits: int = 3) -> tuple[Cell, ...]:
    if score.difference is None:
        return (EMPTY,) * 4
    return (
        Cell(f"{score.first:.{digits}f}", score.first, href),
        Cell(f"{score.second:.{digits}f}", score.second, href),
        Cell(_format_change(score.difference, digits), score.difference, href),
        Cell(_format_interval(score, digits), score.low),
    )


def _format_change(value: float, digits: int) -> str:
    """A number with its sign, and with a minus as wide as the plus."""
    text = f"{value:+,.{digits}f}"
    return text[1:] if not float(text.replace(",", "")) else text.replace("-", "−")


def _format_interval(score: ScoreDifference, digits: int) -> str:
    return (
        f"{_format_change(score.low or 0.0, digits)} to {_format_change(score.high or 0.0, digits)}"
    )


def build_groups(comparison: RunComparison, links: PairLinks) -> Section:
    """Errors by type, and recall by size."""
    titles = {"false": "false detections", **ERROR_TITLES, "missed": "missed objects"}
    errors = [
        Row(
            titles.get(row.name, row.name),
            (
                links.count("error", k),
                *_list_cells(row.difference, links.find("error", k), 0),
            ),
        )
        for k, row in enumerate(comparison.errors)
    ]
    sizes = [
        Row(
            row.name,
            (links.count("size", k), *_list_cells(row.difference, links.find("size", k))),
        )
        for k, row in enumerate(comparison.recall_by_size)
    ]
    bars = [
        _build_bar(
            titles.get(row.name, row.name),
            row.difference,
            links.find("error", k),
            0,
            is_good_up=False,
        )
        for k, row in enumerate(comparison.errors)
        if row.difference.difference is not None
    ]
    chart = Chart(
        "Difference in the number of errors",
        draw_changes("Errors", bars),
        "Green: fewer errors. Red: more. Grey: the interval holds zero.",
    )
    return Section(
        "errors",
        "Errors",
        "Errors and sizes",
        "Errors by TIDE's types, and recall by COCO's sizes of objects, at each run's best score.",
        charts=(chart,),
        tables=(
            Table("Errors by type", list_columns("type", _IMAGES, *_COLUMNS), tuple(errors)),
            Table("Recall by size", list_columns("size", _IMAGES, *_COLUMNS), tuple(sizes)),
        ),
    )


def build_confusion(comparison: RunComparison, links: PairLinks) -> Section:
    """The cells of the confusion matrix that changed."""
    rows = tuple(
        Row(
            f"{cell.object or 'nothing'} → {cell.detection or 'nothing'}",
            (
                links.count("cell", k),
                Cell(f"{cell.first:,}", cell.first, links.find("cell", k)),
                Cell(f"{cell.second:,}", cell.second, links.find("cell", k)),
                Cell(
                    _format_change(cell.second - cell.first, 0),
                    cell.second - cell.first,
                    links.find("cell", k),
                ),
            ),
        )
        for k, cell in enumerate(comparison.confusion[:MOST_CELLS])
    )
    columns = list_columns("object → detection", _IMAGES, "first", "second", "difference")
    return Section(
        "confusion",
        "Confusion",
        "Cells of the confusion matrix that changed",
        "The largest changes first. “Nothing” is the background.",
        tables=(Table("Confusion", columns, rows, is_sortable=True),) if rows else (),
    )


def build_settings(comparison: RunComparison, runs: ComparedRuns) -> Section:
    """What differs in the settings of the runs."""
    facts = [
        Fact("first run", uris.redact_uri(runs.first.uri)),
        Fact("second run", uris.redact_uri(runs.second.uri)),
        *(Fact("setting", line) for line in comparison.settings),
    ]
    if not comparison.settings:
        facts.append(Fact("settings", "nothing differs, or a run has no record"))
    return Section("settings", "Settings", "What differs in the settings", facts=tuple(facts))
