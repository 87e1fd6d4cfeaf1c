"""The report of a comparison: `write_comparison_report(output, comparison, runs)`."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import __version__, storage, uris
from pipeline.analysis.comparison import ImageChange, RunComparison
from pipeline.analysis.paired_figures import ScoreDifference
from pipeline.report.cells import EMPTY, Cell
from pipeline.report.change_charts import ChangeBar, draw_changes
from pipeline.report.comparison_drawing import ComparedRuns, ItemPair, draw_pairs
from pipeline.report.figures import build_figure
from pipeline.report.rendering import LEGEND, read_assets, render_page
from pipeline.report.splits import ERROR_TITLES
from pipeline.report.views import (
    Card,
    Chart,
    Fact,
    Pair,
    PairStrip,
    Row,
    Section,
    Table,
    drop_empty,
    list_columns,
)

REPORT_FOLDER = "comparison"
INDEX_NAME = "index.html"
_SHOWN = 2
_MOST_CLASSES = 40
_COLUMNS = ("first", "second", "difference", "95 % interval")


def write_comparison_report(
    output: str, comparison: RunComparison, runs: ComparedRuns, images: int = 200
) -> str:
    """Write the report of a comparison into `OUTPUT/comparison/`.

    Args:
        output: the folder of comparison.json; any fsspec URI.
        comparison: the result.
        runs: both runs, whose images are drawn.
        images: the most images; half of them got better, half worse.

    Returns:
        The URI of the first page.

    Raises:
        StorageError: the report cannot be written.
    """
    report = uris.join(output, REPORT_FOLDER)
    changes = {
        "better": comparison.better[: images // 2],
        "worse": comparison.worse[: images // 2],
    }
    rows = sorted({change.row for listed in changes.values() for change in listed})
    drawn = draw_pairs(report, runs, rows)
    pairs = {key: _build_pairs(listed, drawn) for key, listed in changes.items()}
    footer = f"fast-rcnn-pipeline {__version__}, seed {comparison.seed}."
    for name, data in read_assets().items():
        storage.put(uris.join(report, name), data)
    for key, total in _count_changes(comparison).items():
        page = render_page(
            "pairs.html",
            "../",
            title=_TITLES[key],
            total=total,
            pairs=pairs[key],
            legend=LEGEND,
            footer=footer,
        )
        storage.put(uris.join(report, _name_page(key)), page)
    index = uris.join(report, INDEX_NAME)
    storage.put(index, _render_index(comparison, runs, pairs, footer))
    return index


_TITLES = {"better": "Images that got better", "worse": "Images that got worse"}


_MEANINGS = {"better": "fewer errors", "worse": "more errors"}


def _name_page(key: str) -> str:
    return f"galleries/{key}.html"


def _count_changes(comparison: RunComparison) -> dict[str, int]:
    return {"better": comparison.images_better, "worse": comparison.images_worse}


def _build_pairs(changes: Sequence[ImageChange], drawn: dict[int, ItemPair]) -> tuple[Pair, ...]:
    return tuple(
        Pair(
            f"{change.first} → {change.second} errors",
            *(build_figure(item) for item in drawn[change.row]),
        )
        for change in changes
    )


def _render_index(
    comparison: RunComparison,
    runs: ComparedRuns,
    pairs: dict[str, tuple[Pair, ...]],
    footer: str,
) -> bytes:
    sections = [
        _build_overview(comparison),
        _build_images(comparison, pairs),
        _build_classes(comparison),
        _build_groups(comparison),
        _build_confusion(comparison),
        _build_settings(comparison, runs),
    ]
    first, second = (uris.redact_uri(run.uri) for run in (runs.first, runs.second))
    return render_page(
        "index.html",
        "",
        title="Comparison of two runs",
        kicker=uris.redact_uri(runs.manifest.uri),
        lead=f"{second} (second) against {first} (first), over {comparison.images:,} annotated images. "
        "A difference is the second minus the first; its interval contains 95 % of the differences over "
        f"{comparison.resamples:,} resamples of the images, both runs on the same draw.",
        sections=drop_empty(sections),
        footer=footer,
    )


def _build_overview(comparison: RunComparison) -> Section:
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
            Cell(f"{score.difference:+.3f}", score.difference),
            f"{score.first:.3f} → {score.second:.3f}",
            name == "COCO AP",
            f"95 %: {score.low:+.3f} – {score.high:+.3f}",
        )
        for name, score in names
        if score.difference is not None
    ]
    cards += [
        Card(
            _TITLES[key],
            Cell(f"{total:,}", total, _name_page(key), total),
            "fewer errors" if key == "better" else "more errors",
        )
        for key, total in _count_changes(comparison).items()
    ]
    return Section("overview", "Overview", "Overview", notes=comparison.notes, cards=tuple(cards))


def _build_images(comparison: RunComparison, pairs: dict[str, tuple[Pair, ...]]) -> Section:
    totals = _count_changes(comparison)
    strips = tuple(
        PairStrip(_TITLES[key], totals[key], _name_page(key), shown[:_SHOWN])
        for key, shown in pairs.items()
        if shown
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


def _build_classes(comparison: RunComparison) -> Section:
    rows = [
        Row(
            row.label,
            (
                Cell(f"{row.objects:,}", row.objects),
                *_list_cells(row.coco_ap),
                *_list_cells(row.ap11),
            ),
        )
        for row in comparison.per_class
    ]
    columns = list_columns(
        "class",
        "objects",
        *(f"AP {name}" for name in _COLUMNS),
        *(f"AP11 {name}" for name in _COLUMNS),
    )
    chosen = sorted(
        (row for row in comparison.per_class if row.coco_ap.difference is not None),
        key=lambda row: -abs(row.coco_ap.difference or 0.0),
    )[:_MOST_CLASSES]
    bars = [_build_bar(row.label, row.coco_ap) for row in chosen]
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
    name: str, score: ScoreDifference, digits: int = 3, is_good_up: bool = True
) -> ChangeBar:
    values = (score.difference or 0.0, score.low or 0.0, score.high or 0.0)
    return ChangeBar(name, *values, text=f"{values[0]:+.{digits}f}", is_good_up=is_good_up)


def _list_cells(score: ScoreDifference, digits: int = 3) -> tuple[Cell, ...]:
    if score.difference is None:
        return (EMPTY,) * 4
    return (
        Cell(f"{score.first:.{digits}f}", score.first),
        Cell(f"{score.second:.{digits}f}", score.second),
        Cell(f"{score.difference:+.{digits}f}", score.difference),
        Cell(f"{score.low:+.{digits}f} to {score.high:+.{digits}f}", score.low),
    )


def _build_groups(comparison: RunComparison) -> Section:
    titles = {"false": "false detections", "missed": "missed objects", **ERROR_TITLES}
    titles["missed"] = "missed objects"
    errors = [
        Row(titles.get(row.name, row.name), _list_cells(row.difference, 0))
        for row in comparison.errors
    ]
    sizes = [Row(row.name, _list_cells(row.difference)) for row in comparison.recall_by_size]
    bars = [
        _build_bar(titles.get(row.name, row.name), row.difference, 0, is_good_up=False)
        for row in comparison.errors
        if row.difference.difference is not None
    ]
    return Section(
        "errors",
        "Errors",
        "Errors and sizes",
        "Errors by TIDE's types, and recall by COCO's sizes of objects, at each run's best score.",
        charts=(Chart("Difference in the number of errors", draw_changes("Errors", bars)),),
        tables=(
            Table("Errors by type", list_columns("type", *_COLUMNS), tuple(errors)),
            Table("Recall by size", list_columns("size", *_COLUMNS), tuple(sizes)),
        ),
    )


def _build_confusion(comparison: RunComparison) -> Section:
    rows = tuple(
        Row(
            f"{cell.object or 'nothing'} → {cell.detection or 'nothing'}",
            (
                Cell(f"{cell.first:,}", cell.first),
                Cell(f"{cell.second:,}", cell.second),
                Cell(f"{cell.second - cell.first:+,}", cell.second - cell.first),
            ),
        )
        for cell in comparison.confusion[:60]
    )
    columns = list_columns("object → detection", "first", "second", "difference")
    return Section(
        "confusion",
        "Confusion",
        "Cells of the confusion matrix that changed",
        "The largest changes first. “Nothing” is the background.",
        tables=(Table("Confusion", columns, rows, is_sortable=True),) if rows else (),
    )


def _build_settings(comparison: RunComparison, runs: ComparedRuns) -> Section:
    facts = [
        Fact("first run", uris.redact_uri(runs.first.uri)),
        Fact("second run", uris.redact_uri(runs.second.uri)),
        *(Fact("setting", line) for line in comparison.settings),
    ]
    if not comparison.settings:
        facts.append(Fact("settings", "nothing differs, or a run has no record"))
    return Section("settings", "Settings", "What differs in the settings", facts=tuple(facts))
