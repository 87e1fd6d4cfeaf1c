"""The report's first page."""

from __future__ import annotations

from pipeline.report.confusion_section import build_confusion
from pipeline.report.context import ReportContext
from pipeline.report.curve_section import build_curves
from pipeline.report.error_sections import (
    build_calibration,
    build_errors,
    build_misses,
)
from pipeline.report.excluded_section import build_excluded
from pipeline.report.overview_sections import (
    build_classes,
    build_overview,
    build_sizes,
)
from pipeline.report.rendering import render_page
from pipeline.report.run_sections import build_images, build_provenance, build_times
from pipeline.report.slice_sections import (
    build_annotation_errors,
    build_distributions,
    build_slices,
)
from pipeline.report.throughput_section import build_throughput
from pipeline.report.views import drop_empty

_BUILDERS = (
    build_overview,
    build_excluded,
    build_images,
    build_classes,
    build_curves,
    build_errors,
    build_confusion,
    build_sizes,
    build_slices,
    build_misses,
    build_annotation_errors,
    build_calibration,
    build_distributions,
    build_times,
    build_throughput,
    build_provenance,
)
"""The sections in their order."""


def render_index(context: ReportContext, footer: str) -> bytes:
    """Render the index; sections without content are left out."""
    images = context.links.get_total("images")
    detections = context.links.get_total("detections")
    objects = context.links.get_total("objects")
    lead = f"{detections:,} detections in {images:,} images"
    if context.plan.is_annotated:
        lead += f", compared with {objects:,} annotated objects"
    return render_page(
        "index.html",
        "",
        title="Detection report",
        kicker=context.provenance.facts.get("manifest", ""),
        lead=f"{lead}. Every count leads to the images behind it.",
        sections=drop_empty([build(context) for build in _BUILDERS]),
        footer=footer,
    )
