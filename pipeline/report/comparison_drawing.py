"""The images that two runs differ on, with what is drawn on them for each run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.analysis.manifest_join import JoinedBatch
from pipeline.analysis.match_table import build_matches
from pipeline.manifests import Manifest
from pipeline.report.drawing import ImageBoxes, read_image_boxes
from pipeline.report.gallery import GalleryItem
from pipeline.report.thumbnails import ImageRequest, make_thumbnails
from pipeline.shards import Parts

_WHOLE_IMAGE = -1


@dataclass(frozen=True)
class ComparedRuns:
    """Two runs over the same images."""

    first: Parts
    second: Parts
    manifest: Manifest
    classes: tuple[str, ...]
    scores: tuple[float, float]
    """The lowest score of the detections that are drawn, of each run."""


ItemPair = tuple[GalleryItem, GalleryItem]
"""One image as the first run and as the second run detect it."""


def draw_pairs(report: str, runs: ComparedRuns, rows: Sequence[int]) -> dict[int, ItemPair]:
    """Put thumbnails of some images into the report, and return what to draw, by their row.

    Args:
        report: the report's folder.
        runs: both runs.
        rows: the images' rows in the manifest.
    """
    pairs = {}
    tables = [_match_images(run, runs, rows) for run in (runs.first, runs.second)]
    for row in rows:
        manifest_row = runs.manifest.read(row, 1, ["image_id", "uri", "width", "height"])
        (image,) = make_thumbnails(
            report,
            [ImageRequest(row, (_WHOLE_IMAGE,))],
            matches=tables[0][row],
            manifest_rows=manifest_row,
            first_row=row,
            decoding=runs.manifest.decoding,
        )
        boxes: list[ImageBoxes] = [read_image_boxes(table[row], [row])[row] for table in tables]
        first, second = (
            GalleryItem(
                image.image_id,
                image.uri,
                row,
                own.draw(_WHOLE_IMAGE, score),
                image.thumbnails[_WHOLE_IMAGE],
            )
            for own, score in zip(boxes, runs.scores, strict=True)
        )
        pairs[row] = first, second
    return pairs


def _match_images(run: Parts, runs: ComparedRuns, rows: Sequence[int]) -> dict[int, pa.Table]:
    """The matches of some images, by their row; each part is read once."""
    starts = [shard.first_row for shard in run.shards]
    by_shard: dict[int, list[int]] = {}
    for row in sorted(rows):
        by_shard.setdefault(bisect_right(starts, row) - 1, []).append(row)
    tables = {}
    for place, own_rows in by_shard.items():
        shard = run.shards[place]
        results = run.read(shard, ["image_id", "detections"])
        for row in own_rows:
            batch = JoinedBatch(
                row,
                results.slice(row - shard.first_row, 1),
                runs.manifest.read(row, 1, ["image_id", "uri", "width", "height", "objects"]),
            )
            tables[row] = build_matches(batch, runs.classes, shard.ordinal)
    return tables
