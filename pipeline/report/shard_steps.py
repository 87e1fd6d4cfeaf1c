"""The two passes over shards that a report makes, as functions that an executor does here or in Ray tasks.

The first counts and samples the galleries. The second looks up what is drawn on the chosen images and puts
their thumbnails into the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.analysis.image_facts import read_image_facts
from pipeline.analysis.side_table import SideTable
from pipeline.manifests import Manifest
from pipeline.report.collecting import RESULT_COLUMNS, GalleryCollector
from pipeline.report.drawing import DRAWN_COLUMNS
from pipeline.report.match_rows import COLUMNS
from pipeline.report.plan import GalleryPlan
from pipeline.report.thumbnails import DrawnImage, ImageRequest, make_thumbnails
from pipeline.shards import Parts, Shard


@dataclass(frozen=True)
class ReportSources:
    """What a report is made from; no rows are in memory."""

    matches: Parts
    detections: Parts
    """With the shards of `matches`, and maybe others."""
    manifest: Manifest
    side: SideTable | None = None
    """Whose columns divide the images into slices."""
    excluded: tuple[int, ...] = ()
    """Rows of the manifest without which the metrics are stated, too."""

    def drop_shards(self) -> ReportSources:
        """The same without lists of shards, which would be large for a task that reads a few of them."""
        return replace(
            self,
            matches=replace(self.matches, shards=()),
            detections=replace(self.detections, shards=()),
        )


def collect_shards(
    sources: ReportSources, plan: GalleryPlan, shards: Sequence[tuple[Shard, Shard]]
) -> GalleryCollector:
    """Count and sample the galleries over some shards.

    Args:
        sources: the report's.
        plan: which galleries there are.
        shards: each shard of the matches with that of the detections.
    """
    collector = GalleryCollector(plan)
    for of_matches, of_detections in shards:
        matches = sources.matches.read(of_matches, COLUMNS)
        results = sources.detections.read(of_detections, RESULT_COLUMNS)
        sizes = sources.manifest.read(of_matches.first_row, of_matches.rows, ["width", "height"])
        facts = read_image_facts(results, of_matches.first_row, sizes)
        collector.update(matches, results, facts, of_matches.ordinal, sources.side)
        collector.count_excluded(results, sources.excluded, of_matches)
    collector.shrink()
    return collector


def draw_shards(
    sources: ReportSources,
    report: str,
    requests: Sequence[tuple[Shard, Sequence[ImageRequest]]],
) -> list[DrawnImage]:
    """Put thumbnails of the chosen images of some shards into the report.

    Args:
        sources: the report's.
        report: the report's folder.
        requests: shards of the matches with the images to draw.
    """
    drawn = []
    for shard, images in requests:
        first = min(request.row for request in images)
        count = max(request.row for request in images) - first + 1
        rows = sources.manifest.read(first, count, sources.manifest.image_columns)
        matches = sources.matches.read(shard, DRAWN_COLUMNS)
        drawn += make_thumbnails(
            report,
            images,
            matches=matches,
            manifest_rows=rows,
            first_row=first,
            decoding=sources.manifest.decoding,
        )
    return drawn
