"""A look through the data before training: which images are usable, and the targets' statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, storage
from pipeline.detector.targets import TargetMoments, TargetStatistics
from pipeline.errors import UnreadableDataset
from pipeline.training.plan import ShardRows, generator
from pipeline.training.recipe import Recipe
from pipeline.training.source import Annotations, Source

SURVEYED_IMAGES = 5000
"""Images whose proposals are looked at: enough for the statistics, seconds of work."""
MIRRORED = np.array([-1, 1, 1, 1], np.float32)
"""Regression targets t_x, t_y, t_w, t_h of a mirrored image: only the shift in x changes its sign."""


@dataclass(frozen=True)
class Survey:
    """What training must know of its data before the first step."""

    shards: tuple[ShardRows, ...]
    """The rows to train on."""
    images: int
    """Images to train on."""
    objects: int
    """Objects in them that are no crowds."""
    statistics: TargetStatistics
    recall: float
    """Share of the objects looked at that a proposal overlaps by at least the foreground IoU."""


def candidates(proposals: NDArray[np.float32], recipe: Recipe) -> NDArray[np.float32]:
    """The proposals `(N, 4)` that a recipe samples from: large enough, the best of them."""
    sides = proposals[:, 2:] - proposals[:, :2]
    large = (sides > 0).all(axis=1) & (sides >= recipe.min_proposal_side).all(axis=1)
    return proposals[large][: recipe.max_proposals]


def survey(sources: Sequence[Source], recipe: Recipe, max_images: int = SURVEYED_IMAGES) -> Survey:
    """Stream the annotations once, and the proposals of up to `images` images.

    Raises:
        UnreadableDataset: no RoI of the images looked at is foreground.
    """
    usable: list[ShardRows] = []
    objects = 0
    for number, source in enumerate(sources):
        for ordinal in range(len(source.shard_rows)):
            found = source.read(ordinal, with_proposals=False).annotations
            rows = [row for row, known in enumerate(found) if _is_usable(known, recipe)]
            objects += sum(int((~known.crowd).sum()) for known in found if known is not None)
            usable.append(ShardRows(number, ordinal, np.array(rows, np.int32)))
    statistics, recall = _look_at_proposals(sources, usable, recipe, max_images)
    images = sum(len(shard.rows) for shard in usable)
    return Survey(tuple(usable), images, objects, statistics, recall)


def _is_usable(known: Annotations | None, recipe: Recipe) -> bool:
    if known is None:  # not annotated: what looks like background may be an object
        return False
    return recipe.use_empty_images or bool((~known.crowd).any())


def _look_at_proposals(
    sources: Sequence[Source], usable: Sequence[ShardRows], recipe: Recipe, max_images: int
) -> tuple[TargetStatistics, float]:
    moments = TargetMoments(len(sources[0].classes))
    covered = seen = looked_at = 0
    for index in generator("survey").permutation(len(usable)):
        shard = usable[index]
        part = sources[shard.source].read(shard.shard)
        for row in shard.rows:
            known = part.annotations[row]
            if known is None or known.crowd.all():
                continue
            boxes, labels = known.boxes[~known.crowd], known.labels[~known.crowd]
            proposals = candidates(part.proposals[row], recipe)
            overlaps = geometry.iou(np.concatenate([proposals, boxes]), boxes)
            best, match = overlaps.max(axis=1), overlaps.argmax(axis=1)
            foreground = np.flatnonzero(best >= recipe.foreground_iou)
            rois = np.concatenate([proposals, boxes])[foreground]
            targets = geometry.encode(boxes[match[foreground]], rois)
            moments.add(targets, labels[match[foreground]])
            if recipe.flip > 0:  # as the mirrored image would have it
                moments.add(targets * MIRRORED, labels[match[foreground]])
            if len(proposals):
                reached = overlaps[: len(proposals)].max(axis=0) >= recipe.foreground_iou
                covered += int(reached.sum())
            seen += len(boxes)
            looked_at += 1
        if looked_at >= max_images:
            break
    if not moments.counts.any():
        raise UnreadableDataset(
            f"none of {looked_at} images of {_named(sources)} has a foreground RoI: their {seen} "
            f"objects have no area, or none reaches an IoU of {recipe.foreground_iou} with itself"
        )
    return moments.statistics(), covered / max(seen, 1)


def _named(sources: Sequence[Source]) -> str:
    return ", ".join(storage.shown(source.manifest.uri) for source in sources)
