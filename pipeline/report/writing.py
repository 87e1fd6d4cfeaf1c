"""Writes the report: `write_report(output, metrics, sources) -> ReportSummary`.

Two passes over the shards, here or in the tasks of an executor, count the galleries and make thumbnails; the
pages are rendered and put at the end, so that index.html exists only if all that it links to does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline import __version__, schema, uris
from pipeline.analysis.executor import Executor, InProcess
from pipeline.analysis.slices import list_attributes
from pipeline.report.building import build_galleries
from pipeline.report.class_page import render_class_page
from pipeline.report.collecting import GalleryCollector, GallerySample
from pipeline.report.context import ReportContext, find_value
from pipeline.report.gallery import Gallery
from pipeline.report.index_page import render_index
from pipeline.report.job_progress import JobProgress, read_job_progress
from pipeline.report.overview_sections import name_class_page
from pipeline.report.pages import INDEX_NAME, put_pages
from pipeline.report.plan import GalleryPlan
from pipeline.report.provenance import Provenance, collect_provenance
from pipeline.report.rendering import read_assets, render_gallery
from pipeline.report.shard_steps import ReportSources, collect_shards, draw_shards
from pipeline.report.sharing import plan_requests, share_images
from pipeline.report.suspects import list_suspects
from pipeline.report.thumbnails import DrawnImage, ImageRequest

REPORT_FOLDER = "report"
DEFAULT_MIN_SCORE = 0.5
"""Lowest score of the detections that count if no score is best for F1."""
_GROUPS = 64
"""Groups of shards in each pass."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class ReportOptions:
    """How a report is made."""

    images: int = 2000
    """The most thumbnails."""
    seed: int = 0
    """Of the samples."""


@dataclass(frozen=True)
class ReportSummary:
    """What was written."""

    uri: str
    """The report's first page."""
    galleries: int
    thumbnails: int
    unreadable: int
    """Images that galleries show as a grey tile."""


def write_report(
    output: str,
    metrics: Mapping[str, Any],
    sources: ReportSources,
    *,
    executor: Executor | None = None,
    options: ReportOptions = ReportOptions(),
) -> ReportSummary:
    """Write the report of a detection run into `OUTPUT/report/`.

    Args:
        output: the folder of metrics.json; any fsspec URI.
        metrics: the content of metrics.json.
        sources: matches, detections and manifest.
        executor: does the passes over the shards; here, one after the other, if there is none.
        options: the number of images, and the seed of the samples.

    Raises:
        StorageError: the report cannot be written, or a part cannot be read.
        UnreadableDataset: a part is damaged.
    """
    executor = executor or InProcess()
    report = uris.join(output, REPORT_FOLDER)
    plan = plan_galleries(metrics, sources, options)
    suspects, listed = list_suspects(metrics.get("annotation_errors"), sources.matches.shards)
    samples = [*suspects, *_count_galleries(sources, plan, executor)]
    shown = share_images(samples, options.images)
    boxes = {place: suspect.boxes for place, suspect in listed.items()}
    requests = plan_requests(samples, shown, boxes)
    drawn = _draw_images(report, sources, requests, executor)
    galleries = build_galleries(samples, shown, drawn, listed, plan.min_score)
    provenance = collect_provenance(sources.detections.uri, sources.manifest.uri)
    progress = _read_progress(sources.detections.uri, provenance)
    context = ReportContext(metrics, plan, galleries, provenance, progress)
    paths = {t.path for i in drawn.values() for t in i.thumbnails.values() if t.path is not None}
    put_pages(report, _render_pages(context), paths)
    return ReportSummary(
        uris.join(report, INDEX_NAME),
        len(galleries),
        len(paths),
        sum(any(t.path is None for t in image.thumbnails.values()) for image in drawn.values()),
    )


def plan_galleries(
    metrics: Mapping[str, Any], sources: ReportSources, options: ReportOptions
) -> GalleryPlan:
    """Decide the galleries: the labels, and the score that is best for F1."""
    scores = (
        find_value(metrics, "confusion", "score"),
        find_value(metrics, "operating_points", "overall", "best", "score"),
    )
    iou = find_value(metrics, "confusion", "iou")
    return GalleryPlan(
        classes=_list_classes(metrics, sources),
        min_score=float(next((s for s in scores if s is not None), DEFAULT_MIN_SCORE)),
        seed=options.seed,
        failure_reasons=tuple(sorted(metrics.get("failed_by_reason") or {})),
        is_annotated=int(metrics.get("images") or 0) > int(metrics.get("unlabelled") or 0),
        has_proposals=find_value(metrics, "misses", "overall", "missed_by_proposals") is not None,
        attributes=tuple(list_attributes(sources.side)),
        confusion_iou=0.5 if iou is None else float(iou),
    )


def _list_classes(metrics: Mapping[str, Any], sources: ReportSources) -> tuple[str, ...]:
    """The scored classes, then others of the manifest and of the detector."""
    scored = [row["label"] for row in metrics.get("per_class") or ()]
    detections = sources.detections
    detected = schema.read_classes(detections.read_schema(), detections.uri) or ()
    return tuple(dict.fromkeys([*scored, *(sources.manifest.classes or ()), *detected]))


def _read_progress(detections: str, provenance: Provenance) -> tuple[JobProgress, ...]:
    """The progress of the runs that made the checkpoint, the proposals and the detections."""
    facts = provenance.facts
    places = (
        ("train", facts.get("checkpoint")),
        ("propose", facts.get("proposals")),
        ("detect", detections),
    )
    progress = (read_job_progress(job, place) for job, place in places if place)
    return tuple(one for one in progress if one is not None)


def _count_galleries(
    sources: ReportSources, plan: GalleryPlan, executor: Executor
) -> list[GallerySample]:
    detections = {shard.ordinal: shard for shard in sources.detections.shards}
    pairs = [(shard, detections[shard.ordinal]) for shard in sources.matches.shards]
    shared = executor.share(sources.drop_shards())
    calls = ((shared, plan, group) for group in _divide(pairs))
    whole: GalleryCollector = executor.reduce(collect_shards, calls, _merge_collectors)
    return whole.compute()


def _merge_collectors(first: GalleryCollector, second: GalleryCollector) -> GalleryCollector:
    first.merge(second)
    return first


def _draw_images(
    report: str,
    sources: ReportSources,
    requests: Mapping[int, Sequence[ImageRequest]],
    executor: Executor,
) -> dict[int, DrawnImage]:
    """Draw the chosen images, and return them by their row in the manifest."""
    chosen = [(s, requests[s.ordinal]) for s in sources.matches.shards if s.ordinal in requests]
    handles = [
        handle
        for group in _divide(chosen)
        for handle in executor.submit(draw_shards, sources.drop_shards(), report, group)
    ]
    drawn = (image for handle in handles for image in executor.collect([handle])[0])
    return {image.row: image for image in drawn}


def _divide(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Groups of consecutive items, of nearly equal size."""
    size = max(1, -(-len(items) // _GROUPS))
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _render_pages(context: ReportContext) -> Iterator[tuple[str, bytes]]:
    """Yield the address and the content of every page, the index last."""
    yield from read_assets().items()
    footer = f"fast-rcnn-pipeline {__version__}, seed {context.plan.seed}."
    for gallery in context.galleries.values():
        content = render_gallery(
            gallery,
            crumbs=_list_crumbs(gallery, context.plan),
            seed=context.plan.seed,
            footer=footer,
            is_annotated=context.plan.is_annotated,
        )
        yield gallery.address, content
    for class_id in range(len(context.plan.classes)):
        yield name_class_page(class_id), render_class_page(context, class_id, footer)
    yield INDEX_NAME, render_index(context, footer)


def _list_crumbs(gallery: Gallery, plan: GalleryPlan) -> list[tuple[str, str]]:
    """The pages above a gallery."""
    first, _, rest = gallery.key.partition("-")
    if first != "class":
        return []
    class_id = int(rest.partition("-")[0])
    return [(plan.classes[class_id], name_class_page(class_id))]
