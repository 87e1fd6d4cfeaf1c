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
from pipeline.report.thumbnails import DrawnImage, ImageRequest, make_thumbnails
from pipeline.shards import Parts, Shard

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
        rows: the images' rows in the manifest, in their order.
    """
    pairs: dict[int, ItemPair] = {}
    for _, own in _group_rows(runs.first, rows):
        images = runs.manifest.read(
            own[0], own[-1] - own[0] + 1, [*runs.manifest.image_columns, "objects"]
        )
        tables = [_match_images(run, runs, images, own) for run in (runs.first, runs.second)]
        drawn = make_thumbnails(
            report,
            [ImageRequest(row, (_WHOLE_IMAGE,)) for row in own],
            matches=tables[0],
            manifest_rows=images,
            first_row=own[0],
            decoding=runs.manifest.decoding,
        )
        boxes = [read_image_boxes(table, own) for table in tables]
        for image in drawn:
            pairs[image.row] = _build_pair(image, boxes, runs.scores)
    return pairs


def _build_pair(
    image: DrawnImage, boxes: Sequence[dict[int, ImageBoxes]], scores: tuple[float, float]
) -> ItemPair:
    first, second = (
        GalleryItem(
            image.image_id,
            image.uri,
            image.row,
            own[image.row].draw(_WHOLE_IMAGE, score),
            image.thumbnails[_WHOLE_IMAGE],
        )
        for own, score in zip(boxes, scores, strict=True)
    )
    return first, second


def _group_rows(run: Parts, rows: Sequence[int]) -> list[tuple[Shard, list[int]]]:
    """The rows of each shard that has any."""
    starts = [shard.first_row for shard in run.shards]
    groups: dict[int, list[int]] = {}
    for row in sorted(rows):
        groups.setdefault(bisect_right(starts, row) - 1, []).append(row)
    return [(run.shards[place], own) for place, own in groups.items()]


def _match_images(
    run: Parts, runs: ComparedRuns, images: pa.Table, rows: Sequence[int]
) -> pa.Table:
    """The matches of some images of one run.

    Args:
        run: one of the runs; its shards may be others than those that the rows come from.
        runs: both.
        images: consecutive rows of the manifest, from the first of `rows` on.
        rows: the images.
    """
    tables = []
    for shard, own in _group_rows(run, rows):
        results = run.read(shard, ["image_id", "detections"])
        for row in own:
            batch = JoinedBatch(
                row,
                results.slice(row - shard.first_row, 1),
                images.slice(row - rows[0], 1),
            )
            tables.append(build_matches(batch, runs.classes, shard.ordinal))
    return pa.concat_tables(tables)
