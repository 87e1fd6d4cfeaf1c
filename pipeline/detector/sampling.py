"""The RoIs of one image that a training step looks at (Fast R-CNN, section 2.3, mini-batch sampling).

Importing this does not import torch: CPU tasks sample ahead of the training workers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import geometry

CROWD_COVER = 0.7  # a proposal with this share of its area in a crowd is no example of background


class SampledRois(NamedTuple):
    """The sample of one image, foreground first."""

    boxes: NDArray[np.float32]
    """`(S, 4)`, in pixels as the proposals."""
    labels: NDArray[np.int64]
    """`(S,)`: 0 is background, class c of the manifest is c + 1."""
    targets: NDArray[np.float32]
    """`(S, 4)`: raw regression targets; 0 for background."""
    iou: NDArray[np.float32]
    """`(S,)`: with the matched object."""


def sample_rois(
    proposals: NDArray[np.float32],
    gt_boxes: NDArray[np.float32],
    gt_labels: NDArray[np.integer],
    gt_crowd: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    rois_per_image: int = 64,
    fg_fraction: float = 0.25,
    fg_iou: float = 0.5,
    bg_iou: tuple[float, float] = (0.1, 0.5),
) -> SampledRois:
    """Sample up to `rois_per_image` RoIs without replacement, at most `fg_fraction` of them foreground.

    Args:
        proposals: `(P, 4)`.
        gt_boxes: `(G, 4)` objects; those that are no crowd join the proposals.
        gt_labels: `(G,)`, from 1.
        gt_crowd: `(G,)`: crowds are never foreground, and what lies in one is not background either.
        rng: keyed by (seed, epoch, image_id).
        rois_per_image: 64 of each of 2 images in the paper.
        fg_fraction: the share that foreground may take; background fills the rest.
        fg_iou: a RoI is foreground from this IoU with its best object on.
        bg_iou: background has an IoU in [low, high). In an image with none there, it is widened to
            [0, high), so that images without objects still teach background.

    Fewer come back when there are not enough of a kind; none when there are no candidates at all.
    """
    objects, classes = gt_boxes[~gt_crowd], gt_labels[~gt_crowd]
    candidates = np.concatenate([proposals, objects]).astype(np.float32)
    best, match = _best_objects(candidates, objects)
    foreground = np.flatnonzero(best >= fg_iou)
    below = (best < min(bg_iou[1], fg_iou)) & ~_in_crowd(candidates, gt_boxes[gt_crowd])
    background = np.flatnonzero(below & (best >= bg_iou[0]))
    if not len(background):
        background = np.flatnonzero(below)

    quota = round(fg_fraction * rois_per_image)
    foreground = rng.permutation(foreground)[:quota]
    background = rng.permutation(background)[: rois_per_image - len(foreground)]
    chosen = np.concatenate([foreground, background])

    labels = np.zeros(len(chosen), np.int64)
    targets = np.zeros((len(chosen), 4), np.float32)
    if len(foreground):
        labels[: len(foreground)] = classes[match[foreground]]
        targets[: len(foreground)] = geometry.encode(
            objects[match[foreground]], candidates[foreground]
        )
    return SampledRois(candidates[chosen], labels, targets, best[chosen])


def _best_objects(
    candidates: NDArray[np.float32], objects: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """The largest IoU of each candidate with an object, and which object that is."""
    if not len(objects):
        return np.zeros(len(candidates), np.float32), np.zeros(len(candidates), np.intp)
    overlaps = geometry.iou(candidates, objects.astype(np.float32))
    match = overlaps.argmax(axis=1)
    return overlaps[np.arange(len(candidates)), match], match


def _in_crowd(candidates: NDArray[np.float32], crowds: NDArray[np.float32]) -> NDArray[np.bool_]:
    if not len(crowds):
        return np.zeros(len(candidates), bool)
    shared = geometry.intersection(candidates, crowds.astype(np.float32))
    inside: NDArray[np.bool_] = shared.max(axis=1) >= CROWD_COVER * geometry.area(candidates)
    return inside
