"""A survey of the datasets before training: which images are usable, and the targets' statistics."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry, uris
from pipeline.detector.targets import TargetMoments, TargetStatistics
from pipeline.errors import UnreadableDataset
from pipeline.training.annotated_dataset import AnnotatedDataset, Annotations
from pipeline.training.recipe import Recipe
from pipeline.training.sample_order import ShardRows, make_generator

SURVEYED_IMAGES = 5000
"""Images whose proposals the survey reads: enough for the statistics, within seconds."""
MIRRORED = np.array([-1, 1, 1, 1], np.float32)
"""Regression targets t_x, t_y, t_w, t_h of a mirrored image: only the shift in x changes its sign."""


@dataclass(frozen=True)
class Survey:
    """What training must know of its datasets before the first step."""

    shards: tuple[ShardRows, ...]
    """The rows to train on."""
    images: int
    """Images to train on."""
    objects: int
    """Objects in them, crowds left out."""
    statistics: TargetStatistics
    recall: float
    """Share of the surveyed objects that a proposal overlaps by at least the foreground IoU."""
    annotations: str
    """Digest of all annotations: a training must not resume over others."""


def select_candidates(proposals: NDArray[np.float32], recipe: Recipe) -> NDArray[np.float32]:
    """The proposals `(N, 4)` that a recipe samples from: the best of those that are large enough."""
    sides = proposals[:, 2:] - proposals[:, :2]
    large = (sides > 0).all(axis=1) & (sides >= recipe.min_proposal_side).all(axis=1)
    return proposals[large][: recipe.max_proposals]


def survey_datasets(
    datasets: Sequence[AnnotatedDataset], recipe: Recipe, max_images: int = SURVEYED_IMAGES
) -> Survey:
    """Stream the annotations once, and the proposals of up to `max_images` images.

    Raises:
        UnreadableDataset: no RoI of the surveyed images is foreground.
    """
    usable: list[ShardRows] = []
    objects = 0
    digest = hashlib.sha256()
    for number, dataset in enumerate(datasets):
        for ordinal in range(len(dataset.shard_rows)):
            annotations = dataset.read(ordinal, with_proposals=False).annotations
            rows = [row for row, image in enumerate(annotations) if _is_usable(image, recipe)]
            objects += sum(int((~image.crowd).sum()) for image in annotations if image is not None)
            usable.append(ShardRows(number, ordinal, np.array(rows, np.int32)))
            for image in annotations:
                _add_to_digest(digest, image)
    statistics, recall = _survey_proposals(datasets, usable, recipe, max_images)
    images = sum(len(shard.rows) for shard in usable)
    return Survey(tuple(usable), images, objects, statistics, recall, digest.hexdigest())


def _add_to_digest(digest: hashlib._Hash, annotations: Annotations | None) -> None:
    """Add one image's objects; the counts keep images apart, and an image without annotations is none."""
    digest.update(struct.pack("<q", -1 if annotations is None else len(annotations.boxes)))
    if annotations is not None:
        for values in (annotations.boxes, annotations.labels, annotations.crowd):
            digest.update(np.ascontiguousarray(values).tobytes())


def _is_usable(annotations: Annotations | None, recipe: Recipe) -> bool:
    if annotations is None:  # not annotated: what looks like background may be an object
        return False
    return recipe.use_empty_images or bool((~annotations.crowd).any())


def _survey_proposals(
    datasets: Sequence[AnnotatedDataset],
    usable: Sequence[ShardRows],
    recipe: Recipe,
    max_images: int,
) -> tuple[TargetStatistics, float]:
    """Statistics of the foreground's targets, and the recall of the proposals."""
    moments = TargetMoments(len(datasets[0].classes))
    covered = objects = images = 0
    for index in make_generator("survey").permutation(len(usable)):
        rows = usable[index]
        shard = datasets[rows.dataset].read(rows.shard)
        for row in rows.rows:
            annotations = shard.annotations[row]
            if annotations is None or annotations.crowd.all():
                continue
            boxes, labels = (
                annotations.boxes[~annotations.crowd],
                annotations.labels[~annotations.crowd],
            )
            proposals = select_candidates(shard.proposals[row], recipe)
            covered += _add_foreground(moments, boxes, labels, proposals, recipe)
            objects += len(boxes)
            images += 1
        if images >= max_images:
            break
    if not moments.counts.any():
        shown_uris = ", ".join(uris.redact_uri(dataset.manifest.uri) for dataset in datasets)
        raise UnreadableDataset(
            f"none of {images} images of {shown_uris} has a foreground RoI: they show {objects} objects "
            f"that a box can overlap by an IoU of {recipe.foreground_iou}"
        )
    return moments.compute_statistics(), covered / max(objects, 1)


def _add_foreground(
    moments: TargetMoments,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    proposals: NDArray[np.float32],
    recipe: Recipe,
) -> int:
    """Add the targets of one image's foreground RoIs; returns how many objects a proposal covers."""
    candidates = np.concatenate([proposals, boxes])
    best, match = geometry.find_best_overlaps(candidates, boxes)
    foreground = np.flatnonzero(best >= recipe.foreground_iou)
    targets = geometry.encode_deltas(boxes[match[foreground]], candidates[foreground])
    moments.add(targets, labels[match[foreground]])
    if recipe.flip > 0:  # as the mirrored image would have it
        moments.add(targets * MIRRORED, labels[match[foreground]])
    if not len(proposals):
        return 0
    covered, _ = geometry.find_best_overlaps(boxes, proposals)
    return int((covered >= recipe.foreground_iou).sum())
