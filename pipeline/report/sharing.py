"""Shares the report's number of images out among its galleries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from pipeline.report.collecting import GallerySample
from pipeline.report.gallery import DrawnBox
from pipeline.report.thumbnails import ImageRequest

_LISTED_WITHOUT_IMAGE = 12
"""Rows that a gallery lists if there are no images left for it."""


def share_images(galleries: Sequence[GallerySample], images: int) -> list[int]:
    """Choose how many items each gallery shows.

    The galleries take turns, each taking as many as its weight, until the thumbnails are used up. A row that
    another gallery shows already costs nothing.

    Args:
        galleries: with samples in the order in which items are taken.
        images: the most thumbnails.

    Returns:
        The number of items of each gallery; 0 if no thumbnail is left for it.
    """
    rows = [_list_thumbnails(gallery) for gallery in galleries]
    shown = [0] * len(galleries)
    used: set[tuple[int, int]] = set()
    waiting = [index for index, candidates in enumerate(rows) if candidates]
    while waiting:
        still_waiting = []
        for index in waiting:
            end = min(shown[index] + galleries[index].weight, len(rows[index]))
            new = {row for row in rows[index][shown[index] : end] if row not in used}
            if len(used) + len(new) > images:
                continue  # and no more turns for this gallery
            used |= new
            shown[index] = end
            if end < len(rows[index]):
                still_waiting.append(index)
        waiting = still_waiting
    return shown


def _list_thumbnails(gallery: GallerySample) -> list[tuple[int, int]]:
    """What decides the thumbnail of each row: the image, and the position if it may be cropped."""
    references = gallery.sample.references.tolist()
    return [(row, -1 if is_whole else position) for _, row, position, is_whole in references]


def count_listed(gallery: GallerySample, shown: int) -> int:
    """The items of a gallery's page: those with a thumbnail, or a few without one."""
    return shown or min(_LISTED_WITHOUT_IMAGE, len(gallery.sample.references))


def plan_requests(
    galleries: Sequence[GallerySample],
    shown: Sequence[int],
    listed: Mapping[tuple[int, int], Sequence[DrawnBox]],
) -> dict[int, list[ImageRequest]]:
    """List what is to be drawn, by the ordinal of the shard.

    Args:
        galleries: all galleries.
        shown: the number of items with thumbnails of each.
        listed: boxes at positions that are no rows, by the image's row and the position.
    """
    positions: dict[tuple[int, int], set[int]] = defaultdict(set)
    drawn: dict[tuple[int, int], set[int]] = defaultdict(set)
    for gallery, count in zip(galleries, shown, strict=True):
        references = gallery.sample.references[: count_listed(gallery, count)].tolist()
        for shard, row, position, _ in references:
            (drawn if count else positions)[shard, row].add(position)
    requests: dict[int, list[ImageRequest]] = defaultdict(list)
    for shard, row in sorted(positions.keys() | drawn.keys()):
        chosen = drawn.get((shard, row), set())
        boxes = {p: tuple(listed[row, p]) for p in chosen if (row, p) in listed}
        requests[shard].append(ImageRequest(row, tuple(sorted(chosen)), bool(chosen), boxes))
    return dict(requests)
