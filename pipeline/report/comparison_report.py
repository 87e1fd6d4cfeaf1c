"""The report of a comparison: `write_comparison_report(output, comparison, runs)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline import __version__, uris
from pipeline.analysis.run_comparison import RunComparison
from pipeline.report.comparison_drawing import ComparedRuns, ItemPair, draw_pairs
from pipeline.report.comparison_pages import (
    PairLinks,
    PairPage,
    choose_rows,
    list_pages,
    render_pages,
)
from pipeline.report.comparison_sections import (
    build_classes,
    build_confusion,
    build_groups,
    build_images,
    build_overview,
    build_settings,
)
from pipeline.report.pages import INDEX_NAME, put_pages
from pipeline.report.rendering import read_assets, render_page
from pipeline.report.views import drop_empty

REPORT_FOLDER = "comparison"


def write_comparison_report(
    output: str, comparison: RunComparison, runs: ComparedRuns, images: int = 1000
) -> str:
    """Write the report of a comparison into `OUTPUT/comparison/`.

    Args:
        output: the folder of comparison.json; any fsspec URI.
        comparison: the result.
        runs: both runs, whose images are drawn.
        images: the most images.

    Returns:
        The URI of the first page.

    Raises:
        StorageError: the report cannot be written.
    """
    report = uris.join(output, REPORT_FOLDER)
    pages = list_pages(comparison)
    drawn = draw_pairs(report, runs, choose_rows(pages, images))
    footer = f"fast-rcnn-pipeline {__version__}, seed {comparison.seed}."
    index = _render_index(comparison, runs, pages, drawn, footer)
    thumbnails = {
        item.thumbnail.path
        for pair in drawn.values()
        for item in pair
        if item.thumbnail is not None and item.thumbnail.path is not None
    }
    put_pages(report, _render_all(pages, drawn, footer, index), thumbnails)
    return uris.join(report, INDEX_NAME)


def _render_all(
    pages: Sequence[PairPage], drawn: Mapping[int, ItemPair], footer: str, index: bytes
) -> Iterator[tuple[str, bytes]]:
    yield from read_assets().items()
    yield from render_pages(pages, drawn, footer)
    yield INDEX_NAME, index


def _render_index(
    comparison: RunComparison,
    runs: ComparedRuns,
    pages: Sequence[PairPage],
    drawn: Mapping[int, ItemPair],
    footer: str,
) -> bytes:
    links = PairLinks(pages)
    sections = [
        build_overview(comparison, pages[:2]),
        build_images(comparison, pages[:2], drawn),
        build_classes(comparison, links),
        build_groups(comparison, links),
        build_confusion(comparison, links),
        build_settings(comparison, runs),
    ]
    first, second = (uris.redact_uri(run.uri) for run in (runs.first, runs.second))
    return render_page(
        "index.html",
        "",
        title="Comparison of two runs",
        kicker=uris.redact_uri(runs.manifest.uri),
        lead=f"{second} (second) against {first} (first), over {comparison.images:,} annotated images. "
        "A difference is the second minus the first; its interval contains 95 % of the differences over "
        f"{comparison.resamples:,} resamples of the images, both runs on the same draw. Numbers lead to the "
        "images that differ, both runs side by side.",
        sections=drop_empty(sections),
        footer=footer,
    )
